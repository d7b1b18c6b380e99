"""How busy a worker was: sums over one period, turned into the message that policies read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from wire.messages import Status, WorkerLoad


class LoadMeter:
    """Counts one period. Times are monotonic, in nanoseconds, and passed in."""

    def __init__(self, executors: int, now_ns: int) -> None:
        self.since_ns = now_ns
        self.arrived = 0
        self._executors = executors
        self._began_ns: dict[int, int] = {}
        self._clear()

    def began(self, executor: int, now_ns: int) -> None:
        """An executor took a batch."""
        self._began_ns[executor] = now_ns

    def ended(self, executor: int, now_ns: int) -> None:
        """It is free again."""
        self._busy_ns += now_ns - max(self._began_ns.pop(executor), self.since_ns)

    def computed(self, key: str, frames: int, tail_ms: float) -> None:
        """A batch went through a tail."""
        self._batches += 1
        self._frames[key] += frames
        self._tail_ms[key] = self._tail_ms.get(key, 0.0) + tail_ms

    def answered(self, status: Status, wait_ms: float) -> None:
        """One activation got its answer."""
        if status is Status.OK:
            self._served += 1
            self._wait_ms += wait_ms
        elif status is Status.BUSY:
            self._refused += 1

    def take(self, now_ns: int, session: int, queued: int, counters: Mapping[str, int]) -> WorkerLoad:
        """Return the period that ends now, and begin the next one."""
        period_ns = max(1, now_ns - self.since_ns)
        running_ns = sum(now_ns - max(began, self.since_ns) for began in self._began_ns.values())
        frames = sum(self._frames.values())
        load = WorkerLoad(
            session=session,
            at_ms=time.time_ns() // 1_000_000,
            period_ms=period_ns / 1e6,
            queued=queued,
            arrived=self.arrived,
            served=self._served,
            busy=self._refused,
            utilisation=min(1.0, (self._busy_ns + running_ns) / (period_ns * self._executors)),
            batch_mean=frames / self._batches if self._batches else 0.0,
            wait_ms_mean=self._wait_ms / self._served if self._served else 0.0,
            service_ms={key: self._tail_ms[key] / frames for key, frames in self._frames.items()},
            counters=dict(counters),
        )
        self.since_ns = now_ns
        self._clear()
        return load

    def _clear(self) -> None:
        self.arrived = 0
        self._busy_ns = 0
        self._batches = 0
        self._served = 0
        self._refused = 0
        self._wait_ms = 0.0
        self._frames: Counter[str] = Counter()
        self._tail_ms: dict[str, float] = {}
