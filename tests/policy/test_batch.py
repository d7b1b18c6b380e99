"""The batched costs are those of the cost model, to the precision of float32."""

from __future__ import annotations

import numpy as np
import pytest

from policy.baselines import site_rewards
from policy.coordination import look_at
from tests.policy.sites import random_plans, random_site

SEEDS = range(12)
PRECISION = 2e-4
BETWEEN_GRID_POINTS = 0.02
"""Of a site's sum: what others lose is read off straight lines between waits."""
FAR_FROM_BEST = 0.05
"""The same per device, for plans that swamp the edge: there the lines are long."""


@pytest.mark.parametrize("seed", SEEDS)
def test_all_together_felt_the_same(seed: int) -> None:
    costs, batch = random_site(seed, devices=7)
    chosen = random_plans(batch, np.random.default_rng(seed))
    expected = costs.together(chosen[0])
    wait, index = batch.delay(batch.total_load(chosen))
    tail = np.take_along_axis(batch.pick(batch.tail_ms, chosen), index[:, None, None], axis=-1)[..., 0]
    felt = batch.felt(chosen, wait[:, None], tail)
    assert batch.together(chosen)[0] == pytest.approx(expected.reward, abs=PRECISION)
    assert felt.reward[0] == pytest.approx(expected.reward, abs=PRECISION)
    punctual = expected.late == 0  # the cost model tells how long late frames would have taken, the batch what they do
    assert felt.latency_ms[0][punctual] == pytest.approx(expected.latency_ms[punctual], rel=1e-3)
    assert felt.energy_mj[0] == pytest.approx(expected.energy_mj, rel=1e-3)
    assert felt.late[0] == pytest.approx(expected.late, abs=1e-3)
    assert felt.dropped[0] == pytest.approx(expected.dropped, abs=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_delays_of_many_sites_are_those_of_each(seed: int) -> None:
    costs, batch = random_site(seed, devices=5)
    rng = np.random.default_rng(seed)
    for _ in range(5):
        chosen = random_plans(batch, rng)
        wait, index = batch.delay(batch.total_load(chosen))
        expected_wait, expected_index = costs.edge_delay(costs.total_load(chosen[0]))
        assert wait[0] == pytest.approx(float(expected_wait), rel=1e-3, abs=1e-3)
        assert int(index[0]) == int(expected_index)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_turn_sees_what_each_plan_does_to_the_site(seed: int) -> None:
    costs, batch = random_site(seed, devices=6)
    chosen = random_plans(batch, np.random.default_rng(seed))
    turn = look_at(batch, chosen, np.arange(6)[None])
    for device in range(6):
        plans = np.flatnonzero(costs.known[device])
        expected = site_rewards(costs, device, plans, chosen[0])
        found = (turn.own[0] + turn.others[0])[0, device, plans]
        best = int(np.argmax(expected))
        assert expected[np.argmax(found)] >= expected[best] - BETWEEN_GRID_POINTS
        assert found - found[best] == pytest.approx(expected - expected[best], abs=6 * FAR_FROM_BEST)


def test_longer_tails_are_the_same_as_a_slower_edge() -> None:
    # A backlog is not stretched by the slower profile.
    seed = next(seed for seed in SEEDS if random_site(seed, devices=6)[1].backlog_ms[0] == 0)
    _, batch = random_site(seed, devices=6, edge_heavy_ms=40.0)
    _, slower = random_site(seed, devices=6, edge_heavy_ms=80.0)
    chosen = random_plans(batch, np.random.default_rng(0))
    turn, expected = (look_at(b, chosen, np.arange(6)[None], f) for b, f in ((batch, (2.0,)), (slower, (1.0,))))
    assert turn.own[0] == pytest.approx(expected.own[0], abs=1e-3)


def test_the_batch_of_some_devices_holds_theirs_alone() -> None:
    _, batch = random_site(1, devices=5)
    some = batch.devices(np.array([[3, 1]]))
    assert some.own_ms[0].tolist() == batch.own_ms[0, [3, 1]].tolist()
    assert some.deadline_ms[0].tolist() == batch.deadline_ms[0, [3, 1]].tolist()
