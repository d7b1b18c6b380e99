"""What is remembered from period to period, and what becomes of it as devices come and go."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policy.memory import Memory
from policy.table import Array


def told(memory: Memory, *uplinks: float, fps: float = 2.0, late: float = 0.0, busy: float = 0.5) -> None:
    """One period of one site."""
    count = len(uplinks)

    def each(value: float) -> Array:
        return np.full((1, count), value)

    one = np.array([busy])
    memory.update(np.array([uplinks]), each(fps), each(late), one, np.array([0.5]), np.zeros(1))


def test_the_first_period_is_what_is_usual() -> None:
    memory = Memory((1, 2))
    told(memory, 1e6, 8e6)
    assert memory.usual[0] == pytest.approx([math.log(1e6), math.log(8e6)])
    assert memory.late[0].tolist() == [0.0, 0.0]
    assert memory.rate[0].tolist() == [2.0, 2.0]


def test_a_link_that_falls_is_seen_against_what_is_usual_and_its_worst_is_kept() -> None:
    memory = Memory((1, 1))
    for _ in range(20):
        told(memory, 8e6)
    told(memory, 1e6)
    told(memory, 8e6)
    assert math.log(1e6) < memory.worst[0, 0] < memory.usual[0, 0] < math.log(8e6)
    assert memory.last[0, 0] == pytest.approx(math.log(8e6))


def test_unrest_grows_with_changes_and_settles() -> None:
    memory = Memory((1, 1))
    for i in range(60):
        told(memory, 1e6 if i % 2 else 8e6)
    restless = float(memory.unrest[0, 0])
    assert restless == pytest.approx(math.log(8), rel=0.05)
    for _ in range(60):
        told(memory, 8e6)
    assert memory.unrest[0, 0] < 0.01 * restless + 0.01


def test_an_edge_slower_than_modelled_shows_in_its_ratio() -> None:
    memory = Memory((1, 1))
    for _ in range(40):
        told(memory, 8e6, busy=0.9)
    assert memory.edge_ratio[0] == pytest.approx(math.log(0.9 / 0.5), rel=0.01)
    before = float(memory.edge_ratio[0])
    told(memory, 8e6, busy=1.0)  # full: no more than a lower bound, but above what was known
    assert memory.edge_ratio[0] > before


def test_devices_that_stay_keep_what_is_known_of_them_and_new_ones_begin_anew() -> None:
    memory = Memory((1, 3))
    for _ in range(5):
        told(memory, 1e6, 4e6, 8e6, late=0.5)
    kept = memory.usual[0, 2], memory.late[0, 2]
    memory.follow(np.array([2, -1]))
    told(memory, 8e6, 2e5)
    assert memory.usual.shape == (1, 2)
    assert memory.usual[0] == pytest.approx([kept[0], math.log(2e5)])
    assert memory.late[0, 0] == pytest.approx(kept[1] * 0.7)
    assert memory.late[0, 1] == 0.0
    assert np.isfinite(memory.worst).all() and np.isfinite(memory.unrest).all() and np.isfinite(memory.rate).all()


def test_following_before_anything_was_seen_sets_the_shape_alone() -> None:
    memory = Memory((1, 0))
    memory.follow(np.array([-1, -1]))
    told(memory, 1e6, 1e6)
    assert memory.usual.shape == (1, 2)
