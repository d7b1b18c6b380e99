"""The recorder: stores what devices, workers and the policy say, and gives the receipt by which devices may forget."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_broker_side.errors import EdgeError
from edge_broker_side.points import (
    Point,
    decision_point,
    inference_points,
    policy_point,
    shadow_points,
    telemetry_point,
    worker_point,
)
from edge_broker_side.store import (
    Presence,
    SessionCount,
    StoreCorrupt,
    StoreError,
    StoreSettings,
    open_store,
    set_aside,
)
from wire import channels
from wire.channels import Address
from wire.codec import decode, encode
from wire.errors import PayloadError, TopicError
from wire.inbox import Inbox
from wire.link import LinkSettings, Received, Subscription
from wire.messages import Capabilities, Outcomes, Recorded, Shadow, State, WorkerState
from wire.mqtt import Link

log = logging.getLogger(__name__)

SESSION_EXPIRY_S = 86_400
IDLE_S = 0.2
TRIM_EVERY_S = 10.0
COMPLAIN_EVERY_S = 60.0
MAX_FRAMES = 2**48
"""More than a device can capture; sums of larger figures would overflow."""
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
)


@dataclass(frozen=True, slots=True)
class RecorderSettings:
    """One recorder process; one per site."""

    site: str
    store: StoreSettings
    name: str = "recorder"
    link: LinkSettings = field(default_factory=LinkSettings)
    log_level: str = "info"

    def __post_init__(self) -> None:
        channels.check_name(self.site, "site")
        channels.check_name(self.name, "name")


@dataclass(slots=True)
class Turn:
    """What one turn of the loop collects for one transaction."""

    points: list[Point] = field(default_factory=list)
    counts: list[SessionCount] = field(default_factory=list)
    presence: list[Presence] = field(default_factory=list)
    receipts: list[tuple[str, Recorded]] = field(default_factory=list)
    """(device, receipt), to be sent when everything is on disk."""

    def __bool__(self) -> bool:
        return bool(self.points or self.counts or self.presence)


class Recorder:
    """The loop's state; every method runs in the loop thread."""

    def __init__(self, settings: RecorderSettings) -> None:
        self.counters: Counter[str] = Counter()
        self._settings = settings
        self._inbox = Inbox()
        self._store = open_store(settings.store)
        self._trim_at_s = 0.0
        self._complain_at_s = 0.0
        self._link = Link(
            # What arrives while we are away waits at the broker, for a day.
            dataclasses.replace(settings.link, session_expiry_s=SESSION_EXPIRY_S),
            f"{settings.site}-{settings.name}",
            self._inbox,
            subscriptions=[Subscription(channels.topic_filter(settings.site, c), c.qos) for c in HEARD],
        )

    def serve(self, stop: threading.Event) -> None:
        """Record until ``stop`` is set."""
        self._link.start()
        while not stop.is_set():
            self.turn(IDLE_S)
            if not self._link.alive:
                raise EdgeError("the link's thread has ended: see the log")

    def close(self) -> None:
        """Store what has arrived, send the receipts, say goodbye."""
        self.turn(0.0)
        self._link.stop()
        self._store.close()
        log.info("stopped: %s", dict(self.counters))

    def turn(self, idle_s: float) -> None:
        """Take what has arrived, store it as one transaction, then send the receipts."""
        turn = Turn()
        for event in self._inbox.take(idle_s):
            if isinstance(event, Received):
                self._read(event, turn)
        if turn:
            self._write(turn)
        self._trim(time.monotonic())

    def _read(self, event: Received, turn: Turn) -> None:
        try:
            address = channels.parse_topic(event.topic)
            add = _ADD.get(address.channel.name)
            if add is None:  # a session of before may still be subscribed to it
                self.counters["refused_channel"] += 1
                return
            add(turn, address, decode(address.channel, event.payload))
        except (TopicError, PayloadError) as error:
            self.counters["refused_payload"] += 1
            log.warning("refused on %s: %s", event.topic[:120], error)

    def _write(self, turn: Turn) -> None:
        try:
            new = self._store.write(turn.points, turn.counts, turn.presence)
        except StoreCorrupt as error:
            self._not_stored(turn, error)
            self._begin_anew()
            return
        except StoreError as error:
            self._not_stored(turn, error)
            return
        self.counters["points"] += new
        self.counters["points_repeated"] += len(turn.points) - new
        for device, receipt in turn.receipts:
            topic = channels.topic(self._settings.site, device, channels.RECORDED)
            if self._link.publish(topic, encode(channels.RECORDED, receipt), qos=channels.RECORDED.qos) is None:
                self.counters["receipts_not_sent"] += 1

    def _not_stored(self, turn: Turn, error: StoreError) -> None:
        """Go on without receipts: the devices keep their outcomes and send them again."""
        self.counters["store_failures"] += 1
        self.counters["points_not_stored"] += len(turn.points)
        now_s = time.monotonic()
        if now_s >= self._complain_at_s:
            self._complain_at_s = now_s + COMPLAIN_EVERY_S
            log.error("nothing is recorded: %s (%d points so far)", error, self.counters["points_not_stored"])

    def _begin_anew(self) -> None:
        self._store.close()
        path = Path(self._settings.store.path)
        if path.exists():
            log.error("the damaged store is kept as %s", set_aside(path))
        self._store = open_store(self._settings.store)

    def _trim(self, now_s: float) -> None:
        if now_s < self._trim_at_s:
            return
        self._trim_at_s = now_s + TRIM_EVERY_S
        try:
            self.counters["rows_trimmed"] += self._store.trim()
        except StoreError as error:
            self._not_stored(Turn(), error)


