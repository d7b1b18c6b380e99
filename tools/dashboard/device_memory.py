"""What the dashboard remembers of one device: its last words, and figures of the last quarter of an hour. Pure."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from tools.dashboard.series import Series, sane
from wire.messages import (
    Capabilities,
    Decision,
    DeviceState,
    EnergySource,
    FoldedCount,
    FrameOutcome,
    Outcome,
    Outcomes,
    State,
    Telemetry,
)

RECENT_FRAMES = 128
"""Answered frames that a device's percentiles are over."""
DECISIONS = 20
REASONS = 32
"""Different reasons counted per device; what a hostile device says beyond them is counted as ``OTHER``."""
OTHER = "other reasons"
PLANS = 24
"""Different plans a device's timeline names."""
TEXT = 300
"""Characters kept of a sentence that somebody else wrote."""
MINUTE_S = 60.0

SUMS = (
    "edge", "device", "fallback", "dropped", "answered", "latency_ms", "head_ms", "encode_ms", "network_ms", "wait_ms",
    "tail_ms", "sent_bytes", "measured_mj", "measured", "modelled_mj", "modelled",
)  # fmt: skip
GAUGES = ("uplink_bps", "rtt_ms", "fps", "battery_share", "power_mw", "temperature_c", "plan", "open_least")


@dataclass(frozen=True, slots=True)
class Told:
    """A decision as it is shown."""

    at_s: float
    rev: int
    plan: str
    policy: str
    reason: str


