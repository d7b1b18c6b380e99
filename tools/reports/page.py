"""A report as one self-contained HTML page: no script, no network, readable on a phone and on paper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

from edge_broker_side.reporting.figures import STAGES, DeviceFigures, Report
from tools.reports import words
from wire.messages import Outcome

TEMPLATE = "page.html"
MOST_DEVICES = 40
"""Timelines of so many devices, those with the most frames; JSON has all."""


def page(told: Report, tell: Callable[[str, int, int], None] = lambda *_: None) -> str:
    """Return the page; texts of devices are escaped, whatever they hold."""
    from tools.reports.charts import draw

    tell("charts", 0, 1)
    charts = draw(told)
    tell("charts", 1, 1)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent, "utc": words.utc}
    return environment.get_template(TEMPLATE).render(
        told=told, words=words, charts=charts, outcomes=[str(one) for one in Outcome], stages=STAGES,
        timelines=_timelines(told),
    )  # fmt: skip


def number(value: float | None) -> str:
    """Return a figure with about three digits; a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2g}"


def percent(share: float | None) -> str:
    """Return a share as percent."""
    return "–" if share is None else f"{100 * share:.1f} %"


def _timelines(told: Report) -> list[DeviceFigures]:
    busiest: Any = sorted(told.devices, key=lambda one: -one.figures.frames)[:MOST_DEVICES]
    return sorted((one for one in busiest if one.decisions.count), key=lambda one: str(one.device))