def _add_outcomes(turn: Turn, address: Address, message: Outcomes) -> None:
    site, device = address.site, address.name
    if message.session < 1 or not 0 <= message.captured <= MAX_FRAMES:
        raise PayloadError("outcomes", f"session {message.session} with {message.captured} frames cannot be")
    if any(not 0 <= one.frames <= MAX_FRAMES for one in message.folded):
        raise PayloadError("outcomes", "a folded count that cannot be")
    points = list(inference_points(site, device, message))  # refused as a whole, before anything is counted
    folded = tuple((str(one.outcome), one.reason, one.frames) for one in message.folded)
    turn.points += points
    turn.counts.append(SessionCount(site, device, message.session, message.captured, folded))
    turn.receipts.append((device, Recorded(message.session, message.batch)))


def _add_state(turn: Turn, address: Address, message: State | WorkerState) -> None:
    role = "worker" if isinstance(message, WorkerState) else "device"
    turn.presence.append(
        Presence(address.site, address.name, role, message.session, str(message.state), message.reason, message.at_ms)
    )


def _add_capabilities(turn: Turn, address: Address, message: Capabilities) -> None:
    about = json.dumps(dataclasses.asdict(message), sort_keys=True)
    turn.presence.append(Presence(address.site, address.name, "device", message.session, about=about))


def _add_shadow(turn: Turn, address: Address, message: Shadow) -> None:
    turn.points += list(shadow_points(address.site, message))  # refused as a whole


def _one(make: Callable[[str, str, Any], Point]) -> Callable[[Turn, Address, Any], None]:
    def add(turn: Turn, address: Address, message: Any) -> None:
        turn.points.append(make(address.site, address.name, message))

    return add


_ADD: dict[str, Callable[[Turn, Address, Any], None]] = {
    channels.STATE.name: _add_state,
    channels.CAPABILITIES.name: _add_capabilities,
    channels.TELEMETRY.name: _one(telemetry_point),
    channels.OUTCOMES.name: _add_outcomes,
    channels.DECISION.name: _one(decision_point),
    channels.WORKER_STATE.name: _add_state,
    channels.WORKER_LOAD.name: _one(worker_point),
    channels.POLICY_STATE.name: _one(policy_point),
    channels.SHADOW.name: _add_shadow,
}


def run(settings: RecorderSettings, stop: threading.Event) -> None:
    """Record until ``stop`` is set; raises ``EdgeError`` when it cannot."""
    recorder = Recorder(settings)
    try:
        recorder.serve(stop)
    finally:
        recorder.close()
