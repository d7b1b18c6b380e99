"""The figures of a report: plain values, the same from every source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PERCENTS = (50, 95, 99)
ANSWERED_TIMES = ("latency_ms", "head_ms", "encode_ms")
"""Over answered frames: outcomes edge, device and fallback."""
EDGE_TIMES = ("network_ms", "wait_ms", "tail_ms")
"""Over frames of outcome edge."""
TIMES = (*ANSWERED_TIMES, *EDGE_TIMES)
STAGES = TIMES[1:]
"""What a frame's latency is made of."""
DECISIONS_KEPT = 50
"""Newest per device; the others are counted."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a report is about. Times are the senders' clocks in Unix milliseconds; ``None``: no bound."""

    site: str
    devices: tuple[str, ...] = ()
    """Empty: every one."""
    since_ms: int | None = None
    until_ms: int | None = None
    """Exclusive."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Nearest-rank percentiles, see ``rank``."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy of the device for frames whose figures come from one source."""

    source: str
    """measured or modelled."""
    frames: int
    mean_mj: float
    """Per frame, dropped ones among them."""
    sum_mj: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What became of some frames; all are measured, but for energy, which says."""

    frames: int
    outcomes: Mapping[str, int]
    reasons: Mapping[str, int]
    """Of fallbacks and drops, as ``outcome: reason``."""
    times: Mapping[str, Quantiles | None]
    """By name in ``TIMES``; ``None``: no such frame."""
    energy: tuple[Energy, ...]
    """By source, never added up."""
    judged: int
    """Answered frames with a label and a known truth."""
    accuracy: float | None
    """Share of right answers among them."""
    bytes_mean: float | None
    """Encoded activation per frame; 0 for frames that never left."""
    bytes_sum: int


@dataclass(frozen=True, slots=True)
class PlanFigures:
    """The frames of one device under one plan, with one source of energy."""

    device: str
    version: str
    cut: str
    codec: str
    energy_source: str
    figures: Figures

    @property
    def plan(self) -> str:
        """The plan in one word."""
        return f"{self.version}/{self.cut}/{self.codec}"


@dataclass(frozen=True, slots=True)
class Ledger:
    """The account of every frame ever captured, up to the end of the window: not of the window alone."""

    captured: int
    counted: int
    gap: int
    """Captured, but with no outcome recorded: still under way, or lost."""
    folded: Mapping[str, int]
    """Of the counted, frames told without details, by outcome."""


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision for a device."""

    at_ms: int
    plan: str
    policy: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decisions:
    """How often a device was told a plan, and the newest of them, oldest first."""

    count: int
    newest: tuple[Decided, ...]


@dataclass(frozen=True, slots=True)
class Reported:
    """What a device's telemetry said of it; ``None``: nothing."""

    uplink_bps_p50: float | None
    battery_share: float | None
    """Newest."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Answered frames of a stretch of time."""

    at_ms: int
    """Its beginning; its length is the report's ``bucket_ms``."""
    frames: int
    latency_ms_p50: float


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """One device under all its plans."""

    device: str
    figures: Figures
    ledger: Ledger | None
    """``None``: a recorder of an older release keeps none."""
    decisions: Decisions
    reported: Reported
    buckets: tuple[Bucket, ...]
    """Of the devices with the most frames alone."""


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """One edge worker over its periods."""

    worker: str
    utilisation_mean: float
    utilisation_max: float
    batch_mean: float | None
    """Over periods in which it served."""
    queued_mean: float
    queued_max: int
    served: int
    busy: int
    """Refused with a full queue."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What the store no longer has, and what has not reached the metrics server; of all its sites together."""

    trimmed: Mapping[str, int]
    """Rows that outgrew the store's bounds, by measurement, ever."""
    waiting: int | None
    """Points for the metrics server; ``None``: no server was ever set up."""
    trimmed_unforwarded: int
    """Of the trimmed rows, those that never reached it."""
    dead: int
    """Points that it refused for good."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """All devices of the report together."""

    figures: Figures
    ledger: Ledger | None
    decisions: int


@dataclass(frozen=True, slots=True)
class Report:
    """Everything there is to tell."""

    scope: Scope
    source: str
    generated_ms: int
    first_ms: int | None
    """Capture of the oldest frame in the report; ``None``: no frame."""
    last_ms: int | None
    bucket_ms: int
    fleet: Fleet
    devices: tuple[DeviceFigures, ...]
    plans: tuple[PlanFigures, ...]
    workers: tuple[WorkerFigures, ...]
    missing: Missing | None
    """``None``: the source cannot know."""