@dataclass(slots=True)
class DeviceMemory:
    """One device. Moments are of our monotonic clock, in seconds."""

    name: str
    known_s: float
    state: DeviceState | None = None
    state_reason: str = ""
    session: int = 0
    seen_s: float | None = None
    """When it last said something itself; what the broker had kept does not count."""
    capabilities: Capabilities | None = None
    telemetry: Telemetry | None = None
    decisions: deque[Told] = field(default_factory=lambda: deque(maxlen=DECISIONS))
    series: Series = field(default_factory=lambda: Series(SUMS, GAUGES))
    recent: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=RECENT_FRAMES))
    """(moment, latency_ms) of answered frames."""
    plans: list[str] = field(default_factory=list)
    """Of the timeline; the gauge ``plan`` is an index into it."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Since the dashboard began to listen."""
    reasons: Counter[str] = field(default_factory=Counter)
    old_frames: int = 0
    """Frames told too late for any bucket."""
    _clock_s: float | None = None
    """What to add to the device's wall clock, in seconds, to get ours."""
    _batch: tuple[int, int] = (0, 0)
    _batch_frames: frozenset[int] = frozenset()
    _ledger_session: int = 0
    _captured: int = 0
    _ledger_balance: int = 0
    """Captured less told, in that session, since we listen."""
    _ledger_least: int | None = None
    _folded: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def open_frames(self) -> int:
        """Frames captured whose outcome has not been told, beyond the fewest seen in this session."""
        return 0 if self._ledger_least is None else self._ledger_balance - self._ledger_least

    def take_state(self, message: State) -> None:
        """Take a state; of two, the higher session is the truth."""
        if message.session >= self.session:
            self.state, self.session, self.state_reason = message.state, message.session, message.reason[:TEXT]

    def take_telemetry(self, message: Telemetry, now_s: float) -> None:
        """Take what the device measures; what it kept while offline only fills the gap of its series."""
        if message.replayed:
            at_s = self._moment(message.at_ms, now_s)
        else:
            at_s, self.telemetry = now_s, message
            self._clock_s = now_s - message.at_ms / 1000
        self.series.set(
            at_s,
            uplink_bps=message.uplink_bps,
            rtt_ms=message.rtt_ms,
            fps=message.fps,
            battery_share=message.battery_share,
            power_mw=message.power_mw,
            temperature_c=message.temperature_c,
            plan=self._plan_number(str(message.plan)[:TEXT]),
        )

    def take_decision(self, message: Decision, now_s: float) -> None:
        """Take a decision; an older or repeated one changes nothing."""
        if self.decisions and message.rev <= self.decisions[-1].rev:
            return
        self.decisions.append(
            Told(now_s, message.rev, str(message.plan)[:TEXT], message.policy[:64], message.reason[:TEXT])
        )

    def take_outcomes(self, message: Outcomes, now_s: float) -> list[float]:
        """Take a batch of the ledger, unless it is a repeated one; return the latencies of its answered frames."""
        if (message.session, message.batch) == self._batch:
            return []
        # After a restart a client tells its last batch again, under a new number.
        known = self._batch_frames if message.session == self._batch[0] else frozenset()
        self._batch = (message.session, message.batch)
        self._batch_frames = frozenset(line.frame for line in message.rows)
        lines = [line for line in message.rows if line.frame not in known]
        for line in lines:
            self._take_line(line, now_s)
        self._balance(message, len(lines) + self._take_folded(message), now_s)
        latencies = [sane(line.latency_ms) for line in lines if line.outcome is not Outcome.DROPPED]
        self.recent.extend((now_s, latency) for latency in latencies)
        return latencies

    def _take_line(self, line: FrameOutcome, now_s: float) -> None:
        self._count(line.outcome, line.reason, 1)
        row = self.series.row(self._moment(line.captured_ms, now_s))
        if row is None:
            self.old_frames += 1
            return
        answered = line.outcome is not Outcome.DROPPED
        measured = line.energy_source is EnergySource.MEASURED
        energy_mj = sane(line.energy_mj)
        row[: len(SUMS)] += (
            line.outcome is Outcome.EDGE, line.outcome is Outcome.DEVICE, line.outcome is Outcome.FALLBACK,
            not answered, answered, answered and sane(line.latency_ms), answered and sane(line.head_ms),
            answered and sane(line.encode_ms), answered and sane(line.network_ms), answered and sane(line.wait_ms),
            answered and sane(line.tail_ms), sane(line.sent_bytes),
            measured and energy_mj, measured, not measured and energy_mj, not measured,
        )  # fmt: skip

    def _take_folded(self, message: Outcomes) -> int:
        """Count frames whose details went; return how many were new."""
        if message.session != self._ledger_session:
            self._folded = {}
        fresh = 0
        for one in message.folded[:REASONS]:
            fresh += self._fold(one)
        return fresh

    def _fold(self, one: FoldedCount) -> int:
        before = self._folded.get((one.outcome, one.reason), 0)
        if one.frames <= before or (len(self._folded) >= REASONS and before == 0):
            return 0
        self._folded[one.outcome, one.reason] = one.frames
        self._count(one.outcome, one.reason, one.frames - before)
        return one.frames - before

    def _count(self, outcome: Outcome, reason: str, frames: int) -> None:
        self.outcomes[outcome.value] += frames
        if reason:
            key = f"{outcome.value}: {reason[:64]}"
            known = key in self.reasons or len(self.reasons) < REASONS
            self.reasons[key if known else OTHER] += frames

    def _balance(self, message: Outcomes, told: int, now_s: float) -> None:
        """Follow how many captured frames have not been told. Frames of before we listened are nobody's loss."""
        if message.session != self._ledger_session:
            self._ledger_session, self._ledger_least = message.session, None
            self._captured = message.captured
            self._ledger_balance = 0
        else:
            self._ledger_balance += message.captured - self._captured - told
            self._captured = message.captured
        least = self._ledger_least
        self._ledger_least = self._ledger_balance if least is None else min(least, self._ledger_balance)
        row = self.series.row(now_s)
        if row is not None:
            column = self.series.columns["open_least"]
            row[column] = np.fmin(row[column], self.open_frames)

    def listen_anew(self) -> None:
        """Count open frames from here: what was told while we were away is nobody's loss."""
        self._ledger_session = 0

    def _moment(self, at_ms: int, now_s: float) -> float:
        """Return our moment for a time of the device's clock, which need not be right but must not have jumped."""
        if self._clock_s is None:
            return now_s
        return min(at_ms / 1000 + self._clock_s, now_s)

    def _plan_number(self, plan: str) -> int:
        if plan not in self.plans:
            if len(self.plans) >= PLANS:
                return PLANS - 1
            self.plans.append(plan)
        return self.plans.index(plan)
