"""What the pages share in drawing: cards, and charts that are given new options."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup
from nicegui import ui

from tools.dashboard.charts import Options

CHARTS_EVERY = 2
"""Pictures between two drawings of a chart, each of which sends its whole quarter of an hour."""


def card(title: str, about: str = "") -> Any:
    """Return a card with a heading, to be filled; a context manager."""
    box = ui.element("section").classes("sf-card")
    with box:
        ui.html(Markup("{} <small>{}</small>").format(title, about), sanitize=False, tag="h2")
    return box


def chart(*, tall: bool = False) -> ui.echart:
    """Return an empty chart."""
    return ui.echart({}).classes("sf-chart" + (" sf-tall" if tall else ""))


def redraw(shown: ui.echart, options: Options) -> None:
    """Give a chart new options."""
    shown.options.clear()
    shown.options.update(options)
    shown.update()
