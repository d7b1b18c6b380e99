"""What the forwarder does next: nothing overtakes, nothing is left out, and only what is refused alone is dead."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_broker_side.forwarding import Fetch, Forwarding, Pace, Send, Wait
from edge_broker_side.influx import Denied, NoDatabase, PointsRefused, TooLarge, Unavailable
from edge_broker_side.store_file import Row

PACE = Pace(points=8, size_bytes=10**6, period_s=1.0, backoff_min_s=2.0, backoff_max_s=60.0)


def rows(*numbers: int, again: bool = False) -> list[Row]:
    return [Row(number, "m", f"m n={number}i {number}", again) for number in numbers]


def forwarding(pace: Pace = PACE, seed: int = 0) -> Forwarding:
    return Forwarding(pace, random.Random(seed))


def sent(step: object) -> list[int]:
    assert isinstance(step, Send)
    return [row.number for row in step.rows]


def test_a_full_batch_is_followed_at_once_and_a_small_one_after_a_period() -> None:
    one = forwarding()
    assert one.next(0.0) == Fetch(8, 10**6)
    one.fetched(rows(*range(1, 9)), 0.0)
    assert sent(one.next(0.0)) == [1, 2, 3, 4, 5, 6, 7, 8]
    one.accepted(0.5)
    assert one.next(0.5) == Fetch(8, 10**6)
    one.fetched(rows(9), 0.5)
    assert sent(one.next(0.5)) == [9]
    one.accepted(0.6)
    assert one.next(0.7) == Wait(1.6)
    assert one.next(1.6) == Fetch(8, 10**6)
    one.fetched([], 1.6)
    assert one.next(1.7) == Wait(2.6)


def test_a_batch_that_is_full_of_bytes_is_full() -> None:
    one = forwarding(Pace(1000, 100, 1.0, 2.0, 60.0))
    one.fetched([Row(1, "m", "x" * 90)], 0.0)
    one.next(0.0)
    one.accepted(0.0)
    assert isinstance(one.next(0.0), Fetch)


def test_while_the_server_is_away_the_same_points_wait_longer_and_longer_never_in_step() -> None:
    first: list[float] = []
    second: list[float] = []
    for delays, seed in ((first, 1), (second, 2)):
        one, now_s = forwarding(seed=seed), 0.0
        one.fetched(rows(1, 2), now_s)
        for _ in range(12):
            assert sent(one.next(now_s)) == [1, 2]
            assert one.failed(Unavailable("away"), now_s) == ()
            step = one.next(now_s)
            assert isinstance(step, Wait)
            delays.append(step.until_s - now_s)
            now_s = step.until_s
    for n, delay in enumerate(first):
        longest = min(2.0 * 2**n, 60.0)
        assert longest / 2 <= delay <= longest
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_a_success_begins_the_back_off_anew() -> None:
    one = forwarding()
    one.fetched(rows(*range(1, 9)), 0.0)
    for now_s in (0.0, 100.0, 200.0):
        one.next(now_s)
        one.failed(Unavailable("away"), now_s)
    one.accepted(300.0)
    one.fetched(rows(*range(9, 17)), 300.0)
    one.failed(Unavailable("away"), 300.0)
    step = one.next(300.0)
    assert isinstance(step, Wait) and step.until_s <= 302.0


def test_the_server_says_how_long_to_stay_away() -> None:
    one = forwarding()
    one.fetched(rows(1), 0.0)
    one.failed(Unavailable("busy", retry_after_s=500.0), 0.0)
    step = one.next(0.0)
    assert isinstance(step, Wait) and 500.0 <= step.until_s <= 550.0


@pytest.mark.parametrize("error", [Denied("token"), NoDatabase("none")])
def test_what_somebody_must_mend_is_tried_again_slowly(error: Denied | NoDatabase) -> None:
    one = forwarding()
    one.fetched(rows(1), 0.0)
    assert one.failed(error, 0.0) == ()
    step = one.next(0.0)
    assert isinstance(step, Wait) and 30.0 <= step.until_s <= 60.0
    assert sent(one.next(60.0)) == [1], "nothing is given up"


def run(one: Forwarding, batch: Sequence[Row], bad: set[int], most: int) -> tuple[list[int], list[int], int]:
    """Play a server that refuses any batch with a bad point, and finds more than ``most`` points too large."""
    taken: list[int] = []
    dead: list[int] = []
    requests = 0
    one.fetched(batch, 0.0)
    while isinstance(step := one.next(0.0), Send):
        requests += 1
        numbers = sent(step)
        if len(numbers) > most:
            gone = one.failed(TooLarge("large"), 0.0)
        elif bad & set(numbers):
            gone = one.failed(PointsRefused("bad"), 0.0)
        else:
            taken += numbers
            one.accepted(0.0)
            continue
        dead += [row.number for row in gone]
        assert sorted(taken + dead) == list(range(1, len(taken + dead) + 1)), "the cursor would pass a point by"
    return taken, dead, requests


@given(st.integers(1, 60), st.sets(st.integers(1, 60)), st.integers(1, 60))
def test_exactly_the_bad_points_are_dead_and_the_cursor_passes_none_by(count: int, bad: set[int], most: int) -> None:
    taken, dead, _ = run(forwarding(), rows(*range(1, count + 1)), bad, most)
    everything = set(range(1, count + 1))
    assert taken == sorted(everything - bad) and dead == sorted(everything & bad)


def test_one_bad_point_among_five_thousand_takes_few_requests() -> None:
    taken, dead, requests = run(forwarding(), rows(*range(1, 5001)), {3217}, 5000)
    assert (len(taken), dead) == (4999, [3217])
    assert requests <= 27  # 13 halvings, at most two requests each, and the first


def test_what_was_too_large_once_is_not_tried_again() -> None:
    one = forwarding()
    run(one, [Row(number, "m", "x" * 99_999) for number in range(1, 9)], set(), 2)
    step = one.next(100.0)
    assert isinstance(step, Fetch) and step.size_bytes == 200_000  # two of them


def test_a_store_that_begins_elsewhere_is_asked_anew() -> None:
    one = forwarding()
    one.fetched(rows(1, 2), 0.0)
    one.forget()
    one.postpone(0.0, 5.0)
    assert one.next(1.0) == Wait(5.0)
    one.hurry()
    assert one.next(1.0) == Wait(5.0), "trouble is not hurried"
    assert isinstance(one.next(5.0), Fetch)


def test_the_last_points_need_not_wait_for_the_period() -> None:
    one = forwarding()
    one.fetched([], 0.0)
    assert one.next(0.1) == Wait(1.0)
    one.hurry()
    assert isinstance(one.next(0.1), Fetch)
