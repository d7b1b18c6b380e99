"""The device client: one loop thread that carries each frame from the camera to its one outcome."""

from __future__ import annotations

import logging
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from device_client.camera import Captured, CaptureThread, open_camera
from device_client.energy import EnergyAccount
from device_client.engine import Answer, Engine
from device_client.errors import DeviceError
from device_client.flight import Breaker, Flight, InFlight
from device_client.following import Following
from device_client.ledger import Ledger
from device_client.meters import find_power_meter
from device_client.notify import Notifier
from device_client.reporter import Reporter, state_payload
from device_client.settings import DeviceSettings
from device_client.updates.agent import Agent, CannotSwitch, Serve, Served, Switched, Withdrawn
from device_client.updates.start import Start
from device_client.updates.updater import Restart
from device_client.uplink import UplinkEstimator
from tflite_models.catalog import ModelsError, load_catalog, shipped_zoo
from tflite_models.profile import DeviceProfile, ProfileError, load_device_profile
from tflite_models.runtime import runtime_name
from wire import channels, codec
from wire.channels import Channel
from wire.errors import WireError
from wire.inbox import Inbox
from wire.link import Acknowledged, Connected, Disconnected, NotSent, Received, Subscription
from wire.messages import (
    Activation,
    Chunk,
    Decision,
    DeviceState,
    FrameOutcome,
    Outcome,
    Recorded,
    Result,
    ScoredLabel,
    Status,
    Telemetry,
    Update,
)
from wire.mqtt import Link
from wire.outbox import Outgoing
from wire.plan import OUTPUT, Plan

log = logging.getLogger(__name__)

WILL_DELAY_S = 3
FLUSH_S = 5.0
"""How long a stopping client waits for the recorder; what is left stays in the ledger for the next start."""
IDLE_S = 0.25
_NEW_FRAME = object()


