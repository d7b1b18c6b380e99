"""What the doctor says of a site's edge: broker, workers, recorder, policy, store. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tools.doctor_check import Check, Verdict, above, advised, below, certificate, distribution, spread
from wire.messages import DeviceState, PolicyState, RecorderState, WorkerLoad, WorkerState

PING_WARNING_MS, PING_BAD_MS = 20.0, 200.0
"""Of the 95th percentile. A broker on the same network answers in 1 ms; at 44 ms a socket waits to fill packets; from
200 ms on the broker takes a good part of a usual deadline."""
BUSY_WARNING, BUSY_BAD = 0.8, 0.95
"""Utilisation of a worker: queues grow steeply from there on."""
DISK_WARNING_MB, DISK_BAD_MB = 2048.0, 200.0
"""Below 2 GiB the store's own bound of 1 GiB is near; below 200 MB the broker and the store soon cannot write."""
STALE_S = 30.0
"""A recorder stores telemetry within a second of its coming."""


@dataclass(frozen=True, slots=True)
class Tls:
    """The broker's side of a handshake."""

    version: str
    days_left: float


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """The recorder's store, where it is on this machine."""

    path: str
    free_mb: float
    age_s: float | None
    """Since telemetry was last stored; ``None``: never."""


@dataclass(slots=True)
class SiteEvidence:
    """What was heard and measured; where ``unreached`` says why the broker did not answer, nothing else was."""

    broker: str
    unreached: str = ""
    tls: Tls | None = None
    encrypted: bool = True
    """Whether the settings say so."""
    max_packet_bytes: int = 0
    needed_bytes: int = 0
    pings_ms: Sequence[float] = ()
    workers: dict[str, WorkerState] = field(default_factory=dict)
    loads: dict[str, WorkerLoad] = field(default_factory=dict)
    policies: dict[str, PolicyState] = field(default_factory=dict)
    recorders: dict[str, RecorderState] = field(default_factory=dict)
    store: StoreFacts | None = None
    acl_up_to_date: bool | None = None
    refused: Mapping[str, int] = field(default_factory=dict)
    """By what was tried; empty: nothing, or the broker is elsewhere."""
    devices: Mapping[str, int] = field(default_factory=dict)
    """How many are in which state."""


def site_checks(seen: SiteEvidence) -> Iterator[Check]:
    """Yield one row per thing looked at."""
    if seen.unreached:
        yield Check("broker", seen.broker, Verdict.BAD, seen.unreached)
    else:
        yield Check("broker", f"{seen.broker} answers")
        yield from _broker(seen)
        yield from _workers(seen)
        yield from _recorder(seen)
        yield from _policy(seen)
        yield _devices(seen)
    if seen.store is not None:
        yield advised(
            "store disk",
            f"{seen.store.free_mb:,.0f} MB free at {seen.store.path}",
            below(seen.store.free_mb, DISK_WARNING_MB, DISK_BAD_MB),
            "make room, or bound the store (max_bytes and max_age_days in recorder.toml)",
        )


def _broker(seen: SiteEvidence) -> Iterator[Check]:
    if seen.tls is not None:
        old = seen.tls.version in ("TLSv1", "TLSv1.1", "SSLv3")
        yield advised("TLS", seen.tls.version, Verdict.BAD if old else Verdict.OK, "require TLS 1.2 at the broker")
        yield certificate(
            "broker certificate", seen.tls.days_left, "renew it: docs/fleet.md, rotating certificates, the broker"
        )
    elif not seen.encrypted:
        yield Check(
            "TLS", "none", Verdict.WARNING,
            "INSECURE: whoever reaches the broker may read and forge everything; make a site without --plain",
        )  # fmt: skip
    yield advised(
        "largest packet",
        f"the broker takes {seen.max_packet_bytes:,} bytes, the largest channel needs {seen.needed_bytes:,}",
        below(seen.max_packet_bytes, seen.needed_bytes, 64 * 1024),
        f"raise the broker's limit (mosquitto: max_packet_size) to {seen.needed_bytes}: larger frames are refused now",
    )
    if seen.pings_ms:
        _, p95, _ = distribution(seen.pings_ms)
        yield advised(
            "round trip", spread(seen.pings_ms, "QoS 1 messages"), above(p95, PING_WARNING_MS, PING_BAD_MS),
            "look for a busy machine or a slow link; set_tcp_nodelay true in mosquitto's configuration",
        )  # fmt: skip
    else:
        yield Check("round trip", "not measured", Verdict.WARNING, "come as the operator: this account may not probe")
    if seen.acl_up_to_date is False:
        yield Check("ACL", "of an older release", Verdict.BAD, "start the broker again: it brings the ACL up to date")
    if seen.refused:
        times = ", ".join(f"{what}: {count}" for what, count in seen.refused.items())
        yield Check("refused", times, Verdict.WARNING, "see splitfleet site status: who tried what")


