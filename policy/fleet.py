"""What is known of every device and worker of a site, from their messages, and how old it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from policy import plausible
from policy.battery import Charge
from policy.calibration import EdgeCalibration, expected_ms_per_frame
from policy.costs import CostModel
from policy.errors import PolicyError
from policy.interface import DeviceObservation, EdgeObservation, FleetObservation, Weights
from policy.plausible import DeviceFacts, DeviceReport, Sieve, WorkerReport
from policy.rules import SiteRules
from tflite_models.profile import DeviceProfile
from wire.plan import Plan

MAX_DEVICES = 10_000
MAX_WORKERS = 1_000
FPS_SMOOTHING = 0.5
LEAST_FPS = 0.01
"""A camera that shows nothing now may show something soon; 0 would mean as fast as possible."""

ProfileOf = Callable[[str, float], DeviceProfile | None]
"""Gives the profile of a device class at a slowdown, or ``None``."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When what is known is too old, and what to assume where nothing is."""

    telemetry_stale_s: float = 5.0
    worker_load_stale_s: float = 5.0
    worker_silent_s: float = 30.0
    """A worker that says nothing so long is gone: its last will may have been lost with the broker. A worker that
    reports seldom gets three of its periods."""
    assumed_uplink_bps: float = 1e6
    assumed_rtt_ms: float = 50.0

    def __post_init__(self) -> None:
        allowed = {
            **dict.fromkeys(("telemetry_stale_s", "worker_load_stale_s", "worker_silent_s"), (0.1, 86_400.0)),
            "assumed_uplink_bps": plausible.UPLINK_BPS,
            "assumed_rtt_ms": plausible.RTT_MS,
        }
        for what, (low, high) in allowed.items():
            if not low <= getattr(self, what) <= high:
                raise PolicyError(f"limits {what} = {getattr(self, what):g}: allowed is {low:g} to {high:g}")


@dataclass(slots=True)
class _Device:
    session: int = -1
    ready: bool = False
    facts: DeviceFacts | None = None
    profile: DeviceProfile | None = None
    versions: frozenset[str] = frozenset()
    report: DeviceReport | None = None
    heard_s: float | None = None
    fps: float | None = None
    uplink_bps: float | None = None
    rtt_ms: float | None = None
    calibration: float = 1.0
    uplink_age_ms: float | None = None
    late_share: float | None = None
    charge: Charge = field(default_factory=Charge)


@dataclass(slots=True)
class _Worker:
    session: int = -1
    ready: bool = False
    threads: int = 0
    versions: frozenset[str] = frozenset()
    load: WorkerReport | None = None
    heard_s: float = 0.0


