"""Whoever talks to a worker or recorder in these tests: a real link, and patience with a bound."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_broker_side.broker import Broker
from wire import channels
from wire.channels import Channel
from wire.codec import decode, encode
from wire.inbox import Inbox
from wire.link import Connected, LinkSettings, Received, Subscription
from wire.messages import Activation, Result
from wire.mqtt import Link
from wire.plan import Plan
from wire.tensor import EncodedTensor
from wire.tensor import encode as encode_tensor

PATIENCE_S = 20.0


class Peer:
    """A connected client that keeps every message it is sent, as (channel, name, message)."""

    def __init__(self, broker: Broker, site: str, *heard: Channel, name: str = "cam") -> None:
        self.site, self.name = site, name
        self.heard: list[tuple[Channel, str, Any]] = []
        self._inbox = Inbox()
        self.link = Link(
            LinkSettings(port=broker.port, backoff_min_s=0.05),
            f"{site}-{name}",
            self._inbox,
            subscriptions=[Subscription(channels.topic_filter(site, channel), channel.qos) for channel in heard],
        )
        self.link.start()
        self._connected = False
        self.until(lambda: self._connected)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.link.stop()

    def until(self, true: Callable[[], object]) -> None:
        """Take messages until something is true; fails loudly after a while."""
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < deadline, f"waited in vain; heard {self.heard[-5:]}"
            self.take(0.1)

    def take(self, timeout_s: float) -> None:
        for event in self._inbox.take(timeout_s):
            if isinstance(event, Connected):
                self._connected = True
            elif isinstance(event, Received):
                address = channels.parse_topic(event.topic)
                self.heard.append((address.channel, address.name, decode(address.channel, event.payload)))

    def of(self, channel: Channel) -> list[Any]:
        return [message for where, _, message in self.heard if where is channel]

    def say(self, channel: Channel, message: object, name: str | None = None) -> None:
        topic = channels.topic(self.site, name or self.name, channel)
        assert self.link.publish(topic, encode(channel, message), qos=channel.qos, retain=channel.retained)

    def raw(self, channel: Channel, payload: bytes, *, retain: bool = False) -> None:
        topic = channels.topic(self.site, self.name, channel)
        assert self.link.publish(topic, payload, qos=channel.qos, retain=retain)

    def ask(self, frame: int, array: NDArray[Any], plan: Plan, budget_ms: float = 20_000.0) -> None:
        """Send an activation."""
        self.ask_encoded(frame, (encode_tensor(array, plan.codec),), plan, budget_ms)

    def ask_encoded(
        self,
        frame: int,
        tensors: tuple[EncodedTensor, ...],
        plan: Plan,
        budget_ms: float = 20_000.0,
        model: str = "",
    ) -> None:
        self.say(channels.ACTIVATION, Activation(1, frame, plan, tensors, budget_ms, 1000 + frame, model))

    def results(self) -> dict[int, Result]:
        """Return results by frame; fails if a frame was answered twice."""
        results = self.of(channels.RESULT)
        by_frame = {result.frame: result for result in results}
        assert len(by_frame) == len(results), "a frame was answered twice"
        return by_frame


@contextmanager
def running(run: Callable[[Any, threading.Event], None], settings: Any) -> Iterator[threading.Event]:
    """Run a service in a thread, and end it in good order."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            run(settings, stop)
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        assert not thread.is_alive() and not failed


class Process:
    """A service as a process of its own."""

    def __init__(self, service: str, toml: Path, log: Path) -> None:
        self.log = log
        with log.open("ab") as stderr:
            command = [sys.executable, "-m", "edge_broker_side", service, str(toml)]
            self._process = subprocess.Popen(command, stderr=stderr)
        self.pid = self._process.pid

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        os.kill(self.pid, how)
        return self._process.wait(PATIENCE_S)


def picture(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return the activation of frame ``seed``."""
    return np.random.default_rng(seed).uniform(0, 1, shape).astype(np.float32)
