"""A report in the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from edge_broker_side.reporting.figures import STAGES, DeviceFigures, Figures, Report
from tools.output import console, print_table
from tools.reports.words import READING, account, covered, notes, utc, window
from wire.messages import Outcome

SHOWN_DECISIONS = 5
"""Newest per device; the page and JSON have more."""


def print_tables(told: Report) -> None:
    """Print the whole report."""
    paper = console()
    figures = told.fleet.figures
    paper.print(f"site {told.scope.site} · {window(told)} · frames {covered(told)}", soft_wrap=True, markup=False)
    paper.print(f"from {told.source}, made {utc(told.generated_ms)} UTC", soft_wrap=True, markup=False)
    ledger = told.fleet.ledger
    style = "yellow" if ledger is None else "bold red" if ledger.gap else "green"
    paper.print(account(ledger), style=style, soft_wrap=True, markup=False)
    devices = [(one.device, one.figures, one.ledger, one.decisions.count) for one in told.devices]
    devices.append(("fleet", figures, ledger, told.fleet.decisions))
    counts = ["frames", *Outcome]
    costs = ["right %", "mJ/frame", "bytes/frame"]
    print_table(
        "devices (energy as it says, all else measured)",
        ["device", *counts, "unaccounted", *costs, "decisions"],
        [(name, *_counts(mine), book and book.gap, *_costs(mine), count) for name, mine, book, count in devices],
    )
    print_table(
        "devices and plans",
        ["device", "plan", *counts, *costs],
        [(one.device, one.plan, *_counts(one.figures), *_costs(one.figures)) for one in told.plans],
    )
    print_table(
        "latency in ms (measured): percentiles of the whole, medians of the stages",
        ["device", "plan", "p50", "p95", "p99", *(name[:-3] for name in STAGES)],
        [
            *((one.device, one.plan, *_times(one.figures)) for one in told.plans),
            *((name, "all", *_times(mine)) for name, mine, _, _ in devices),
        ],
    )
    print_table(
        "what devices said of themselves (measured)",
        ["device", "uplink Mbit/s, median", "battery %, newest"],
        [(one.device, *_said(one)) for one in told.devices],
    )
    print_table(
        "why frames fell back or were dropped",
        ["device", "reason", "frames"],
        [(one.device, why, count) for one in told.devices for why, count in one.figures.reasons.items()],
    )
    if told.workers:
        print_table(
            "edge workers (measured)",
            ["worker", "busy %", "busiest %", "frames/batch", "queue", "longest queue", "served", "refused as full"],
            [
                (w.worker, 100 * w.utilisation_mean, 100 * w.utilisation_max, w.batch_mean, w.queued_mean,
                 w.queued_max, w.served, w.busy)
                for w in told.workers
            ],
        )  # fmt: skip
    print_table(
        "plan timeline (UTC)",
        ["device", "when", "plan", "policy", "reason"],
        [r for d in told.devices for r in _told(d)],
    )
    for words in (*notes(told), *READING):
        paper.print(f"· {words}", markup=False)


def _counts(figures: Figures) -> tuple[int, ...]:
    return (figures.frames, *(figures.outcomes.get(outcome, 0) for outcome in Outcome))


def _costs(figures: Figures) -> tuple[object, ...]:
    energy = ", ".join(f"{one.mean_mj:.3g} {one.source}" for one in figures.energy)
    return _percent(figures.accuracy), energy or None, figures.bytes_mean


def _times(figures: Figures) -> tuple[float | None, ...]:
    whole = figures.times["latency_ms"]
    percentiles = (None, None, None) if whole is None else (whole.p50, whole.p95, whole.p99)
    return (*percentiles, *(None if (stage := figures.times[name]) is None else stage.p50 for name in STAGES))


def _said(one: DeviceFigures) -> tuple[float | None, float | None]:
    rate = one.reported.uplink_bps_p50
    return None if rate is None else rate / 1e6, _percent(one.reported.battery_share)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _told(one: DeviceFigures) -> Iterator[tuple[str, ...]]:
    newest = one.decisions.newest[-SHOWN_DECISIONS:]
    if (more := one.decisions.count - len(newest)) > 0:
        yield one.device, f"and {more:,} before", "", "", ""
    yield from ((one.device, utc(d.at_ms), d.plan, d.policy, d.reason) for d in newest)