@dataclass
class Fleet:
    """The registry of one site. Methods named for a message take it in; ``observe`` gives the whole picture."""

    model: CostModel
    sha256: Mapping[str, str]
    """Of every version of the catalog."""
    profile_of: ProfileOf
    rules: SiteRules
    limits: Limits = field(default_factory=Limits)
    counters: Counter[str] = field(default_factory=Counter)
    calibration: EdgeCalibration = field(default_factory=EdgeCalibration)
    _devices: dict[str, _Device] = field(default_factory=dict)
    _workers: dict[str, _Worker] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sieve = Sieve(self.counters)

    def device_state(self, name: str, session: int, *, ready: bool) -> None:
        """Take in a birth or last will; one of an older session is ignored."""
        device = self._device(name)
        if device is not None and self._in_session(device, session):
            device.ready = ready

    def device_facts(self, name: str, facts: DeviceFacts) -> None:
        """Take in capabilities."""
        device = self._device(name)
        if device is None or not self._in_session(device, facts.session):
            return
        facts = self._sieve.facts(facts)
        device.facts = facts
        device.profile = self.profile_of(facts.device_class, facts.slowdown)
        if device.profile is None:
            self.counters["class_without_profile"] += 1
        device.versions = self._genuine(facts.versions)

    def device_report(self, name: str, report: DeviceReport, now_s: float) -> None:
        """Take in fresh telemetry (never replayed one). Figures that cannot be are ignored and counted."""
        device = self._device(name)
        if device is None or not self._in_session(device, report.session):
            return
        device.late_share = self._late_share(device.report, report)
        figure = self._sieve.figure
        fps = figure("fps", report.fps, plausible.FPS, None)
        device.report, device.heard_s = replace(report, fps=fps or 0.0), now_s  # one that cannot be weighs nothing
        if fps is not None:
            device.fps = fps if device.fps is None else device.fps + FPS_SMOOTHING * (fps - device.fps)
        device.uplink_bps = figure("uplink", report.uplink_bps, plausible.UPLINK_BPS, device.uplink_bps)
        device.uplink_age_ms = figure("uplink_age", report.uplink_age_ms, plausible.AGE_MS, None)
        device.rtt_ms = figure("rtt", report.rtt_ms, plausible.RTT_MS, device.rtt_ms)
        device.charge.measured(figure("battery", report.battery_share, plausible.SHARE, None), now_s)
        factor = figure("calibration", report.calibration, plausible.CALIBRATION, device.calibration)
        device.calibration = 1.0 if factor is None else factor

    def worker_state(
        self, name: str, session: int, threads: int, versions: Mapping[str, str], now_s: float, *, ready: bool
    ) -> None:
        """Take in a worker's birth or last will; of an older session, only a birth after the newer one has ended.

        Sessions of workers are clock times, and a clock may have been set back since.
        """
        worker = self._worker(name) if self._sieve.session(session) else None
        if worker is None or (session < worker.session and (not ready or self._serves(worker, now_s))):
            return
        if session != worker.session:
            worker.session, worker.load = session, None
        worker.ready, worker.heard_s = ready and threads > 0, now_s
        if worker.ready:
            worker.threads, worker.versions = min(threads, 1024), self._genuine(versions)

    def worker_load(self, name: str, load: WorkerReport, now_s: float, *, steady: bool) -> None:
        """Take in a worker's load; with ``steady`` (no plan changed lately) it also calibrates the edge."""
        worker = self._worker(name)
        if worker is None or load.session != worker.session or not worker.ready:
            return
        if not self._sieve.load(load):
            return
        worker.load, worker.heard_s = load, now_s
        if steady:
            busy_ms = load.utilisation * load.period_ms * worker.threads
            expected = expected_ms_per_frame(self.model.edge, self._running(), load.batch_mean)
            self.calibration.update(busy_ms, load.served, expected)

    def observe(
        self, now_s: float, current: Mapping[str, Plan], refuses: Mapping[str, frozenset[Plan]] | None = None
    ) -> FleetObservation:
        """Return the site as it is known now. ``current`` holds the plans decided so far, ``refuses`` those that
        devices did not follow.

        Devices that are ready and have said what they can do are in it; one whose telemetry is stale holds its plan.
        """
        devices = tuple(
            self._observe(name, device, device.facts, current.get(name), (refuses or {}).get(name, frozenset()), now_s)
            for name, device in sorted(self._devices.items())
            if device.ready and device.facts is not None and device.versions
        )
        return FleetObservation(devices, self._edge(now_s))

    def _observe(
        self,
        name: str,
        device: _Device,
        facts: DeviceFacts,
        current: Plan | None,
        refuses: frozenset[Plan],
        now_s: float,
    ) -> DeviceObservation:
        rules = self.rules.of(name)
        age_s = None if device.heard_s is None else max(0.0, now_s - device.heard_s)
        allowed = True if rules.may_ship_input is None else rules.may_ship_input
        uplink, rtt = device.uplink_bps, device.rtt_ms
        device.charge.asked(rules.battery_hours, now_s)
        uplink_age_ms = None
        if uplink is not None and device.uplink_age_ms is not None and age_s is not None:
            uplink_age_ms = device.uplink_age_ms + age_s * 1000
        fps = facts.fps
        if fps > 0 and device.fps is not None:
            fps = max(device.fps, LEAST_FPS)
        return DeviceObservation(
            name=name,
            profile=device.profile,
            versions=device.versions,
            codecs=facts.codecs,
            weights=rules.weights or Weights(),
            deadline_ms=rules.deadline_ms or facts.deadline_ms,
            fps=fps,
            uplink_bps=self.limits.assumed_uplink_bps if uplink is None else uplink,
            rtt_ms=self.limits.assumed_rtt_ms if rtt is None else rtt,
            uplink_known=uplink is not None,
            calibration=device.calibration,
            telemetry_age_ms=None if age_s is None else age_s * 1000,
            battery_share=device.charge.share,
            battery_floor=rules.battery_floor or 0.0,
            may_ship_input=facts.may_ship_input and allowed,
            current=current,
            hold=current is not None and (age_s is None or age_s > self.limits.telemetry_stale_s),
            battery_mj=device.charge.left_mj(rules.battery_wh),
            horizon_s=device.charge.horizon_s(now_s),
            uplink_age_ms=uplink_age_ms,
            late_share=device.late_share,
            refuses=refuses,
        )

    def _edge(self, now_s: float) -> EdgeObservation:
        ready = [w for w in self._workers.values() if self._serves(w, now_s)]
        threads = sum(w.threads for w in ready)
        versions = frozenset.intersection(*(w.versions for w in ready)) if ready else frozenset()
        fresh = [(w, w.load) for w in ready if w.load and now_s - w.heard_s <= self.limits.worker_load_stale_s]
        heard = sum(w.threads for w, _ in fresh)
        busy = sum(w.threads * load.utilisation for w, load in fresh)
        backlog = sum(
            load.queued * load.utilisation * load.period_ms * w.threads / load.served
            for w, load in fresh
            if load.served > 0
        )
        waits = [(load.wait_ms, load.served) for _, load in fresh if load.wait_ms is not None and load.served > 0]
        served = sum(frames for _, frames in waits)
        return EdgeObservation(
            workers=len(ready),
            threads=threads,
            versions=versions,
            utilisation=busy / heard if heard else None,
            calibration=self.calibration.factor,
            backlog_ms=backlog / threads if threads else 0.0,
            wait_ms=sum(wait * frames for wait, frames in waits) / served if served else None,
        )

    def _serves(self, worker: _Worker, now_s: float) -> bool:
        """Whether a worker is ready and has been heard of lately."""
        seldom_s = 3 * worker.load.period_ms / 1000 if worker.load else 0.0
        return worker.ready and now_s - worker.heard_s <= max(self.limits.worker_silent_s, seldom_s)

    def _running(self) -> list[tuple[int, float]]:
        index = self.model.table.index
        reports = [d.report for d in self._devices.values() if d.ready and d.report]
        return [(index[r.plan], r.fps) for r in reports if r.plan in index]

    def _genuine(self, versions: Mapping[str, str]) -> frozenset[str]:
        """Keep the versions that are the catalog's very files; a head must not meet the tail of another."""
        known = {name for name, sha in versions.items() if self.sha256.get(name) == sha}
        self.counters["versions_not_in_catalog"] += len(versions) - len(known)
        return frozenset(known)

    @staticmethod
    def _late_share(before: DeviceReport | None, now: DeviceReport) -> float | None:
        """Return the share of fallbacks among the frames that ended since the report before."""
        if before is None:
            return None
        ended, late = now.ended - before.ended, now.fallbacks - before.fallbacks
        return late / ended if 0 <= late <= ended and ended > 0 else None

    def _in_session(self, device: _Device, session: int) -> bool:
        """Whether a message belongs to the newest session; a newer one keeps measured figures only."""
        if not self._sieve.session(session):
            return False
        if session < device.session:
            self.counters["older_session"] += 1
            return False
        if session > device.session:
            device.session, device.ready = session, False
            device.facts, device.report, device.heard_s = None, None, None
        return True

    def _device(self, name: str) -> _Device | None:
        if name not in self._devices and len(self._devices) >= MAX_DEVICES:
            self.counters["too_many_devices"] += 1
            return None
        return self._devices.setdefault(name, _Device())

    def _worker(self, name: str) -> _Worker | None:
        if name not in self._workers and len(self._workers) >= MAX_WORKERS:
            gone = next((name for name, worker in self._workers.items() if not worker.ready), None)
            if gone is None:
                self.counters["too_many_workers"] += 1
                return None
            del self._workers[gone]  # names of workers may come and go for ever
        return self._workers.setdefault(name, _Worker())
