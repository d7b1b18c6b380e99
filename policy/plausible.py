"""Which figures of devices and workers can be true; what cannot is replaced or ignored, and counted by name."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from wire.plan import Plan

UPLINK_BPS = (1e3, 1e11)
RTT_MS = (0.0, 60_000.0)
CALIBRATION = (0.05, 50.0)
SHARE = (0.0, 1.0)
AGE_MS = (0.0, 1e9)
FPS = (0.0, 1000.0)
DEADLINE_MS = (1.0, 600_000.0)
"""What devices accept of a decision."""
SLOWDOWN = (1e-3, 1e4)
MAX_SESSION = 2**63 - 1
USUAL_FPS = 1.0
USUAL_DEADLINE_MS = 1000.0


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What a device says it can do."""

    session: int
    device_class: str
    slowdown: float
    versions: Mapping[str, str]
    """Name to sha256."""
    codecs: frozenset[str]
    fps: float
    deadline_ms: float
    may_ship_input: bool


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """What a device measured of itself; ``None`` means not known."""

    session: int
    plan: Plan
    decision_rev: int
    fps: float
    calibration: float | None = None
    rtt_ms: float | None = None
    uplink_bps: float | None = None
    battery_share: float | None = None
    uplink_age_ms: float | None = None
    """Since the uplink was last measured."""
    fallbacks: int = 0
    """Frames of the session that the edge did not answer in time."""
    ended: int = 0
    """Frames of the session, however they ended."""


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """How busy a worker was over a period."""

    session: int
    period_ms: float
    queued: int
    served: int
    utilisation: float
    batch_mean: float
    wait_ms: float | None = None
    """Mean time from arrival to the start of a tail."""


class Sieve:
    """Sorts figures; ``counters`` tells what was refused."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters

    def figure(self, what: str, value: float | None, bounds: tuple[float, float], old: float | None) -> float | None:
        """Return ``value`` where it can be, else ``old``; NaN cannot."""
        if value is None:
            return old
        if bounds[0] <= value <= bounds[1]:
            return value
        self._counters[f"implausible_{what}"] += 1
        return old

    def session(self, session: int) -> bool:
        """Whether a session number can be."""
        possible = 0 <= session <= MAX_SESSION
        self._counters["implausible_session"] += not possible
        return possible

    def facts(self, told: DeviceFacts) -> DeviceFacts:
        """Return what a device says, with usual figures in place of those that cannot be."""
        return dataclasses.replace(
            told,
            fps=self._or_usual("fps", told.fps, FPS, USUAL_FPS),
            deadline_ms=self._or_usual("deadline", told.deadline_ms, DEADLINE_MS, USUAL_DEADLINE_MS),
            slowdown=self._or_usual("slowdown", told.slowdown, SLOWDOWN, 1.0),
        )

    def load(self, load: WorkerReport) -> bool:
        """Whether a worker's figures can be."""
        possible = (
            0 <= load.utilisation <= 1.5
            and 0 < load.period_ms <= 3.6e6
            and 0 <= load.queued < 10**9
            and 0 <= load.served < 10**9
            and 0 <= load.batch_mean <= 4096
            and (load.wait_ms is None or 0 <= load.wait_ms < math.inf)
        )
        self._counters["implausible_worker_load"] += not possible
        return possible

    def _or_usual(self, what: str, value: float, bounds: tuple[float, float], usual: float) -> float:
        possible = self.figure(what, value, bounds, None)
        return usual if possible is None else possible
