"""The load of the worker bench: activations through a real broker, each answer taken down, none lost from sight."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wire import channels
from wire.codec import decode, encode
from wire.inbox import Inbox
from wire.link import LinkSettings, Received, Subscription
from wire.messages import Activation, DeviceState, Status
from wire.mqtt import Link
from wire.plan import Plan
from wire.tensor import EncodedTensor

BUDGET_MS = 30_000.0
PATIENCE_S = 30.0


class BenchError(Exception):
    """The bench cannot go on; the message says what happened."""


@dataclass(slots=True)
class Ledger:
    """What was sent and what came back. Times are monotonic nanoseconds."""

    sent_ns: dict[int, int] = field(default_factory=dict)
    answered_ns: dict[int, int] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)
    doubled: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def open(self) -> int:
        """Activations without an answer."""
        return len(self.sent_ns) - len(self.answered_ns)

    def frames_per_s(self) -> float:
        """Return the slope of answers over time, by least squares: batches arrive as stairs."""
        times = np.sort(np.array(list(self.answered_ns.values()), np.float64)) / 1e9
        times = times[len(times) // 5 :]  # the beginning is not yet in its stride
        return float(np.polyfit(times - times[0], np.arange(len(times)), 1)[0])

    def latencies_ms(self) -> NDArray[np.float64]:
        """Return sent to answered, of every frame."""
        return np.array([(self.answered_ns[n] - sent) / 1e6 for n, sent in self.sent_ns.items()])


class Generator:
    """A device that sends one prepared tensor again and again."""

    def __init__(self, port: int, site: str) -> None:
        self._site = site
        self._inbox = Inbox(256 * 1024 * 1024)
        self._numbers = itertools.count(1)
        self._ready: set[str] = set()
        heard = [
            Subscription(channels.topic_filter(site, channels.RESULT, "load"), 1),
            Subscription(channels.topic_filter(site, channels.WORKER_STATE), 1),
        ]
        settings = LinkSettings(port=port, qos0_outbox_bytes=64 * 1024 * 1024)
        self._link = Link(settings, "load", self._inbox, subscriptions=heard)
        self._link.start()

    def close(self) -> None:
        """Leave the broker."""
        self._link.stop()

    def wait_for(self, worker: str) -> None:
        """Wait until a worker has announced itself."""
        deadline = time.monotonic() + PATIENCE_S
        while worker not in self._ready:
            if time.monotonic() > deadline:
                raise BenchError(f"the worker is not ready after {PATIENCE_S:.0f} s")
            self._take(Ledger(), 0.1)

    def closed(self, plan: Plan, tensor: EncodedTensor, seconds: float, in_flight: int) -> Ledger:
        """Keep so many activations under way for a while; return when all are answered."""
        ledger = Ledger()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(in_flight - ledger.open):
                self._send(ledger, plan, tensor)
            self._take(ledger, 0.1)
        return self._finish(ledger)

    def steady(self, plan: Plan, tensor: EncodedTensor, seconds: float, per_s: float) -> Ledger:
        """Send at a constant rate for a while; return when all are answered."""
        ledger = Ledger()
        begin = time.monotonic()
        for number in range(int(seconds * per_s)):
            while (left := begin + number / per_s - time.monotonic()) > 0:
                self._take(ledger, left)
            self._send(ledger, plan, tensor)
        return self._finish(ledger)

    def _send(self, ledger: Ledger, plan: Plan, tensor: EncodedTensor) -> None:
        number = next(self._numbers)
        now_ns = time.monotonic_ns()
        payload = encode(channels.ACTIVATION, Activation(1, number, plan, (tensor,), BUDGET_MS, now_ns))
        topic = channels.topic(self._site, "load", channels.ACTIVATION)
        if self._link.publish(topic, payload, qos=0) is None:
            raise BenchError("the link refused an activation")
        ledger.sent_ns[number] = now_ns

    def _take(self, ledger: Ledger, timeout_s: float) -> None:
        for event in self._inbox.take(timeout_s):
            if not isinstance(event, Received):
                continue
            address = channels.parse_topic(event.topic)
            message = decode(address.channel, event.payload)
            if address.channel is channels.WORKER_STATE:
                if message.state is DeviceState.READY:
                    self._ready.add(address.name)
            elif message.frame in ledger.answered_ns or message.frame not in ledger.sent_ns:
                ledger.doubled += 1
            else:
                ledger.answered_ns[message.frame] = event.arrived_ns
                ledger.batches.append(message.batch)
                if message.status is not Status.OK:
                    ledger.refused[str(message.status)] += 1

    def _finish(self, ledger: Ledger) -> Ledger:
        deadline = time.monotonic() + PATIENCE_S
        while ledger.open and time.monotonic() < deadline:
            self._take(ledger, 0.1)
        self._take(ledger, 0.05)  # a doubled answer would come now
        return ledger
