"""The recorder: stores what devices, workers and the policy say, and gives the receipt by which devices may forget."""

from __future__ import annotations

import dataclasses
import logging
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edge_broker_side.errors import EdgeError
from edge_broker_side.influx_settings import InfluxSettings
from edge_broker_side.points import recorder_point
from edge_broker_side.recorder_turn import ADD, Turn
from edge_broker_side.store import StoreCorrupt, StoreError, StoreSettings, open_store, set_aside
from wire import channels
from wire.codec import decode, encode
from wire.errors import PayloadError, TopicError
from wire.exposition import Exposition, PrometheusSettings
from wire.inbox import Inbox
from wire.link import LinkSettings, Received, Subscription
from wire.messages import RecorderState
from wire.mqtt import Link

if TYPE_CHECKING:
    from edge_broker_side.forwarder import Forwarder

log = logging.getLogger(__name__)

SESSION_EXPIRY_S = 86_400
IDLE_S = 0.2
TRIM_EVERY_S = 10.0
COMPLAIN_EVERY_S = 60.0
HEARD = tuple(channels.CHANNELS[name] for name in ADD)


@dataclass(frozen=True, slots=True)
class RecorderSettings:
    """One recorder process; one per site."""

    site: str
    store: StoreSettings
    name: str = "recorder"
    link: LinkSettings = field(default_factory=LinkSettings)
    log_level: str = "info"
    influx: InfluxSettings | None = None
    """The metrics server to forward to; left out: the store is the whole story."""
    prometheus: PrometheusSettings | None = None
    state_period_s: float = 5.0
    """Between two messages about itself."""

    def __post_init__(self) -> None:
        channels.check_name(self.site, "site")
        channels.check_name(self.name, "name")
        if self.state_period_s <= 0:
            raise ValueError(f"state_period_s is {self.state_period_s}, allowed is more than 0")


