"""What a subscriber can know of a fleet: messages in, one row of facts per device out. Pure."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from edge_broker_side.reporting.rank import rank
from wire.messages import (
    Decision,
    DeviceState,
    EnergySource,
    FrameOutcome,
    Outcome,
    Outcomes,
    PolicyState,
    State,
    Telemetry,
    WorkerLoad,
)
from wire.plan import Plan

RECENT_FRAMES = 200
"""How many of the last frames the live figures are over."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame's line with its plan."""

    line: FrameOutcome
    plan: Plan


@dataclass(slots=True)
class DeviceView:
    """One device as its messages tell it."""

    name: str
    state: DeviceState | None = None
    session: int = 0
    telemetry: Telemetry | None = None
    decision: Decision | None = None
    decisions: int = 0
    decided_by: Counter[str] = field(default_factory=Counter)
    """Decisions by the policy that chose."""
    captured: dict[int, int] = field(default_factory=dict)
    """Frames captured, by session."""
    folded: dict[tuple[int, str, str], int] = field(default_factory=dict)
    frames: dict[tuple[int, int], Frame] = field(default_factory=dict)
    """By (session, frame): a repeated line changes nothing."""
    recent: deque[Frame] = field(default_factory=lambda: deque(maxlen=RECENT_FRAMES))

    def take(self, message: Any) -> None:
        """Take any message of this device."""
        match message:
            case State() if message.session >= self.session:
                self.state, self.session = message.state, message.session
            case Telemetry() if not message.replayed:
                self.telemetry = message
            case Decision() if self.decision is None or message.rev > self.decision.rev:
                self.decision = message
                self.decisions += 1
                self.decided_by[message.policy] += 1
            case Outcomes():
                self._take_outcomes(message)

    def _take_outcomes(self, message: Outcomes) -> None:
        session = message.session
        self.captured[session] = max(self.captured.get(session, 0), message.captured)
        for count in message.folded:
            self.folded[session, count.outcome, count.reason] = count.frames
        for line in message.rows:
            if (session, line.frame) not in self.frames:
                frame = Frame(line, message.plans[line.plan])
                self.frames[session, line.frame] = frame
                self.recent.append(frame)


@dataclass(slots=True)
class FleetView:
    """Every device and worker of a site."""

    devices: dict[str, DeviceView] = field(default_factory=dict)
    workers: dict[str, WorkerLoad] = field(default_factory=dict)
    policies: dict[str, PolicyState] = field(default_factory=dict)
    """What each decision service last said of itself."""
    fallback: Counter[str] = field(default_factory=Counter)
    """Device rounds in which a fallback chose, by reason."""
    decide_ms: list[float] = field(default_factory=list)
    """Of every period that was told: the longest round."""

    def take(self, name: str, message: Any) -> None:
        """Take a message of the device, worker or decision service of that name."""
        match message:
            case WorkerLoad():
                self.workers[name] = message
            case PolicyState():
                self.policies[name] = message
                self.fallback.update(message.fallback)
                self.decide_ms.append(message.decide_ms_max)
            case _:
                self.devices.setdefault(name, DeviceView(name)).take(message)


def summarise(views: list[DeviceView]) -> dict[str, Any]:
    """Return the figures of some devices together, over every frame seen.

    Latency is over answered frames; accuracy over answered frames with a true label; energy and bytes over all. Keys:
    ``frames_captured``, ``outcomes``, ``reasons``, ``unaccounted``, ``decisions``, ``plan_switches``,
    ``latency_ms_p50``, ``latency_ms_p95``, ``accuracy``, ``energy_mj_mean``, ``energy_source``, ``bytes_mean``.
    """
    lines = [frame.line for view in views for frame in view.frames.values()]
    answered = [line for line in lines if line.outcome is not Outcome.DROPPED]
    judged = [line for line in answered if line.truth is not None and line.label is not None]
    outcomes = Counter({outcome.value: 0 for outcome in Outcome})
    outcomes.update(line.outcome.value for line in lines)
    reasons = Counter(f"{line.outcome}: {line.reason}" for line in lines if line.reason)
    for view in views:
        for (_, outcome, reason), count in view.folded.items():
            outcomes[outcome] += count
            reasons[f"{outcome}: {reason}"] += count
    captured = sum(sum(view.captured.values()) for view in views)
    latencies = [line.latency_ms for line in answered]
    return {
        "frames_captured": captured,
        "outcomes": dict(outcomes),
        "reasons": dict(reasons),
        "unaccounted": captured - sum(outcomes.values()),
        "decisions": sum(view.decisions for view in views),
        "plan_switches": sum(_switches(view) for view in views),
        "latency_ms_p50": _percentile(latencies, 50),
        "latency_ms_p95": _percentile(latencies, 95),
        "accuracy": sum(line.label == line.truth for line in judged) / len(judged) if judged else None,
        "energy_mj_mean": _mean([line.energy_mj for line in lines]),
        "energy_source": "+".join(sorted({EnergySource(line.energy_source).value for line in lines})) or None,
        "bytes_mean": _mean([float(line.sent_bytes) for line in lines]),
    }


def _switches(view: DeviceView) -> int:
    """How often successive frames ran under different plans."""
    plans = [view.frames[key].plan for key in sorted(view.frames)]
    return sum(1 for before, after in itertools.pairwise(plans) if before != after)


def _percentile(values: list[float], percent: float) -> float | None:
    """Return the nearest-rank percentile, as the recorder's store and the metrics server give it."""
    return sorted(values)[rank(len(values), percent)] if values else None


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
