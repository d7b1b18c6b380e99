"""Outbox and inbox against plain models: bounds, order, eviction, expiry, and every item accounted for."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wire.inbox import Inbox
from wire.outbox import Outbox, Outgoing

OVERHEAD = Outgoing("", b"", 0).size


@dataclass
class Model:
    """The outbox as one would write it without caring for speed."""

    bound: tuple[int, int]
    queues: tuple[list[Outgoing], list[Outgoing]] = field(default_factory=lambda: ([], []))

    def held(self, qos: int) -> int:
        return sum(item.size for item in self.queues[qos])


class OutboxMachine(RuleBasedStateMachine):
    """Adds, takes and drains at random; the outbox must agree with the model after each step."""

    @initialize(qos0=st.integers(50, 2000), qos1=st.integers(50, 2000))
    def begin(self, qos0: int, qos1: int) -> None:
        self.model = Model((qos0, qos1))
        self.outbox = Outbox(qos0, qos1)
        self.now_ns = 0
        self.token = 0
        self.added = 0
        self.gone = 0

    @rule(qos=st.integers(0, 1), size=st.integers(0, 600), life_ns=st.none() | st.integers(1, 50))
    def add(self, qos: int, size: int, life_ns: int | None) -> None:
        self.token += 1
        expires_ns = None if life_ns is None else self.now_ns + life_ns
        item = Outgoing("t", bytes(size), qos, False, expires_ns, self.token)
        queue, bound = self.model.queues[qos], self.model.bound[qos]
        evicted = []
        if qos == 0:
            taken = item.size <= bound
            while taken and self.model.held(0) + item.size > bound:
                evicted.append(queue.pop(0))
        else:
            taken = self.model.held(1) + item.size <= bound
        if taken:
            queue.append(item)
        assert self.outbox.add(item) == (taken, evicted)
        self.added += taken
        self.gone += len(evicted)

    @rule(window_open=st.booleans())
    def take(self, window_open: bool) -> None:
        expected, expired = None, []
        for qos in (1, 0):
            queue = self.model.queues[qos]
            while expected is None and queue and (qos == 0 or window_open):
                item = queue.pop(0)
                if item.expires_ns is None or self.now_ns < item.expires_ns:
                    expected = item
                else:
                    expired.append(item)
        assert self.outbox.next(self.now_ns, window_open=window_open) == (expected, expired)
        self.gone += len(expired) + (expected is not None)

    @rule(step_ns=st.integers(1, 40))
    def time_passes(self, step_ns: int) -> None:
        self.now_ns += step_ns

    @rule()
    def connection_lost(self) -> None:
        assert self.outbox.drain_qos0() == self.model.queues[0]
        self.gone += len(self.model.queues[0])
        self.model.queues[0].clear()

    @precondition(lambda self: hasattr(self, "model"))
    @invariant()
    def agrees(self) -> None:
        assert len(self.outbox) == len(self.model.queues[0]) + len(self.model.queues[1])
        assert len(self.outbox) == self.added - self.gone, "an item vanished"


TestOutbox = OutboxMachine.TestCase


@given(st.lists(st.integers(1, 500)), st.integers(1, 300))
def test_the_freshest_survive_and_fit(sizes: list[int], room: int) -> None:
    """Of any burst, the outbox keeps the longest newest run that fits."""
    bound = room + OVERHEAD + 1
    outbox = Outbox(bound, 0)
    taken = [item for n, size in enumerate(sizes) if outbox.add(item := Outgoing("t", bytes(size), 0, token=n))[0]]
    kept: list[Outgoing] = []
    while (oldest := outbox.next(0, window_open=False)[0]) is not None:
        kept.append(oldest)
    assert kept == (taken[-len(kept) :] if kept else [])
    assert sum(item.size for item in kept) <= bound
    if len(kept) < len(taken):
        assert sum(item.size for item in kept) + taken[-len(kept) - 1].size > bound


@given(st.lists(st.tuples(st.integers(0, 100), st.booleans()), max_size=60), st.integers(1, 300))
def test_the_inbox_keeps_order_and_bound(steps: list[tuple[int, bool]], bound: int) -> None:
    inbox = Inbox(bound)
    held: list[int] = []
    held_bytes = refused = 0
    for number, (size, take) in enumerate(steps):
        fits = size == 0 or held_bytes + size <= bound
        assert inbox.put(number, size) == fits
        if fits:
            held.append(number)
            held_bytes += size
        else:
            refused += 1
        if take:
            assert inbox.take(0) == held
            held, held_bytes = [], 0
    assert inbox.refused == refused
    assert inbox.take(0) == held


def test_a_waiting_loop_is_woken_by_the_first_event() -> None:
    inbox = Inbox()
    threading.Timer(0.01, inbox.put, ["event"]).start()
    assert inbox.take(30) == ["event"]


def test_many_threads_lose_nothing() -> None:
    inbox = Inbox()
    threads = [
        threading.Thread(target=lambda n=n: [inbox.put((n, i), 1) for i in range(500)], daemon=True) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    seen: list[tuple[int, int]] = []
    while len(seen) < 2000:
        events = inbox.take(10)
        assert events, "an event was lost"
        seen += events
    for n in range(4):
        assert [i for thread, i in seen if thread == n] == list(range(500))


def test_taking_from_an_empty_inbox_returns_nothing_in_time() -> None:
    assert Inbox().take(0.001) == []
