"""A small site's record, made through the recorder's own store."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_broker_side.points import (
    Point,
    decision_point,
    inference_points,
    shadow_points,
    telemetry_point,
    worker_point,
)
from edge_broker_side.store import Presence, Store, StoreSettings
from policy.rules import DeviceRules, SiteRules
from policy.site_periods import Knowledge
from tests.policy.builders import BOARD, HEAVY_LOCAL, HEAVY_WEBP, small_model
from tflite_models.profile import DeviceProfile
from wire.messages import (
    Compared,
    Decision,
    FrameOutcome,
    Outcome,
    Outcomes,
    Shadow,
    Telemetry,
    WorkerLoad,
)
from wire.plan import Plan

SITE = "plant"
PLANS = (HEAVY_LOCAL, HEAVY_WEBP)
LOCAL, WEBP = range(2)


def known(defaults: DeviceRules | None = None) -> Knowledge:
    """The small catalog, a profile for class ``board`` alone, and rules."""

    def profile_of(device_class: str, slowdown: float) -> DeviceProfile | None:
        return BOARD if device_class == "board" else None

    return Knowledge(small_model(), profile_of, SiteRules(defaults or DeviceRules()))


@dataclasses.dataclass
class Recording:
    """Writes what a site would have told. Stamps are Unix milliseconds; the store must be closed to be read whole."""

    path: Path
    frames: int = 0
    seq: int = 0

    def __post_init__(self) -> None:
        self.store = Store(StoreSettings(str(self.path)))

    def device(self, name: str, device_class: str = "board", deadline_ms: float = 500.0) -> None:
        """What a device says of itself."""
        about = json.dumps({"device_class": device_class, "slowdown": 1.0, "deadline_ms": deadline_ms})
        self.store.write(presence=[Presence(SITE, name, "device", 1, about=about)])

    def ended(
        self, name: str, at_ms: Sequence[int], outcome: Outcome = Outcome.DEVICE, plan: int = LOCAL, **figures: object
    ) -> None:
        """Frames captured at these times, all alike."""

        def rows() -> Iterator[FrameOutcome]:
            for at in at_ms:
                self.frames += 1
                told = {"latency_ms": 100.0, **figures}
                yield FrameOutcome(self.frames, outcome, plan, at, **told)  # type: ignore[arg-type]

        self.write(inference_points(SITE, name, Outcomes(1, 1, self.frames, PLANS, tuple(rows()))))

    def telemetry(self, name: str, at_ms: int, **figures: object) -> None:
        """One telemetry message."""
        self.seq += 1
        told = {"fps": 2.0, "in_flight": 0, "queued": 0, **figures}
        message = Telemetry(1, self.seq, at_ms, HEAVY_LOCAL, 1, **told)  # type: ignore[arg-type]
        self.write([telemetry_point(SITE, name, message)])

    def decision(self, name: str, at_ms: int, rev: int, plan: Plan, deadline_ms: float = 500.0) -> None:
        """One decision."""
        self.write([decision_point(SITE, name, Decision(rev, plan, deadline_ms, "greedy", "because", at_ms))])

    def worker(self, at_ms: int, **figures: object) -> None:
        """One worker's load."""
        told = {"queued": 0, "arrived": 0, "served": 0, "busy": 0, "utilisation": 0.0, **figures}
        message = WorkerLoad(session=1, at_ms=at_ms, period_ms=1000.0, **told)  # type: ignore[arg-type]
        self.write([worker_point(SITE, "edge-1", message)])

    def shadow(self, at_ms: int, *devices: tuple[str, Plan, Plan, float | None, float | None]) -> None:
        """One round of ``greedy`` acting and ``a2c`` in shadow."""
        plans = tuple(dict.fromkeys(plan for one in devices for plan in one[1:3]))
        told = tuple(
            Compared(name, plans.index(acting), plans.index(other), *rewards)
            for name, acting, other, *rewards in devices
        )
        self.write(shadow_points(SITE, Shadow(at_ms, "greedy", "a2c", plans, told)))

    def write(self, points: Iterator[Point] | Sequence[Point]) -> None:
        """Store points."""
        self.store.write(points)

    def close(self) -> Path:
        """Close the store and return its file."""
        self.store.close()
        return self.path
