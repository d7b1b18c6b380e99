"""The link that feeds the dashboard's memory: it only listens, in a thread of its own."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tools.dashboard.concerns import LinkHealth
from tools.dashboard.memory import HEARD, SiteMemory
from tools.dashboard.settings import DashboardSettings
from tools.dashboard.snapshot import Photographer, Snapshot
from wire import channels
from wire.codec import decode
from wire.errors import WireError
from wire.inbox import Inbox
from wire.link import Connected, Disconnected, Received, Subscription
from wire.mqtt import Link

log = logging.getLogger(__name__)

IDLE_S = 0.25
GATHER_S = 0.1
"""Messages are taken in handfuls: waking a thread for each costs more than the message."""
BACKOFF_MAX_S = 5.0
"""A visitor is waiting for the broker to come back."""


class Feed:
    """The dashboard's connection and memory; ``snapshot`` and ``reading`` may be called from any one thread."""

    def __init__(self, settings: DashboardSettings) -> None:
        self.begun_s = time.monotonic()
        self._memory = SiteMemory()
        self._photographer = Photographer()
        self._lock = threading.Lock()
        self._inbox = Inbox()
        where = f"{settings.link.host}:{settings.link.port}"
        self._health = LinkHealth(False, time.monotonic(), f"{where} has not answered yet; our log says why")
        self._stop = threading.Event()
        backoff_s = min(settings.link.backoff_max_s, BACKOFF_MAX_S)
        self._link = Link(
            replace(settings.link, session_expiry_s=0, backoff_max_s=max(backoff_s, settings.link.backoff_min_s)),
            f"dashboard-{settings.site}-{os.getpid()}-{time.time_ns() % 1_000_000}",
            self._inbox,
            subscriptions=[Subscription(channels.topic_filter(settings.site, c), c.qos) for c in HEARD],
            clean_start=True,
        )
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        """Begin to listen; the broker may be down, and may come and go."""
        self._link.start()
        self._thread.start()

    def stop(self) -> None:
        """Disconnect."""
        self._stop.set()
        self._thread.join(2.0)
        self._link.stop(drain_s=0.0)

    @property
    def alive(self) -> bool:
        """Whether both threads run."""
        return self._link.alive and self._thread.is_alive()

    def snapshot(self) -> Snapshot:
        """Return the picture of now."""
        with self.reading() as memory:
            memory.counters["inbox_refused"] = self._inbox.refused
            return self._photographer.take(memory, self._health, time.monotonic())

    @contextmanager
    def reading(self) -> Iterator[SiteMemory]:
        """Hold the memory still while something is read of it; keep it short."""
        with self._lock:
            yield self._memory

    def _run(self) -> None:
        while not self._stop.is_set():
            events = self._inbox.take(IDLE_S)
            oldest = next((event.arrived_ns / 1e9 for event in events if isinstance(event, Received)), None)
            self._memory.behind_s = 0.0 if oldest is None else time.monotonic() - oldest
            for event in events:
                try:
                    self._take(event)
                except Exception:  # the outermost loop: one message must not end the view
                    log.exception("a message could not be taken in")
                    self._memory.counters["unreadable"] += 1
            self._stop.wait(GATHER_S)

    def _take(self, event: object) -> None:
        match event:
            case Connected():
                with self._lock:
                    self._memory.listen_anew()
                    self._health = LinkHealth(True, time.monotonic())
            case Disconnected():
                self._health = LinkHealth(False, time.monotonic(), event.reason[:120])
            case Received():
                self._hear(event)

    def _hear(self, event: Received) -> None:
        try:
            address = channels.parse_topic(event.topic)
            message = decode(address.channel, event.payload) if event.payload else None
        except WireError as error:
            log.debug("unreadable on %s: %s", event.topic[:120], error)
            self._memory.counters["unreadable"] += 1
            return
        with self._lock:
            if message is None:
                self._memory.forget(address)
            else:
                self._memory.take(address, message, event.arrived_ns / 1e9, retained=event.retained)