class Client:
    """All state of one device; everything but ``start`` of threads happens in the thread that calls ``run``."""

    agent = Agent
    """What carries out updates."""

    def __init__(self, settings: DeviceSettings, start: Start | None = None) -> None:
        """Open ledger, models and camera; raises ``SettingsError``, ``ModelsError`` or ``DeviceError``."""
        self._settings = settings
        self.again = False
        """Whether it has stopped to be started anew."""
        self._runtime = runtime_name(settings.runtime)
        self._ledger = Ledger(settings.state / "ledger.sqlite", settings.ledger_rows)
        self._rng = random.Random(f"{settings.site}/{settings.name}/{self._ledger.session}")
        self._agent = self._make_agent(start)
        self._catalog = load_catalog(settings.models) if self._agent is None else self._agent.first.catalog
        self._profile = _load_profile(settings.profile)
        self._engine = Engine(
            self._catalog, threads=settings.threads, runtime=settings.runtime, slowdown=settings.slowdown
        )
        self._energy = EnergyAccount(None if settings.slowdown > 1 else find_power_meter(), self._profile)
        self._following = self._follow()
        self._counters: Counter[str] = Counter()
        self._inbox = Inbox()
        self._uplink = UplinkEstimator()
        self._flight = Flight(settings.max_in_flight)
        self._breaker = Breaker()
        self._local_ms: dict[str, float] = {}
        self._link = self._make_link() if settings.broker else None
        self._reporter = Reporter(settings, self._ledger, self._link, self._uplink, self._energy, self._rng)
        camera = open_camera(settings.camera, shipped_zoo() / "frames.npz")
        self._capture = CaptureThread(camera, settings.camera, self._frame_waits)

    @property
    def session(self) -> int:
        """Number of this session."""
        return self._ledger.session

    @property
    def frames_closed(self) -> int:
        """Frames of this session that have their outcome."""
        return sum(self._ledger.counts.values())

    @property
    def online(self) -> bool:
        """Whether the broker has accepted us and not left since."""
        return self._link is not None and self._link.connected

    # -- life ------------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Carry frames until ``stop`` is set or a limited camera has no more."""
        self._following.recall(self._ledger)
        log.info("%s begins session %d with plan %s", self._settings.name, self._ledger.session, self._following.plan)
        if self._agent is not None:
            self._agent.start(self._link, self._inbox.put)
            if self._agent.restarted:
                self._agent.take(Switched(0.0))
            elif self._agent.first.trial is not None:
                self._serve(self._agent.first)
        if self._link is not None:
            self._link.start()
        self._capture.start()
        notifier = Notifier()
        notifier.ready()
        while not stop.is_set() and not self.again and not self._finished():
            notifier.alive(time.monotonic(), self._status)
            for event in self._inbox.take(self._patience_s()):
                self._handle(event)
            self._turn()
            if self._link is not None and not self._link.alive:
                raise DeviceError("the link's thread has ended: see the log")
        if not self.again:
            notifier.stopping()
        self._finish()

    def _status(self) -> str:
        return f"{self._following.plan}, {self.frames_closed} frames, {'online' if self.online else 'offline'}"

    def _turn(self) -> None:
        now_ns = time.monotonic_ns()
        for entry in self._flight.overdue(now_ns):
            self._breaker.missed(now_ns)
            self._fall_back(entry, "no-answer")
        for lost in self._capture.overrun():
            self._drop(lost, "overrun")
        if not self._flight.full:
            picture = self._capture.take()
            if picture is not None:
                self._process(picture)
        self._reporter.tend(time.monotonic_ns() / 1e6, link_idle=not len(self._flight), telemetry=self._measure)

    def _patience_s(self) -> float:
        if self._capture.queued and not self._flight.full:
            return 0.0
        now_ms = time.monotonic_ns() / 1e6
        wake_ns = self._flight.next_wake_ns()
        wakes = [now_ms + IDLE_S * 1000, self._reporter.next_wake_ms()]
        if wake_ns is not None:
            wakes.append(wake_ns / 1e6)
        return max(0.0, (min(wakes) - now_ms) / 1000)

    def _finished(self) -> bool:
        return self._capture.finished and not self._capture.queued and not len(self._flight)

    def _finish(self) -> None:
        """Close every open frame, hand the ledger to the recorder as far as it listens, and say goodbye."""
        self._capture.stop()
        if self._agent is not None:
            self._agent.stop()
        for lost in self._capture.overrun():
            self._drop(lost, "overrun")
        while (picture := self._capture.take()) is not None:
            self._drop(picture, "stopping")
        for entry in self._flight.clear():
            self._fall_back(entry, "stopping")
        deadline = time.monotonic() + FLUSH_S
        self._reporter.connected()
        self._reporter.hurry = True
        while self._link is not None and self._link.connected and self._ledger.unrecorded:
            if time.monotonic() > deadline:
                break
            self._reporter.tend(time.monotonic_ns() / 1e6, link_idle=False, telemetry=self._measure)
            for event in self._inbox.take(0.05):
                self._handle(event)
        if self._ledger.unrecorded:
            log.warning("%d frame lines wait in the ledger for the recorder", self._ledger.unrecorded)
        if self._link is not None:
            self._reporter.announce(DeviceState.STOPPED)
            self._link.stop()
        self._ledger.close()

    def _frame_waits(self) -> None:
        self._inbox.put(_NEW_FRAME)

    # -- one frame -------------------------------------------------------------------------------------------------

    def _process(self, picture: Captured) -> None:
        plan = self._following.plan
        frame = self._ledger.open_frame(plan, picture.captured_ms)
        refusal = None if plan.is_local else self._why_not_send(time.monotonic_ns())
        if plan.is_local or refusal:
            outcome = Outcome.DEVICE if plan.is_local else Outcome.FALLBACK
            self._compute_here(frame, plan, picture, outcome, refusal or "")
            return
        before = self._energy.start()
        try:
            encoded = self._engine.run_head(plan, picture.image)
        except (ModelsError, WireError) as error:
            self._counters["head_failures"] += 1
            log.error("the head of %s failed: %s", plan, error)
            self._compute_here(frame, plan, picture, Outcome.FALLBACK, "head-failed")
            return
        self._note_head(plan, encoded.head_ms)
        now_ns = time.monotonic_ns()
        give_up_ns = picture.captured_ns + int(self._answer_within_ms(plan.version) * 1e6)
        message = Activation(
            self._ledger.session, frame, plan, encoded.tensors, max((give_up_ns - now_ns) / 1e6, 1.0), now_ns,
            self._engine.model(plan.version),
        )  # fmt: skip
        sent_bytes, token = self._send(channels.ACTIVATION, message, give_up_ns)
        energy_mj = self._energy.computed_mj(before, encoded.head_ms + encoded.encode_ms)
        if token is None:
            self._compute_here(frame, plan, picture, Outcome.FALLBACK, "not-sent", energy_mj)
            return
        entry = InFlight(
            frame, plan, picture.image, picture.truth, picture.captured_ns, picture.captured_ms, now_ns, give_up_ns,
            token, encoded.head_ms, encoded.encode_ms, sent_bytes, energy_mj, alone=not len(self._flight),
        )  # fmt: skip
        self._flight.add(entry)

    def _why_not_send(self, now_ns: int) -> str | None:
        if self._link is None or not self._link.connected:
            return "offline"
        if not self._breaker.may_send(now_ns):
            return "edge-silent"
        return None

    def _answer_within_ms(self, version: str) -> float:
        """Give the edge the deadline less what a fallback takes, so that a fallback can meet it too; half at least."""
        deadline_ms = self._following.deadline_ms
        return max(deadline_ms - self._local_ms.get(version, 0.0), deadline_ms / 2)

    def _compute_here(
        self, frame: int, plan: Plan, picture: Captured | InFlight, outcome: Outcome, reason: str, spent_mj: float = 0.0
    ) -> None:
        """Run the whole network and close the frame; a network that fails drops it."""
        before = self._energy.start()
        try:
            answer = self._engine.run_whole(plan.version, picture.image)
        except (ModelsError, WireError) as error:
            self._counters["model_failures"] += 1
            log.error("the whole network of %s failed: %s", plan.version, error)
            self._close(frame, picture, Outcome.DROPPED, "model-failed", time.monotonic_ns(), energy_mj=spent_mj)
            self._note_trial(plan, ok=False)
            return
        now_ns = time.monotonic_ns()
        self._note_trial(plan, ok=True)
        self._note_local(plan, answer, outcome)
        sent = picture if isinstance(picture, InFlight) else None
        self._close(
            frame, picture, outcome, reason, now_ns,
            head_ms=answer.ms + (sent.head_ms if sent else 0.0),
            encode_ms=sent.encode_ms if sent else 0.0,
            sent_bytes=sent.sent_bytes if sent else 0,
            energy_mj=spent_mj + self._energy.computed_mj(before, answer.ms),
            best=answer.best,
        )  # fmt: skip
        result = Result(
            self._ledger.session, frame, plan, Status.OK, outcome, self._settings.name,
            answer.best, answer.outputs, tail_ms=answer.ms, batch=1, reason=reason,
        )  # fmt: skip
        if self._link is not None and self._link.connected:
            self._send(channels.RESULT, result)
        else:
            self._counters["results_not_published"] += 1

    def _fall_back(self, entry: InFlight, reason: str) -> None:
        spent_mj = entry.energy_mj + self._sent_mj(entry)
        self._compute_here(entry.frame, entry.plan, entry, Outcome.FALLBACK, reason, spent_mj)

    def _drop(self, picture: Captured, reason: str) -> None:
        frame = self._ledger.open_frame(self._following.plan, picture.captured_ms)
        self._close(frame, picture, Outcome.DROPPED, reason, time.monotonic_ns())

    def _close(
        self,
        frame: int,
        picture: Captured | InFlight,
        outcome: Outcome,
        reason: str,
        now_ns: int,
        *,
        best: ScoredLabel | None = None,
        **measured: float,
    ) -> None:
        line = FrameOutcome(
            frame, outcome, 0, picture.captured_ms, (now_ns - picture.captured_ns) / 1e6,
            energy_source=self._energy.source, label=best.label if best else None, score=best.score if best else None,
            truth=picture.truth, reason=reason, **measured,  # type: ignore[arg-type]
        )  # fmt: skip
        if not self._ledger.close_frame(line):
            self._counters["closed_twice"] += 1

    # -- events ----------------------------------------------------------------------------------------------------

    def _handle(self, event: Any) -> None:
        if self._agent is not None and isinstance(event, Connected | Disconnected):
            self._agent.take(event)
        match event:
            case Received():
                self._receive(event)
            case Serve():
                self._serve(event)
            case Restart():
                self.again = True
            case Acknowledged():
                self._reporter.acknowledged(event, time.monotonic_ns() / 1e6)
            case NotSent():
                self._reporter.not_sent(event.token)
                entry = self._flight.not_sent(event.token)
                if entry is not None:
                    self._fall_back(entry, event.reason)
            case Connected():
                self._breaker.reconnected()
                self._reporter.connected()
                self._reporter.introduce(self._catalog, self._runtime)
                self._reporter.announce(DeviceState.READY)
            case Disconnected():
                for entry in self._flight.clear():
                    self._fall_back(entry, "disconnected")

    def _receive(self, event: Received) -> None:
        try:
            channel = channels.parse_topic(event.topic).channel
            if not event.payload:
                if self._agent is not None and channel is channels.UPDATE:
                    self._agent.take(Withdrawn())
                return
            message = codec.decode(channel, event.payload)
        except WireError as error:
            self._counters["bad_payloads"] += 1
            log.warning("%s: %s", event.topic, error)
            return
        match message:
            case Result():
                self._answered(message, event.arrived_ns)
            case Decision():
                self._following.decide(message, self._ledger, self._counters)
            case Recorded():
                if not self._reporter.recorded(message.session, message.batch, time.monotonic_ns() / 1e6):
                    self._counters["repeated_receipts"] += 1
            case Update() | Chunk() if self._agent is not None:
                self._agent.take(message, len(event.payload))

    def _answered(self, result: Result, arrived_ns: int) -> None:
        if result.status is Status.OK and result.outcome is not Outcome.EDGE:
            return  # our own, from a broker that does not know "no local"
        entry = self._flight.answered(result.frame) if result.session == self._ledger.session else None
        if entry is None:
            self._counters["late_results"] += 1
            return
        self._breaker.answered()
        if result.status is not Status.OK:
            self._counters[f"edge_{result.status}"] += 1
            self._fall_back(entry, result.status)
            return
        network_ms = (arrived_ns - entry.sent_ns) / 1e6 - result.wait_ms - result.tail_ms
        if not _is_plausible(result, network_ms):
            self._counters["bad_payloads"] += 1
            log.warning("frame %d: the answer of %s cannot be true", result.frame, result.computed_by)
            self._fall_back(entry, "bad-answer")
            return
        if entry.alone:
            self._uplink.observe(arrived_ns / 1e6, entry.sent_bytes, network_ms)
        self._close(
            entry.frame, entry, Outcome.EDGE, "", arrived_ns,
            head_ms=entry.head_ms, encode_ms=entry.encode_ms, network_ms=network_ms, wait_ms=result.wait_ms,
            tail_ms=result.tail_ms, batch=result.batch, sent_bytes=entry.sent_bytes,
            energy_mj=entry.energy_mj + self._sent_mj(entry), best=result.best,
        )  # fmt: skip
        self._note_trial(entry.plan, ok=True)

    # -- updates ---------------------------------------------------------------------------------------------------

    def _make_agent(self, start: Start | None) -> Agent | None:
        updates = self._settings.updates
        if updates is None:
            return None
        return self.agent(self._settings, updates, self._ledger.session, self._runtime, start)

    def _follow(self) -> Following:
        """Begin with the safe plan; a version on trial that does not let us is left, or no start would ever work."""
        try:
            return Following(self._settings, self._catalog, self._engine)
        except (ModelsError, WireError) as error:
            if self._agent is None or self._agent.first.trial is None:
                raise
            self._catalog = self._agent.leave(str(error))
            self._engine.renew(self._catalog)
            return Following(self._settings, self._catalog, self._engine)

    def _serve(self, told: Serve) -> None:
        """Go over to other versions between two frames; where that cannot be, those of before serve on."""
        assert self._agent is not None  # it told us
        failed = self._counters["model_failures"] + self._counters["head_failures"]
        before, self._catalog = self._catalog, told.catalog
        try:
            self._engine.renew(told.catalog)
            self._following.renew(told.catalog, told.trial)
        except (ModelsError, WireError) as error:
            log.error("the new versions cannot serve: %s", error)
            self._catalog = before
            self._engine.renew(before)
            self._following.renew(before, None)
            self._agent.take(CannotSwitch(str(error)))
            return
        self._local_ms.clear()
        if told.trial is not None:
            self._agent.take(Switched(min(1.0, failed / max(self.frames_closed, 1))))
        self._reporter.introduce(self._catalog, self._runtime)

    def _note_trial(self, plan: Plan, *, ok: bool) -> None:
        if self._agent is not None and (self._agent.restarted or plan == self._following.trial):
            self._agent.take(Served(ok))

    # -- small things ----------------------------------------------------------------------------------------------

    def _make_link(self) -> Link:
        site, name = self._settings.site, self._settings.name
        lost = state_payload(self._ledger.session, DeviceState.LOST)
        return Link(
            self._settings.link,
            client_id=f"splitfleet-{site}-{name}",
            inbox=self._inbox,
            subscriptions=[
                Subscription(channels.topic(site, name, channel), channel.qos, no_local=True)
                for channel in (channels.RESULT, channels.DECISION, channels.RECORDED, *self._update_channels())
            ],
            will=Outgoing(channels.topic(site, name, channels.STATE), lost, qos=1, retain=True),
            will_delay_s=WILL_DELAY_S,
            rng=self._rng,
        )

    def _update_channels(self) -> tuple[Channel, ...]:
        return () if self._agent is None else (channels.UPDATE, channels.CHUNK)

    def _send(self, channel: Channel, message: object, expires_ns: int | None = None) -> tuple[int, int | None]:
        """Return the size and the link's token; no token where it cannot be sent. What expires is watched."""
        assert self._link is not None  # callers ask whether we are connected
        try:
            payload = codec.encode(channel, message)
        except WireError as error:
            self._counters["unsendable"] += 1
            log.warning("%s", error)
            return 0, None
        topic = channels.topic(self._settings.site, self._settings.name, channel)
        watch = expires_ns is not None
        return len(payload), self._link.publish(topic, payload, qos=channel.qos, expires_ns=expires_ns, watch=watch)

    def _sent_mj(self, entry: InFlight) -> float:
        return self._energy.sent_mj(entry.sent_bytes, self._uplink.uplink_bps(time.monotonic_ns() / 1e6))

    def _note_head(self, plan: Plan, head_ms: float) -> None:
        if not plan.ships_input:
            self._reporter.averages.add(head_ms, self._expected_ms(plan.version, plan.cut))

    def _note_local(self, plan: Plan, answer: Answer, outcome: Outcome) -> None:
        known = self._local_ms.get(plan.version)
        self._local_ms[plan.version] = answer.ms if known is None else 0.8 * known + 0.2 * answer.ms
        if outcome is Outcome.DEVICE:
            self._reporter.averages.add(answer.ms, self._expected_ms(plan.version, OUTPUT))

    def _expected_ms(self, version: str, cut: str) -> float | None:
        if self._profile is None:
            return None
        try:
            return self._profile.head(version, cut).head_ms_p50
        except ProfileError:
            return None

    def _measure(self, elapsed_s: float) -> Telemetry:
        counters = self._counters + Counter({f"outcome_{o}": n for o, n in self._ledger.counts.items() if n})
        counters["camera_failures"] = self._capture.failures
        counters["camera_unreadable"] = self._capture.unreadable
        counters["inbox_refused"] = self._inbox.refused
        counters["spool_lost"] = self._ledger.lost_to_spool_bound
        counters["ledger_not_written"] = self._ledger.not_written
        if self._agent is not None:
            counters.update(dict(self._agent.updater.counters))
        if self._link is not None:
            # Copied in one step: the link's thread counts on meanwhile.
            counters.update({f"link_{name}": count for name, count in dict(self._link.counters).items()})
        return self._reporter.measure(
            elapsed_s, self._following.plan, self._following.rev, len(self._flight), self._capture.queued, +counters,
            time.monotonic_ns() / 1e6,
        )  # fmt: skip


def _is_plausible(result: Result, network_ms: float) -> bool:
    """Whether an answer's figures can be true, so that a line made of them can be sent on and summed up."""
    numbers = (result.wait_ms, result.tail_ms, network_ms, float(result.batch))
    score = result.best.score if result.best else 0.0
    label = result.best.label if result.best else 0
    return all(-1 <= number < 1e9 for number in numbers) and abs(score) < 1e30 and 0 <= label < 2**31


def run(settings: DeviceSettings, stop: threading.Event, start: Start | None = None) -> bool:
    """Run one device until ``stop`` is set; return whether an update wants it to start anew instead."""
    # Answers arrive in the link's thread while the loop thread computes: hand over sooner than the usual 5 ms.
    sys.setswitchinterval(0.001)
    client = Client(settings, start)
    client.run(stop)
    return client.again and not stop.is_set()


def _load_profile(path: Path | None) -> DeviceProfile | None:
    return None if path is None else load_device_profile(path)
