"""The order of the arms: each once per round, and balanced over rounds whatever the seed."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tools.pilot.schedule import ARMS, schedule

SEEDS = st.integers(0, 2**32 - 1)


@given(st.integers(2, 7), st.integers(1, 15), SEEDS)
def test_each_round_holds_each_arm_once_and_each_arm_has_each_place_equally_often(
    count: int, rounds: int, seed: int
) -> None:
    arms = tuple("abcdefg"[:count])
    blocks = schedule(arms, rounds, np.random.default_rng(seed))
    assert [block.number for block in blocks] == list(range(count * rounds))
    by_round = [blocks[i : i + count] for i in range(0, len(blocks), count)]
    for number, members in enumerate(by_round):
        assert {block.round for block in members} == {number}
        assert sorted(block.arm for block in members) == list(arms)
    for start in range(0, rounds - count + 1, count):
        square = by_round[start : start + count]
        for place in range(count):
            assert len({members[place].arm for members in square}) == count


@given(st.sampled_from([2, 4, 6]), SEEDS)
def test_with_an_even_number_of_arms_each_follows_each_other_one_once(count: int, seed: int) -> None:
    blocks = schedule("abcdef"[:count], count, np.random.default_rng(seed))
    rows = [[block.arm for block in blocks[i : i + count]] for i in range(0, len(blocks), count)]
    followed = Counter(pair for row in rows for pair in itertools.pairwise(row))
    assert len(followed) == count * (count - 1)
    assert set(followed.values()) == {1}


def test_the_order_is_random_and_the_seed_repeats_it() -> None:
    orders = [tuple(block.arm for block in schedule(ARMS, 4, np.random.default_rng(seed))) for seed in range(40)]
    assert orders[0] == tuple(block.arm for block in schedule(ARMS, 4, np.random.default_rng(0)))
    assert len(set(orders)) > 30
    assert set(Counter(order[0] for order in orders)) == set(ARMS), "any arm may come first"
