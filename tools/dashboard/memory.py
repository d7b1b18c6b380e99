"""What the dashboard remembers of a site: every device, worker, policy and recorder, all of it bounded. Pure."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from tools.dashboard.device_memory import OTHER, REASONS, TEXT, DeviceMemory
from tools.dashboard.series import Series
from wire import channels
from wire.channels import Address
from wire.messages import PolicyState, RecorderState, Shadow, WorkerLoad, WorkerState

M = TypeVar("M")

MAX_DEVICES = 2000
MAX_SERVERS = 64
"""Workers, and as many decision services and recorders: what is beyond would be somebody flooding us."""
FLEET_FRAMES = 2000
"""Answered frames that the fleet's percentiles are over."""

HEARD = (
    channels.STATE,
    channels.CAPABILITIES,
    channels.TELEMETRY,
    channels.OUTCOMES,
    channels.DECISION,
    channels.WORKER_STATE,
    channels.WORKER_LOAD,
    channels.POLICY_STATE,
    channels.SHADOW,
    channels.RECORDER_STATE,
)

WORKER_GAUGES = ("queued", "batch_mean", "utilisation", "wait_ms_mean", "served_per_s", "busy")
POLICY_GAUGES = ("entropy_share", "switches_per_minute", "decide_ms_mean", "decide_ms_max", "decisions")
RECORDER_GAUGES = ("points_per_s", "forwarded_per_s", "waiting", "oldest_s", "dead")


@dataclass(slots=True)
class ServerMemory(Generic[M]):
    """A worker, decision service or recorder: its last message, and its gauges over time."""

    name: str
    series: Series
    seen_s: float | None = None
    last: M | None = None
    state: WorkerState | None = None
    """Of a worker."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Of a decision service: device rounds in which the fallback chose, since the dashboard began to listen."""
    shadow: Shadow | None = None


@dataclass(slots=True)
class SiteMemory:
    """Every member of a site. Moments are of our monotonic clock, in seconds."""

    devices: dict[str, DeviceMemory] = field(default_factory=dict)
    workers: dict[str, ServerMemory[WorkerLoad]] = field(default_factory=dict)
    policies: dict[str, ServerMemory[PolicyState]] = field(default_factory=dict)
    recorders: dict[str, ServerMemory[RecorderState]] = field(default_factory=dict)
    recent: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=FLEET_FRAMES))
    """(moment, latency_ms) of the fleet's answered frames."""
    counters: Counter[str] = field(default_factory=Counter)
    behind_s: float = 0.0
    """How long the last message waited for us."""

    def take(self, address: Address, message: Any, now_s: float, *, retained: bool) -> None:
        """Take a decoded message; ``retained``: the broker had kept it, so nobody is there for its sake."""
        channel = address.channel
        match channel:
            case channels.WORKER_STATE | channels.WORKER_LOAD:
                worker = self._server(self.workers, address.name, WORKER_GAUGES)
                if worker is not None:
                    _take_worker(worker, message, now_s)
            case channels.POLICY_STATE | channels.SHADOW:
                policy = self._server(self.policies, address.name, POLICY_GAUGES)
                if policy is not None:
                    _take_policy(policy, message, now_s)
            case channels.RECORDER_STATE:
                recorder = self._server(self.recorders, address.name, RECORDER_GAUGES)
                if recorder is not None:
                    _take_recorder(recorder, message, now_s)
            case _:
                self._take_device(address, message, now_s, retained=retained)

    def listen_anew(self) -> None:
        """Take note that we were away, and may have missed messages."""
        for device in self.devices.values():
            device.listen_anew()

    def forget(self, address: Address) -> None:
        """Take note of a retained message that was taken back: its device or worker is no longer of the site."""
        if address.channel is channels.STATE:
            self.devices.pop(address.name, None)
        elif address.channel is channels.WORKER_STATE:
            self.workers.pop(address.name, None)

    def _take_device(self, address: Address, message: Any, now_s: float, *, retained: bool) -> None:
        device = self.devices.get(address.name)
        if device is None:
            if len(self.devices) >= MAX_DEVICES:
                self.counters["devices_beyond_bound"] += 1
                return
            device = self.devices[address.name] = DeviceMemory(address.name, now_s)
        match address.channel:
            case channels.STATE:
                device.take_state(message)
            case channels.CAPABILITIES:
                device.capabilities = message
            case channels.TELEMETRY:
                device.take_telemetry(message, now_s)
            case channels.OUTCOMES:
                self.recent.extend((now_s, latency) for latency in device.take_outcomes(message, now_s))
            case channels.DECISION:
                device.take_decision(message, now_s)
        # A last will comes from the broker, a decision from the policy.
        if not retained and address.channel in (channels.TELEMETRY, channels.OUTCOMES, channels.CAPABILITIES):
            device.seen_s = now_s

    def _server(
        self, servers: dict[str, ServerMemory[M]], name: str, gauges: tuple[str, ...]
    ) -> ServerMemory[M] | None:
        if name not in servers:
            if len(servers) >= MAX_SERVERS:
                self.counters["servers_beyond_bound"] += 1
                return None
            servers[name] = ServerMemory(name, Series((), gauges))
        return servers[name]


def _take_worker(worker: ServerMemory[WorkerLoad], message: WorkerState | WorkerLoad, now_s: float) -> None:
    if isinstance(message, WorkerState):
        if worker.state is None or message.session >= worker.state.session:
            worker.state = message
        return
    worker.last, worker.seen_s = message, now_s
    worker.series.set(
        now_s,
        queued=message.queued,
        batch_mean=message.batch_mean,
        utilisation=message.utilisation,
        wait_ms_mean=message.wait_ms_mean,
        served_per_s=per_second(message.served, message.period_ms),
        busy=message.busy,
    )


def _take_policy(policy: ServerMemory[PolicyState], message: PolicyState | Shadow, now_s: float) -> None:
    if isinstance(message, Shadow):
        policy.shadow = message
        return
    policy.last, policy.seen_s = message, now_s
    for reason, rounds in message.fallback.items():
        known = reason[:TEXT] in policy.reasons or len(policy.reasons) < REASONS
        policy.reasons[reason[:TEXT] if known else OTHER] += rounds
    policy.series.set(
        now_s,
        entropy_share=message.entropy_share,
        switches_per_minute=message.switches_per_minute,
        decide_ms_mean=message.decide_ms_mean,
        decide_ms_max=message.decide_ms_max,
        decisions=message.decisions,
    )


def _take_recorder(recorder: ServerMemory[RecorderState], message: RecorderState, now_s: float) -> None:
    recorder.last, recorder.seen_s = message, now_s
    recorder.series.set(
        now_s,
        points_per_s=per_second(message.points, message.period_ms),
        forwarded_per_s=per_second(message.forwarded, message.period_ms),
        waiting=message.waiting,
        oldest_s=message.oldest_s,
        dead=message.dead,
    )


def per_second(count: int, period_ms: float) -> float:
    """Return a count over a period as a rate; a period of nothing gives 0."""
    return 1000 * count / period_ms if period_ms > 0 else 0.0