def _workers(seen: SiteEvidence) -> Iterator[Check]:
    ready = {name: told for name, told in seen.workers.items() if told.state is DeviceState.READY}
    if not ready:
        states = ", ".join(f"{name} is {told.state}" for name, told in seen.workers.items()) or "none heard of"
        yield Check("worker", states, Verdict.BAD, "start one: splitfleet up, or splitfleet worker edge-1.toml")
    for name, told in ready.items():
        load = seen.loads.get(name)
        if load is None:
            yield Check(f"worker {name}", "ready, but silent", Verdict.BAD, "see its log, start it again")
            continue
        verdict = above(load.utilisation, BUSY_WARNING, BUSY_BAD)
        if load.busy and verdict is Verdict.OK:
            verdict = Verdict.WARNING
        yield advised(
            f"worker {name}",
            f"{len(told.versions)} versions, {load.utilisation:.0%} busy, {load.queued} wait, {load.busy} turned away",
            verdict,
            "start another worker: docs/fleet.md, scaling out",
        )


def _recorder(seen: SiteEvidence) -> Iterator[Check]:
    for name, told in seen.recorders.items():
        value = f"{told.points} points in {told.period_ms / 1000:.0f} s, {told.waiting} wait for the metrics server"
        problem = told.problem or (f"{told.dead} points were refused for good" if told.dead else "")
        yield Check(f"recorder {name}", value, Verdict.WARNING if problem else Verdict.OK, problem)
    if seen.recorders:
        return
    start = "start it: splitfleet up, or splitfleet recorder recorder.toml"
    if seen.store is None:
        yield Check("recorder", "nothing heard of one", Verdict.WARNING, start)
    elif seen.store.age_s is not None and seen.store.age_s <= STALE_S:
        yield Check("recorder", f"stored telemetry {seen.store.age_s:.0f} s ago")
    elif seen.devices.get(DeviceState.READY):
        age = "never" if seen.store.age_s is None else f"{seen.store.age_s:,.0f} s ago"
        yield Check("recorder", f"last stored telemetry: {age}, though devices are ready", Verdict.BAD, start)
    else:
        yield Check("recorder", "nothing to store yet: no device is ready")


def _policy(seen: SiteEvidence) -> Iterator[Check]:
    if not seen.policies:
        yield Check(
            "policy", "none heard of", Verdict.WARNING,
            "devices keep their last plan, or their safe one: measure profiles, then splitfleet up (docs/fleet.md)",
        )  # fmt: skip
    for name, told in seen.policies.items():
        problem = "; ".join(told.problems) or (told.collapse if told.collapsed else "")
        if not problem and told.fallback:
            most = max(told.fallback, key=lambda reason: told.fallback[reason])
            problem = f"its fallback decides for some devices: {most}"
        value = f"{told.deciding} decides for {told.devices} devices in {told.decide_ms_max:.0f} ms"
        yield Check(f"policy {name}", value, Verdict.WARNING if problem else Verdict.OK, problem)


def _devices(seen: SiteEvidence) -> Check:
    states = ", ".join(f"{count} {state}" for state, count in seen.devices.items()) or "none"
    lost = seen.devices.get(DeviceState.LOST, 0)
    verdict = Verdict.WARNING if lost or not seen.devices.get(DeviceState.READY) else Verdict.OK
    advice = f"{lost} vanished without a word: power, network" if lost else "see splitfleet devices"
    return advised("devices", states, verdict, advice)
