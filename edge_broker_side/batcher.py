"""Which activations run together and when: the worker's queue, apart from any thread, clock or interpreter."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What can share a batch: the cut fixes the tail and the shapes; the codec does not matter."""

    version: str
    cut: str

    def __str__(self) -> str:
        return f"{self.version}/{self.cut}"


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """One activation in the queue; times are of one monotonic clock, in nanoseconds."""

    key: Key
    arrived_ns: int
    latest_start_ns: int
    """Starting it at this time or later is pointless: it would be answered too late."""
    size_bytes: int
    content: T


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Jobs of one key that run together."""

    key: Key
    jobs: tuple[Job[T], ...]


@dataclass(frozen=True, slots=True)
class Due(Generic[T]):
    """What is to be done now, and when to ask again."""

    batches: tuple[Batch[T], ...]
    expired: tuple[Job[T], ...]
    next_ns: int | None
    """Something may be due at this time even if no job arrives; ``None``: not before one does."""


class Batcher(Generic[T]):
    """A bounded queue of jobs. Every job that was added comes out of ``due`` once, in a batch or expired.

    A key is due when its oldest job has waited ``max_delay_ns``, or when a whole batch is there. Of the due keys the
    one with the oldest job goes first, so none starves. While every executor is busy, batches grow.
    """

    def __init__(self, max_batch: int, max_delay_ns: int, max_jobs: int, max_bytes: int) -> None:
        self._max_batch = max_batch
        self._max_delay_ns = max_delay_ns
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._limits: Mapping[Key, int] = {}
        self._queues: dict[Key, deque[tuple[int, Job[T]]]] = {}
        self._expiry: list[tuple[int, int]] = []
        self._waiting: dict[int, Job[T]] = {}
        self._numbers = itertools.count()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def limit(self, limits: Mapping[Key, int]) -> None:
        """Set the largest batch of keys whose tails take less than others."""
        self._limits = dict(limits)

    def add(self, job: Job[T]) -> bool:
        """Queue a job; ``False`` when the queue is full, and the job is not in it."""
        if len(self._waiting) >= self._max_jobs or self._bytes + job.size_bytes > self._max_bytes:
            return False
        number = next(self._numbers)
        self._queues.setdefault(job.key, deque()).append((number, job))
        self._waiting[number] = job
        heapq.heappush(self._expiry, (job.latest_start_ns, number))
        if len(self._expiry) > 4 * self._max_jobs:  # mostly jobs that have long been taken
            self._expiry = [(waiting.latest_start_ns, number) for number, waiting in self._waiting.items()]
            heapq.heapify(self._expiry)
        self._bytes += job.size_bytes
        return True

    def due(self, now_ns: int, free: int, *, flush: bool = False) -> Due[T]:
        """Take out what has expired and at most ``free`` batches; ``flush`` waits for no batch to grow."""
        expired = self._take_expired(now_ns)
        batches: list[Batch[T]] = []
        while len(batches) < free and (key := self._next_key(now_ns, flush=flush)) is not None:
            batches.append(self._take_batch(key))
        return Due(tuple(batches), tuple(expired), self._next_ns(executor_free=len(batches) < free))

    def _limit(self, key: Key) -> int:
        return min(self._max_batch, self._limits.get(key, self._max_batch))

    def _take_expired(self, now_ns: int) -> list[Job[T]]:
        expired: list[Job[T]] = []
        while self._expiry and (self._expiry[0][0] <= now_ns or self._expiry[0][1] not in self._waiting):
            _, number = heapq.heappop(self._expiry)
            if (job := self._waiting.get(number)) is not None:
                self._forget(number, job)
                self._queues[job.key].remove((number, job))
                if not self._queues[job.key]:
                    del self._queues[job.key]
                expired.append(job)
        return expired

    def _next_key(self, now_ns: int, *, flush: bool) -> Key | None:
        ripe = [
            (queue[0][0], key)
            for key, queue in self._queues.items()
            if flush or len(queue) >= self._limit(key) or queue[0][1].arrived_ns + self._max_delay_ns <= now_ns
        ]
        return min(ripe)[1] if ripe else None

    def _take_batch(self, key: Key) -> Batch[T]:
        queue = self._queues[key]
        jobs: list[Job[T]] = []
        while queue and len(jobs) < self._limit(key):
            number, job = queue.popleft()
            self._forget(number, job)
            jobs.append(job)
        if not queue:
            del self._queues[key]
        return Batch(key, tuple(jobs))

    def _forget(self, number: int, job: Job[T]) -> None:
        del self._waiting[number]
        self._bytes -= job.size_bytes

    def _next_ns(self, *, executor_free: bool) -> int | None:
        times = [self._expiry[0][0]] if self._expiry else []
        if executor_free:
            times += [queue[0][1].arrived_ns + self._max_delay_ns for queue in self._queues.values()]
        return min(times, default=None)
