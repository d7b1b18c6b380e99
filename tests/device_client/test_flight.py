"""Frames in flight and the breaker: pure, so every moment is given."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from device_client.flight import SILENT_AFTER, TRIAL_MAX_MS, TRIAL_MIN_MS, Breaker, Flight, InFlight
from wire.plan import Plan

MS = 1_000_000


def entry(frame: int, give_up_ns: int = 100) -> InFlight:
    """Return a frame whose token is a thousand more than its number."""
    return InFlight(
        frame, Plan("v", "c", "q8"), None, None, 0, 0, 0, give_up_ns, 1000 + frame, 1.0, 1.0, 10, 0.0, alone=False
    )


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 20)),
        st.tuples(st.just("answered"), st.integers(0, 12)),
        st.tuples(st.just("not_sent"), st.integers(1000, 1012)),
        st.tuples(st.just("overdue"), st.integers(0, 25)),
        st.tuples(st.just("clear"), st.just(0)),
    ),
    max_size=40,
)


@given(STEPS)
def test_every_frame_leaves_exactly_once(steps: list[tuple[str, int]]) -> None:
    flight, left, added = Flight(4), Counter[int](), 0
    for step, value in steps:
        if step == "add" and not flight.full:
            added += 1
            flight.add(entry(added, give_up_ns=value))
        elif step == "overdue":
            late = flight.overdue(value)
            assert all(one.give_up_ns <= value for one in late)
            assert [one.frame for one in late] == sorted(one.frame for one in late)
            left.update(one.frame for one in late)
            wake = flight.next_wake_ns()
            assert wake is None or wake > value
        elif step == "clear":
            left.update(one.frame for one in flight.clear())
        elif step in ("answered", "not_sent"):
            one = flight.answered(value) if step == "answered" else flight.not_sent(value)
            if one is not None:
                assert one.frame == value % 1000
                left[one.frame] += 1
        assert len(flight) <= 4
        assert len(flight) + left.total() == added
    left.update(one.frame for one in flight.clear())
    assert left == Counter(range(1, added + 1))
    assert flight.next_wake_ns() is None


def test_the_breaker_opens_after_silence_in_a_row_and_tries_ever_more_rarely() -> None:
    breaker = Breaker()
    for _ in range(SILENT_AFTER - 1):
        breaker.missed(0)
    assert not breaker.open
    assert breaker.may_send(0)
    breaker.answered()
    for _ in range(SILENT_AFTER):
        assert not breaker.open
        breaker.missed(0)
    assert breaker.open

    trials, now_ms = [], 0.0
    while now_ms < 60_000:
        if breaker.may_send(int(now_ms * MS)):
            trials.append(now_ms)
            breaker.missed(int(now_ms * MS))
        now_ms += 10
    gaps = [later - earlier for earlier, later in pairwise(trials)]
    assert trials[0] == TRIAL_MIN_MS
    assert gaps == sorted(gaps)
    assert gaps[0] == TRIAL_MIN_MS
    assert gaps[-1] == TRIAL_MAX_MS

    breaker.answered()
    assert not breaker.open
    assert breaker.may_send(int(now_ms * MS))


def test_a_trial_that_is_answered_or_a_new_connection_closes_the_breaker() -> None:
    for heal in (Breaker.answered, Breaker.reconnected):
        breaker = Breaker()
        for _ in range(SILENT_AFTER):
            breaker.missed(0)
        assert not breaker.may_send(1)
        heal(breaker)
        assert breaker.may_send(1)
        assert breaker.may_send(1)