class Recorder:
    """The loop's state; every method runs in the loop thread."""

    def __init__(self, settings: RecorderSettings) -> None:
        self.counters: Counter[str] = Counter()
        self._settings = settings
        self._inbox = Inbox()
        self._store = open_store(settings.store)
        self._damaged = False
        """Whether the store's file is, and has to be set aside."""
        self._trim_at_s = 0.0
        self._complain_at_s = 0.0
        self._forwarder = self._make_forwarder()
        asked = settings.prometheus
        self._exposition = Exposition(asked, "recorder", settings.site, settings.name) if asked else None
        self._session = time.time_ns() // 1_000_000
        self._told_at_s = time.monotonic()
        self._told: Counter[str] = Counter()
        """Counters as they were then."""
        self._link = Link(
            # What arrives while we are away waits at the broker, for a day.
            dataclasses.replace(settings.link, session_expiry_s=SESSION_EXPIRY_S),
            f"{settings.site}-{settings.name}",
            self._inbox,
            subscriptions=[Subscription(channels.topic_filter(settings.site, c), c.qos) for c in HEARD],
        )

    def serve(self, stop: threading.Event) -> None:
        """Record until ``stop`` is set."""
        if self._forwarder is not None:
            self._forwarder.start()
        self._link.start()
        while not stop.is_set():
            self.turn(IDLE_S)
            if not self._link.alive:
                raise EdgeError("the link's thread has ended: see the log")

    def close(self) -> None:
        """Store what has arrived, send the receipts, say goodbye, forward what still waits."""
        self.turn(0.0)
        self._link.stop()
        if self._forwarder is not None:
            self._forwarder.close()
        if self._exposition is not None:
            self._exposition.close()
        self._store.close()
        log.info("stopped: %s", dict(self.counters))

    def turn(self, idle_s: float) -> None:
        """Take what has arrived, store it as one transaction, then send the receipts."""
        if self._damaged:
            self._begin_anew()
        turn = Turn()
        for event in self._inbox.take(idle_s):
            if isinstance(event, Received):
                self._read(event, turn)
        if turn:
            self._write(turn)
        now_s = time.monotonic()
        self._trim(now_s)
        if now_s >= self._told_at_s + self._settings.state_period_s:
            self._tell(now_s)

    def _read(self, event: Received, turn: Turn) -> None:
        try:
            address = channels.parse_topic(event.topic)
            add = ADD.get(address.channel.name)
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
        self._damaged = self._damaged or isinstance(error, StoreCorrupt)
        self.counters["store_failures"] += 1
        self.counters["points_not_stored"] += len(turn.points)
        now_s = time.monotonic()
        if now_s >= self._complain_at_s:
            self._complain_at_s = now_s + COMPLAIN_EVERY_S
            log.error("nothing is recorded: %s (%d points so far)", error, self.counters["points_not_stored"])

    def _begin_anew(self) -> None:
        """Set the damaged store aside and begin another; where that cannot be, such as on a full disk, next turn."""
        if self._forwarder is not None:
            self._forwarder.close()
            self.counters.update(self._forwarder.counters)  # the next one begins at 0
            self._forwarder = None
        self._store.close()
        path = Path(self._settings.store.path)
        try:
            if path.exists():
                log.error("the damaged store is kept as %s", set_aside(path))
            self._store = open_store(self._settings.store)
        except (StoreError, OSError) as error:
            self._not_stored(Turn(), StoreError(f"no new store can be begun: {error}"))
            return
        self._damaged = False
        self._forwarder = self._make_forwarder()
        if self._forwarder is not None:
            self._forwarder.start()

    def _make_forwarder(self) -> Forwarder | None:
        if self._settings.influx is None:
            return None
        from edge_broker_side.forwarder import Forwarder

        return Forwarder(Path(self._settings.store.path), self._settings.influx, random.Random())

    def _tell(self, now_s: float) -> None:
        """Publish how we fare, and store it as a point like any other."""
        state = self._state(now_s)
        topic = channels.topic(self._settings.site, self._settings.name, channels.RECORDER_STATE)
        payload = encode(channels.RECORDER_STATE, state)
        if self._exposition is not None:
            self._exposition.show(state)  # first: whoever hears the message finds the same there
        self._link.publish(topic, payload, qos=channels.RECORDER_STATE.qos, watch=False)
        self._write(Turn([recorder_point(self._settings.site, self._settings.name, state)]))

    def _state(self, now_s: float) -> RecorderState:
        forwarder = self._forwarder
        counters = Counter(self.counters)
        # The link's are copied in one step: its thread counts on meanwhile.
        counters.update({f"link_{name}": count for name, count in dict(self._link.counters).items()})
        counters["inbox_refused"] = self._inbox.refused
        if forwarder is not None:
            counters.update(forwarder.counters)
        told, self._told = self._told, counters
        period_s, self._told_at_s = now_s - self._told_at_s, now_s
        standing, store_bytes = None, 0
        try:
            store_bytes = self._store.used_bytes()
            standing = self._store.standing()
        except StoreError as error:
            self._not_stored(Turn(), error)
        state = RecorderState(
            self._session,
            time.time_ns() // 1_000_000,
            period_s * 1000,
            counters["points"] - told["points"],
            store_bytes,
            counters=counters,
        )
        if forwarder is None:
            return state
        if standing is not None:
            counters["trimmed_unforwarded"] = standing.trimmed_unforwarded
            state = dataclasses.replace(state, waiting=standing.waiting, oldest_s=standing.oldest_s, dead=standing.dead)
        return dataclasses.replace(
            state,
            server=forwarder.server,
            reachable=forwarder.reachable,
            problem=forwarder.problem,
            forwarded=counters["forwarded"] - told["forwarded"],
        )

    def _trim(self, now_s: float) -> None:
        if now_s < self._trim_at_s:
            return
        self._trim_at_s = now_s + TRIM_EVERY_S
        try:
            self.counters["rows_trimmed"] += self._store.trim()
        except StoreError as error:
            self._not_stored(Turn(), error)


def run(settings: RecorderSettings, stop: threading.Event) -> None:
    """Record until ``stop`` is set; raises ``EdgeError`` when it cannot."""
    recorder = Recorder(settings)
    try:
        recorder.serve(stop)
    finally:
        recorder.close()
