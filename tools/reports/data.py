"""A report for machines: one JSON document with everything, or a row of CSV per device, plan and source of energy."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterator
from typing import Any

from edge_broker_side.reporting.figures import TIMES, PlanFigures, Report
from tools.reports.words import notes
from wire.messages import Outcome


def as_json(told: Report) -> str:
    """Return the whole report; keys are those of ``edge_broker_side.reporting.figures``."""
    return json.dumps({**dataclasses.asdict(told), "notes": notes(told)}, indent=2, ensure_ascii=False) + "\n"


def as_csv(told: Report) -> str:
    """Return one row per device, plan and source of energy; what does not exist is empty."""
    paper = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    rows = [{name: _inert(value) for name, value in _row(told.scope.site, plan)} for plan in told.plans]
    writer = csv.DictWriter(paper, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return paper.getvalue()


def _row(site: str, one: PlanFigures) -> Iterator[tuple[str, Any]]:
    figures = one.figures
    yield from zip(COLUMNS, (site, one.device, one.version, one.cut, one.codec, one.energy_source), strict=False)
    yield "frames", figures.frames
    for outcome in Outcome:
        yield f"outcome_{outcome}", figures.outcomes.get(outcome, 0)
    for name in TIMES:
        quantiles = figures.times[name]
        if quantiles is not None:
            yield from ((f"{name}_{percent}", value) for percent, value in dataclasses.asdict(quantiles).items())
    for energy in figures.energy:
        yield from (("energy_mj_mean", energy.mean_mj), ("energy_mj_sum", energy.sum_mj))
    yield from (("judged", figures.judged), ("accuracy", figures.accuracy))
    yield from (("bytes_mean", figures.bytes_mean), ("bytes_sum", figures.bytes_sum))
    yield "reasons", "; ".join(f"{reason} = {count}" for reason, count in figures.reasons.items())


def _inert(value: Any) -> Any:
    """Return a text of a device as no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


COLUMNS = (
    *("site", "device", "version", "cut", "codec", "energy_source", "frames"),
    *(f"outcome_{outcome}" for outcome in Outcome),
    *(f"{name}_{percent}" for name in TIMES for percent in ("p50", "p95", "p99")),
    *("energy_mj_mean", "energy_mj_sum", "judged", "accuracy", "bytes_mean", "bytes_sum", "reasons"),
)
