"""The load of the metrics bench: devices that tell how frames ended, again and again until they have a receipt."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass

from edge_broker_side.errors import EdgeError
from wire import channels
from wire.codec import decode, encode
from wire.inbox import Inbox
from wire.link import LinkSettings, Received, Subscription
from wire.messages import FrameOutcome, Outcome, Outcomes
from wire.mqtt import Link
from wire.plan import Plan

ROWS = 200
"""Frames of a message: what a device sends of its ledger at most."""
DEVICES = 16
IN_FLIGHT = 32
"""Messages without a receipt, of all devices together: a small part of what a recorder's inbox holds."""
AGAIN_S = 2.0
PATIENCE_S = 60.0
PLANS = (Plan("resnet-light", "s2b1", "q4"), Plan("resnet-heavy", "s3b1", "q2"))


class LoadError(EdgeError):
    """No receipts come; the message says of how many."""


@dataclass(slots=True)
class _Sent:
    """A message without a receipt."""

    topic: str
    payload: bytes
    at_s: float


class Load:
    """Devices of a site, in closed loop: a new message for each receipt, up to a rate."""

    def __init__(self, port: int, site: str, most_per_s: float = 0.0) -> None:
        """Connect; ``most_per_s`` frames per second at most, 0: as many as get receipts."""
        self.frames = dict.fromkeys((f"cam-{n:02}" for n in range(DEVICES)), 0)
        """Frames said so far by device; they are numbered from 1."""
        self._site = site
        self._most_per_s = most_per_s or math.inf
        self._open: dict[tuple[str, int], _Sent] = {}
        self._turn = 0
        self._rng = random.Random(0)
        self._inbox = Inbox(64 * 1024 * 1024)
        heard = [Subscription(channels.topic_filter(site, channels.RECORDED), 1)]
        self._link = Link(
            LinkSettings(port=port, qos1_outbox_bytes=64 * 1024 * 1024), "load", self._inbox, subscriptions=heard
        )
        self._link.start()

    def close(self) -> None:
        """Leave the broker."""
        self._link.stop()

    @property
    def points(self) -> int:
        """Frames said so far."""
        return sum(self.frames.values())

    def run(self, seconds: float) -> None:
        """Keep messages under way for a while."""
        began_s, before = time.monotonic(), self.points
        while (passed_s := time.monotonic() - began_s) < seconds:
            while len(self._open) < IN_FLIGHT and self.points - before < self._most_per_s * passed_s:
                self._say()
            self._take(0.01)

    def finish(self) -> None:
        """Wait until every message has its receipt; raises ``LoadError``."""
        end_s = time.monotonic() + PATIENCE_S
        while self._open:
            if time.monotonic() > end_s:
                raise LoadError(f"{len(self._open)} messages have no receipt after {PATIENCE_S:.0f} s")
            self._take(0.05)

    def _say(self) -> None:
        device = f"cam-{self._turn % DEVICES:02}"
        self._turn += 1
        first = self.frames[device] + 1
        self.frames[device] += ROWS
        number = first // ROWS + 1
        now_ms = time.time_ns() // 1_000_000
        rows = tuple(self._row(first + place, now_ms - ROWS + place) for place in range(ROWS))
        payload = encode(channels.OUTCOMES, Outcomes(1, number, self.frames[device], PLANS, rows))
        sent = _Sent(channels.topic(self._site, device, channels.OUTCOMES), payload, time.monotonic())
        self._open[device, number] = sent
        self._publish(sent)

    def _row(self, frame: int, at_ms: int) -> FrameOutcome:
        drawn = self._rng.random
        outcome = self._rng.choices((Outcome.EDGE, Outcome.DEVICE, Outcome.FALLBACK), (80, 15, 5))[0]
        return FrameOutcome(
            frame, outcome, frame % 2, at_ms, 20 + 40 * drawn(), 5 * drawn(), drawn(), 20 * drawn(), 3 * drawn(),
            8 * drawn(), 1 + frame % 8, 400 + frame % 300, 30 * drawn(), label=frame % 10, score=drawn(),
            truth=frame % 10, reason="timeout" if outcome is Outcome.FALLBACK else "",
        )  # fmt: skip

    def _publish(self, sent: _Sent) -> None:
        sent.at_s = time.monotonic()
        if self._link.publish(sent.topic, sent.payload, qos=1, watch=False) is None:
            raise LoadError("the link refused a message")

    def _take(self, timeout_s: float) -> None:
        for event in self._inbox.take(timeout_s):
            if isinstance(event, Received):
                address = channels.parse_topic(event.topic)
                self._open.pop((address.name, decode(address.channel, event.payload).batch), None)
        late_s = time.monotonic() - AGAIN_S
        for sent in self._open.values():
            if sent.at_s < late_s:
                self._publish(sent)
