"""From what a source counts to the figures of a report. Pure, but for the questions to the source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_broker_side.reporting.figures import (
    TIMES,
    Bucket,
    Decisions,
    DeviceFigures,
    Energy,
    Figures,
    Fleet,
    Ledger,
    Missing,
    PlanFigures,
    Quantiles,
    Report,
    Reported,
    Scope,
    WorkerFigures,
)
from wire.messages import Outcome

PLAN = ("device", "version", "cut", "codec", "energy_source")
"""Tags by which frames are told apart."""
CELL = (*PLAN, "outcome", "reason")
MOST_BUCKETS = 200
MOST_DRAWN = 12
"""Devices with latency over time: what a page can show."""
WIDTHS_MS = tuple(s * 1000 for s in (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400))

Key = tuple[str, ...]
Times = Mapping[str, Quantiles]


@dataclass(frozen=True, slots=True)
class Cell:
    """Frames that agree in every tag of ``CELL``, added up."""

    key: Key
    frames: int
    energy_mj: float
    sent_bytes: int
    judged: int
    right: int

    def tag(self, name: str) -> str:
        """Return one of its tags."""
        return self.key[CELL.index(name)]


class Source(Protocol):
    """Where the points are: aggregates over the frames of its scope."""

    @property
    def words(self) -> str:
        """The source as the reader is told of it."""

    @property
    def scope(self) -> Scope:
        """What it was opened for."""

    def cells(self) -> Sequence[Cell]:
        """Count frames by every tag."""

    def times(self, tags: Sequence[str]) -> Mapping[Key, Times]:
        """Return the percentiles of frames grouped by some tags."""

    def span(self) -> tuple[int, int] | None:
        """Return when the first and the last frame was captured, in Unix milliseconds."""

    def buckets(self, width_ms: int, devices: Sequence[str]) -> Mapping[str, Sequence[Bucket]]:
        """Return latency over time; a bucket begins at a multiple of its width."""

    def ledgers(self) -> Mapping[str, Ledger]:
        """Return the account of each device at the end of the window."""

    def decisions(self) -> Mapping[str, Decisions]:
        """Return the decisions for each device."""

    def reported(self) -> Mapping[str, Reported]:
        """Return what each device's telemetry said."""

    def workers(self) -> Sequence[WorkerFigures]:
        """Return every worker's figures, by name."""

    def missing(self) -> Missing | None:
        """Return what is not there; ``None``: this source cannot know."""


def make_report(source: Source, now_ms: int, tell: Callable[[str, int, int], None] = lambda *_: None) -> Report:
    """Ask a source for everything; ``tell`` hears what is being asked for. Raises what the source raises."""
    tell("frames", 0, 4)
    cells, span = source.cells(), source.span()
    tell("percentiles", 1, 4)
    plans = [
        PlanFigures(device, version, cut, codec, energy_source, _figures(mine, times))
        for (device, version, cut, codec, energy_source), mine, times in _grouped(cells, PLAN, source.times(PLAN))
    ]
    by_device = {
        key[0]: _figures(mine, times) for key, mine, times in _grouped(cells, ("device",), source.times(("device",)))
    }
    whole = _figures(cells, source.times(()).get((), {}))
    tell("devices", 2, 4)
    ledgers, decisions, reported = source.ledgers(), source.decisions(), source.reported()
    width_ms = bucket_width_ms(span)
    drawn = sorted(by_device, key=lambda name: (-by_device[name].frames, name))[:MOST_DRAWN]
    buckets = source.buckets(width_ms, sorted(drawn)) if span else {}
    tell("workers", 3, 4)
    nothing = _figures((), {})
    devices = tuple(
        DeviceFigures(
            name,
            by_device.get(name, nothing),
            ledgers.get(name),
            decisions.get(name, Decisions(0, ())),
            reported.get(name, Reported(None, None)),
            tuple(buckets.get(name, ())),
        )
        for name in sorted({*by_device, *ledgers, *decisions, *reported})
    )
    first_ms, last_ms = span or (None, None)
    return Report(
        source.scope, source.words, now_ms, first_ms, last_ms, width_ms,
        Fleet(whole, _together(ledgers.values()), sum(one.count for one in decisions.values())),
        devices, tuple(plans), tuple(source.workers()), source.missing(),
    )  # fmt: skip


def bucket_width_ms(span: tuple[int, int] | None) -> int:
    """Return the least width of those that people think in by which a span has at most ``MOST_BUCKETS``."""
    if span is None:
        return WIDTHS_MS[0]
    long_ms = (span[1] - span[0]) / (MOST_BUCKETS - 1)
    fitting = [width for width in WIDTHS_MS if width >= long_ms]
    return fitting[0] if fitting else WIDTHS_MS[-1] * -int(-long_ms // WIDTHS_MS[-1])


def _grouped(
    cells: Iterable[Cell], tags: Sequence[str], times: Mapping[Key, Times]
) -> Iterable[tuple[Key, list[Cell], Times]]:
    groups: dict[Key, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell.tag(tag) for tag in tags), []).append(cell)
    for key in sorted(groups):
        yield key, groups[key], times.get(key, {})


def _figures(cells: Iterable[Cell], times: Times) -> Figures:
    outcomes = Counter({outcome.value: 0 for outcome in Outcome})
    reasons: Counter[str] = Counter()
    energy: dict[str, list[Cell]] = {}
    frames = judged = right = sent_bytes = 0
    for cell in cells:
        frames += cell.frames
        judged += cell.judged
        right += cell.right
        sent_bytes += cell.sent_bytes
        outcomes[cell.tag("outcome")] += cell.frames
        if cell.tag("reason"):
            reasons[f"{cell.tag('outcome')}: {cell.tag('reason')}"] += cell.frames
        energy.setdefault(cell.tag("energy_source"), []).append(cell)
    return Figures(
        frames,
        dict(outcomes),
        dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        {name: times.get(name) for name in TIMES},
        tuple(_energy(source, mine) for source, mine in sorted(energy.items())),
        judged,
        right / judged if judged else None,
        sent_bytes / frames if frames else None,
        sent_bytes,
    )


def _energy(source: str, cells: Sequence[Cell]) -> Energy:
    frames, sum_mj = sum(cell.frames for cell in cells), sum(cell.energy_mj for cell in cells)
    return Energy(source, frames, sum_mj / frames, sum_mj)


def _together(ledgers: Iterable[Ledger]) -> Ledger | None:
    told = list(ledgers)
    if not told:
        return None
    folded: Counter[str] = Counter()
    for one in told:
        folded.update(one.folded)
    captured, counted, gap = (sum(getattr(one, name) for one in told) for name in ("captured", "counted", "gap"))
    return Ledger(captured, counted, gap, dict(folded))
