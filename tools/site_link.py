"""A connection of a site's owner to its broker: listens to devices, workers and services, and times the way there."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tools.operator_link import NotReached, OperatorSettings
from wire.channels import PROBE, Channel, parse_topic, topic, topic_filter
from wire.codec import decode, encode
from wire.errors import PayloadError, TopicError
from wire.inbox import Inbox
from wire.link import Acknowledged, Connected, NotSent, Received, Subscription
from wire.messages import Probe
from wire.mqtt import Link

Taker = Callable[[str, Any, float], None]
"""Takes a sender's name, its message, and when that came in Unix milliseconds."""
TURN_S = 0.05


class SiteLink:
    """A connected account; a context manager."""

    def __init__(self, settings: OperatorSettings, channels: Sequence[Channel], take: Taker) -> None:
        self.unreadable: Counter[str] = Counter()
        """Messages that are none, by sender."""
        self.max_packet_bytes = 0
        """What the broker said it takes."""
        self._settings = settings
        self._take = take
        self._inbox = Inbox()
        wanted = [Subscription(topic_filter(settings.site, channel), channel.qos) for channel in channels]
        name = f"owner-{settings.site}-{os.getpid()}-{time.time_ns() % 1_000_000}"
        link = replace(settings.link, session_expiry_s=0)
        self._link = Link(link, name, self._inbox, subscriptions=wanted, clean_start=True)

    def __enter__(self) -> SiteLink:
        """Connect; raises ``NotReached``."""
        self._link.start()
        patience_s = self._settings.link.connect_timeout_s
        if not self.listen(lambda: self.max_packet_bytes > 0, patience_s):
            self._link.stop(drain_s=0)
            where = f"{self._settings.link.host}:{self._settings.link.port}"
            why = f" ({self._link.problem})" if self._link.problem else ""
            raise NotReached(
                f"no answer from {where} within {patience_s:g} s{why}: is the broker running, and are the "
                "certificates those of this site?"
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop(drain_s=0.2)

    def listen(self, enough: Callable[[], bool], at_most_s: float) -> bool:
        """Take messages until there are enough of them; return whether there were in time."""
        deadline_s = time.monotonic() + at_most_s
        while not enough():
            if (left_s := deadline_s - time.monotonic()) <= 0:
                return False
            for event in self._inbox.take(min(left_s, TURN_S)):
                self._read(event)
        return True

    def ping(self, count: int, at_most_s: float) -> list[float]:
        """Return how many milliseconds each of ``count`` QoS 1 messages took to the broker and back, one by one."""
        taken: list[float] = []
        payload = encode(PROBE, Probe(b""))
        deadline_s = time.monotonic() + at_most_s
        while len(taken) < count and (left_s := deadline_s - time.monotonic()) > 0:
            token = self._link.publish(topic(self._settings.site, "owner", PROBE), payload, qos=PROBE.qos)
            if token is None:
                break
            answer: list[float] = []
            while not answer and (left_s := deadline_s - time.monotonic()) > 0:
                for event in self._inbox.take(min(left_s, TURN_S)):
                    if isinstance(event, Acknowledged) and event.token == token:
                        answer.append(event.elapsed_ms)
                    if isinstance(event, NotSent):  # this account may not say it, or the connection is gone
                        return taken
                    self._read(event)
            taken += answer
        return taken

    def _read(self, event: object) -> None:
        if isinstance(event, Connected):
            self.max_packet_bytes = event.max_packet_bytes
        elif isinstance(event, Received) and event.payload:
            # The message waited for us since it came; its arrival is on another clock than the wall's.
            arrived_ms = (time.time_ns() - (time.monotonic_ns() - event.arrived_ns)) / 1e6
            try:
                address = parse_topic(event.topic)
                self._take(address.name, decode(address.channel, event.payload), arrived_ms)
            except (TopicError, PayloadError):
                self.unreadable[event.topic.split("/")[-2][:64]] += 1
