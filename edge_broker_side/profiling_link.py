"""Measures what a frame costs between device and tail: the broker's hops, the worker around its tail, cold caches."""

from __future__ import annotations

import logging
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from edge_broker_side.broker import BrokerSettings, start_broker
from edge_broker_side.errors import EdgeError
from edge_broker_side.worker import Worker, WorkerSettings
from tflite_models.catalog import Catalog
from wire import channels
from wire.codec import decode, encode
from wire.inbox import Inbox
from wire.link import Acknowledged, LinkSettings, Received, Subscription
from wire.messages import Activation, DeviceState, Probe, Result, Status, WorkerState
from wire.mqtt import Link
from wire.plan import Plan
from wire.tensor import EncodedTensor

log = logging.getLogger(__name__)

SITE, DEVICE, WORKER = "profile", "profiler", "profiled"
BUDGET_MS = 10_000.0
PATIENCE_S = 30.0
PAUSE_S = 0.02
"""Between frames, as between a camera's: without it caches and threads stay warm, as they are not at a quiet site."""
FRAMES = 15
SKIPPED = 3
T = TypeVar("T")

Sample = tuple[Plan, tuple[EncodedTensor, ...], float]
"""A plan, what crosses its cut, and the time of its tail (one frame, ms)."""


def handling_ms(catalog: Catalog, samples: Sequence[Sample]) -> float:
    """Return what an answer takes beyond tail and the round trip to the broker, ms: median over frames and samples.

    Frames go one by one through a broker on this machine to a worker in this process. Raises ``EdgeError`` where no
    broker or worker can be started, or where an answer is missing.
    """
    with tempfile.TemporaryDirectory(prefix="splitfleet-profile-") as folder:
        settings = BrokerSettings(folder=f"{folder}/broker", port=0, log_file=f"{folder}/broker.log")
        with start_broker(settings) as broker:
            link = LinkSettings(port=broker.port)
            worker = Worker(WorkerSettings(SITE, WORKER, models="", link=link, threads=1), catalog)
            stop = threading.Event()
            worker.start()
            serving = threading.Thread(target=worker.serve, args=(stop,), name="profiled-worker", daemon=True)
            serving.start()
            asker = _Asker(link)
            try:
                asker.wait_for_worker()
                times = [ms for sample in samples if (ms := asker.beyond_tail_ms(sample)) is not None]
                if not times:
                    raise EdgeError("profiling the edge: the worker refused the frames of every tail, see the log")
                return max(statistics.median(times) - asker.rtt_ms(), 0.0)
            finally:
                asker.stop()
                stop.set()
                serving.join()
                worker.drain()


class _Asker:
    """A device that sends prepared tensors, one at a time."""

    def __init__(self, link: LinkSettings) -> None:
        self._inbox = Inbox()
        heard = [
            Subscription(channels.topic(SITE, DEVICE, channels.RESULT), channels.RESULT.qos),
            Subscription(channels.topic(SITE, WORKER, channels.WORKER_STATE), channels.WORKER_STATE.qos),
        ]
        self._link = Link(link, DEVICE, self._inbox, subscriptions=heard, clean_start=True)
        self._link.start()
        self.stop = self._link.stop

    def wait_for_worker(self) -> None:
        """Wait until the worker has announced itself."""

        def ready(event: Any) -> bool | None:
            message = _message(event)
            return True if isinstance(message, WorkerState) and message.state is DeviceState.READY else None

        self._wait(ready, "the worker")

    def beyond_tail_ms(self, sample: Sample) -> float | None:
        """Return the median time from sending to the answer, less the tail; ``None`` where the worker refuses it."""
        plan, tensors, tail_ms = sample
        times = []
        for number in range(1, SKIPPED + FRAMES + 1):
            status, took_ms = self._round_trip(number, plan, tensors)
            if status is not Status.OK:
                log.warning("a frame of %s was refused: %s", plan, status)
                return None
            times.append(took_ms)
        return statistics.median(times[SKIPPED:]) - tail_ms

    def rtt_ms(self) -> float:
        """Return the quickest acknowledgement of a small message, which is what a device takes for its round trip."""
        times = []
        payload, topic = encode(channels.PROBE, Probe(b"")), channels.topic(SITE, DEVICE, channels.PROBE)
        for _ in range(SKIPPED + FRAMES):
            time.sleep(PAUSE_S)
            self._link.publish(topic, payload, qos=1)
            times.append(self._wait(lambda e: e.elapsed_ms if isinstance(e, Acknowledged) else None, "the broker"))
        return min(times)

    def _round_trip(self, number: int, plan: Plan, tensors: tuple[EncodedTensor, ...]) -> tuple[Status, float]:
        time.sleep(PAUSE_S)
        sent_ns = time.monotonic_ns()
        message = Activation(1, number, plan, tensors, BUDGET_MS, sent_ns)
        self._link.publish(
            channels.topic(SITE, DEVICE, channels.ACTIVATION), encode(channels.ACTIVATION, message), qos=0
        )

        def answered(event: Any) -> tuple[Status, float] | None:
            result = _message(event)
            if not isinstance(result, Result) or result.frame != number or result.plan != plan:
                return None
            return result.status, (event.arrived_ns - sent_ns) / 1e6

        return self._wait(answered, f"the answer for a frame of {plan}")

    def _wait(self, found: Callable[[Any], T | None], what: str) -> T:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for event in self._inbox.take(0.1):
                value = found(event)
                if value is not None:
                    return value
        raise EdgeError(f"profiling the edge: waited {PATIENCE_S:g} s in vain for {what}")


def _message(event: Any) -> Any:
    if not isinstance(event, Received) or not event.payload:
        return None
    return decode(channels.parse_topic(event.topic).channel, event.payload)
