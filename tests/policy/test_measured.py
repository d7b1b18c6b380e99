"""Measured rewards are on the very scale of the modelled ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.measured import EndedFrames, Yardsticks, heavy_mj, measure, with_idle
from tests.policy.builders import BOARD, DEVICE, HEAVY_LOCAL, HEAVY_WEBP, LIGHT_LOCAL, fleet, small_model

MODEL = small_model()
TABLE = MODEL.table
WEIGHTS = np.array([[0.5, 0.3, 0.2]])


def frames(plan: list[int], latency_ms: list[float], energy_mj: list[float], **more: list[bool]) -> EndedFrames:
    no = [False] * len(plan)
    return EndedFrames(
        np.array(plan), np.array(more.get("fallback", no)), np.array(more.get("dropped", no)),
        np.array(latency_ms), np.array(energy_mj), np.full(len(plan), np.nan),
    )  # fmt: skip


def yard(deadline_ms: float = 500.0, heavy: float = 520.0) -> Yardsticks:
    return Yardsticks(WEIGHTS, np.array([deadline_ms]), np.array([heavy]))


def test_frames_that_cost_what_was_predicted_are_worth_what_was_predicted() -> None:
    costs = MODEL.costs(fleet(DEVICE))
    for plan in (HEAVY_LOCAL, LIGHT_LOCAL, HEAVY_WEBP):
        i = TABLE.index[plan]
        predicted = costs.prediction(0, i, costs.load[0, i])
        ended = frames([i] * 3, [predicted.latency_ms] * 3, [predicted.energy_mj] * 3)
        by = Yardsticks(costs.weights[:1], costs.deadline_ms[:1], costs.heavy_mj[:1])
        found = measure(TABLE, ended, np.zeros(3, np.int64), by)
        assert found.reward[0] == pytest.approx(predicted.reward, abs=1e-9)


def test_late_fallback_and_dropped_frames_cost_their_penalties() -> None:
    i, local = TABLE.index[HEAVY_WEBP], TABLE.index[HEAVY_LOCAL]
    ended = frames(
        [i, i, i, i], [100.0, 600.0, 400.0, 0.0], [52.0] * 3 + [0.0],
        fallback=[False, False, True, False], dropped=[False, False, False, True],
    )  # fmt: skip
    found = measure(TABLE, ended, np.zeros(4, np.int64), yard())
    assert (found.late[0], found.dropped[0]) == (0.5, 0.25)
    accuracy = (2 * TABLE.accuracy_term[i] + TABLE.accuracy_term[local]) / 3
    mean_ms = (100 + 600 + 400) / 3
    expected = 0.5 * accuracy + 0.3 * (1 - mean_ms / 500) + 0.2 * (1 - 0.1) - 0.5 * 0.5 - 0.25
    assert found.reward[0] == pytest.approx(expected)


def test_nothing_answered_earns_the_penalty_alone() -> None:
    found = measure(TABLE, frames([0], [0.0], [0.0], dropped=[True]), np.array([0]), yard())
    assert found.reward[0] == pytest.approx(-1.0)
    assert np.isnan(found.latency_ms[0])


def test_no_frames_or_no_profile_give_no_reward() -> None:
    two = Yardsticks(np.repeat(WEIGHTS, 2, axis=0), np.array([500.0, 500.0]), np.array([np.nan, 520.0]))
    found = measure(TABLE, frames([0], [100.0], [52.0]), np.array([0]), two)
    assert np.isnan(found.reward).all()
    assert found.frames.tolist() == [1, 0]
    assert found.latency_ms[0] == 100.0


def test_a_plan_that_the_catalog_lacks_counts_as_least_accurate() -> None:
    found = measure(TABLE, frames([-1], [100.0], [52.0]), np.array([0]), yard())
    assert found.accuracy[0] == TABLE.accuracy.min()


@given(
    st.lists(st.tuples(st.integers(-1, len(TABLE) - 1), st.floats(0, 6e5), st.booleans(), st.booleans()), min_size=1)
)
def test_rewards_stay_in_their_range(rows: list[tuple[int, float, bool, bool]]) -> None:
    plan, latency, fallback, dropped = (list(column) for column in zip(*rows, strict=True))
    ended = frames(plan, latency, [10.0] * len(rows), fallback=fallback, dropped=dropped)
    found = measure(TABLE, ended, np.zeros(len(rows), np.int64), yard())
    assert -2.0 <= found.reward[0] <= 1.0


def test_idle_power_is_added_to_modelled_energy_only() -> None:
    energy = with_idle(
        np.array([100.0, 100.0]), np.array([False, True]), np.array([1500.0, 1500.0]), np.array([200.0, 200.0]),
        np.array([1000.0, 1000.0]), np.array([8e5, 8e5]),
    )  # fmt: skip
    # 200 ms of computing and 10 ms of sending (8,000 bits at 0.8 Mbit/s) at 1.5 W
    assert energy.tolist() == pytest.approx([100 + 1.5 * 210, 100])


def test_the_heaviest_local_plan_is_that_of_the_profile() -> None:
    assert heavy_mj(TABLE, MODEL.row(BOARD)) == pytest.approx(260.0 * 2.0)  # 260 ms at 2 W, as the builder makes it
    assert np.isnan(heavy_mj(TABLE, MODEL.row(None)))
