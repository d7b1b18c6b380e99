"""The worker's queue: each job once, in time, in fair turns, within its bounds."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from edge_broker_side.batcher import Batch, Batcher, Job, Key

DELAY_NS = 1000
A, B = Key("net", "a"), Key("net", "b")


def job(key: Key, arrived: int, number: int = 0, *, latest: int = 10**9, size: int = 1) -> Job[int]:
    return Job(key, arrived, latest, size, number)


def batcher(max_batch: int = 4, max_jobs: int = 100, max_bytes: int = 10**6) -> Batcher[int]:
    return Batcher(max_batch, DELAY_NS, max_jobs, max_bytes)


def test_waits_for_company_but_not_longer_than_the_delay() -> None:
    queue = batcher()
    assert queue.add(job(A, 0, 1))
    early = queue.due(500, free=1)
    assert (early.batches, early.next_ns) == ((), DELAY_NS)
    assert queue.add(job(A, 600, 2))
    late = queue.due(DELAY_NS, free=1)
    assert late.batches == (Batch(A, (job(A, 0, 1), job(A, 600, 2))),)
    assert len(queue) == 0


def test_a_full_batch_goes_at_once() -> None:
    queue = batcher(max_batch=2)
    for number in range(3):
        queue.add(job(A, 0, number))
    assert [[j.content for j in b.jobs] for b in queue.due(0, free=5).batches] == [[0, 1]]


def test_nothing_goes_without_an_executor_and_then_the_oldest_key_first() -> None:
    queue = batcher()
    queue.add(job(B, 0, 1))
    queue.add(job(A, 1, 2))
    assert queue.due(5000, free=0).batches == ()
    assert [b.key for b in queue.due(5000, free=1).batches] == [B]
    assert [b.key for b in queue.due(5000, free=1).batches] == [A]


def test_a_full_queue_refuses_by_jobs_and_by_bytes() -> None:
    by_jobs, by_bytes = batcher(max_jobs=1), batcher(max_bytes=10)
    assert by_jobs.add(job(A, 0)) and not by_jobs.add(job(A, 0))
    assert by_bytes.add(job(A, 0, size=6)) and not by_bytes.add(job(B, 0, size=5)) and by_bytes.add(job(B, 0, size=4))
    by_bytes.due(DELAY_NS, free=2)
    assert by_bytes.add(job(A, 0, size=10))


def test_a_job_past_its_latest_start_comes_out_expired_even_with_no_executor() -> None:
    queue = batcher()
    queue.add(job(A, 0, 1, latest=300))
    queue.add(job(A, 0, 2, latest=5000))
    assert queue.due(0, free=0).next_ns == 300
    due = queue.due(300, free=0)
    assert [j.content for j in due.expired] == [1]
    assert due.next_ns == 5000


def test_a_key_may_have_a_smaller_batch() -> None:
    queue = batcher(max_batch=4)
    queue.limit({A: 1})
    for number in range(2):
        queue.add(job(A, 0, number))
    assert [len(b.jobs) for b in queue.due(0, free=4).batches] == [1, 1]


@dataclass
class Step:
    """Time passes, jobs arrive, executors are free."""

    wait: int
    jobs: list[tuple[int, int]]
    free: int


steps = st.lists(
    st.builds(
        Step,
        wait=st.integers(0, 800),
        jobs=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3000)), max_size=6),
        free=st.integers(0, 2),
    ),
    max_size=25,
)


@given(steps, st.integers(1, 4), st.integers(1, 12))
def test_every_job_once_in_order_within_bounds_and_in_time(story: list[Step], max_batch: int, max_jobs: int) -> None:
    queue = batcher(max_batch, max_jobs)
    keys = [Key("net", name) for name in "abc"]
    now, number = 0, 0
    waiting: dict[int, Job[int]] = {}
    for step in story:
        now += step.wait
        for which, budget in step.jobs:
            number += 1
            new = job(keys[which], now, number, latest=now + budget)
            accepted = queue.add(new)
            assert accepted == (len(waiting) < max_jobs)
            if accepted:
                waiting[number] = new
        due = queue.due(now, step.free)
        for gone in due.expired:
            assert waiting.pop(gone.content).latest_start_ns <= now
        assert len(due.batches) <= step.free
        for batch in due.batches:
            assert 1 <= len(batch.jobs) <= max_batch
            for taken in batch.jobs:
                # first in, first out within a key, and nothing that is too late
                assert taken.content == min(n for n, j in waiting.items() if j.key == batch.key)
                assert waiting.pop(taken.content).latest_start_ns > now
        assert len(queue) == len(waiting)
        assert all(left.latest_start_ns > now for left in waiting.values())
        if len(due.batches) < step.free:  # an executor is idle: nobody has waited too long, no batch is full
            assert all(left.arrived_ns + DELAY_NS > now for left in waiting.values())
            assert all(sum(j.key == key for j in waiting.values()) < max_batch for key in keys)
        assert due.next_ns is None or due.next_ns > now or len(due.batches) == step.free
        if waiting:
            assert due.next_ns is not None
    rest = queue.due(now, free=1000, flush=True)
    assert sorted(j.content for b in rest.batches for j in b.jobs) == sorted(waiting)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40))
def test_no_key_is_overtaken_by_one_whose_oldest_job_is_younger(arrivals: list[int]) -> None:
    queue = batcher(max_batch=2)
    keys = [Key("net", name) for name in "abc"]
    for number, which in enumerate(arrivals):
        queue.add(job(keys[which], 0, number))
    order = [batch.jobs[0].content for batch in queue.due(DELAY_NS, free=100).batches]
    assert order == sorted(order)
