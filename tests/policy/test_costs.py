"""The cost model against figures worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.costs import CostModel
from policy.errors import PolicyError
from policy.queueing import BACKLOG_HORIZON_MS, NO_WORKER_MS, UTILISATION_CAP, edge_delay
from policy.reward import accuracy_term, dropped_share, late_share
from tests.policy.builders import (
    BOARD,
    DEVICE,
    EDGE,
    HEAVY_LOCAL,
    HEAVY_RAW,
    HEAVY_S2,
    LIGHT_LOCAL,
    board,
    catalog,
    edge_profile,
    fleet,
    small_catalog,
    small_model,
    version,
)
from tests.policy.sites import random_fleet
from tflite_models.catalog import PlanFacts
from wire.plan import NO_CODEC, OUTPUT


def test_one_plan_worked_out_by_hand() -> None:
    """Heavy cut at s2: head 182 ms, encoding 1 ms, 920 bytes at 1 Mbit/s, RTT 5 ms, handling 1 ms, tail 12 ms."""
    model = small_model()
    costs = model.costs(fleet(dataclasses.replace(DEVICE, uplink_bps=1e6)))
    plan = model.table.index[HEAVY_S2]
    seen = costs.prediction(0, plan, costs.load[0, plan])
    assert seen.head_ms == pytest.approx(182)
    assert seen.tx_ms == pytest.approx(920 * 8 / 1000)
    assert seen.edge_busy_ms_per_s == pytest.approx(2 * 12)
    # M/D/1 at utilisation 0.024: S·rho / (2·(1 − rho))
    assert seen.wait_ms == pytest.approx(12 * 0.024 / (2 * 0.976))
    assert seen.latency_ms == pytest.approx(182 + 1 + 7.36 + 5 + 1 + 12 + seen.wait_ms)
    # head 2 mJ per ms, encoding at 2 W, sending at 0.7 W
    assert seen.energy_mj == pytest.approx(182 * 2 + 1 * 2 + 7.36 * 0.7)
    assert seen.device_utilisation == pytest.approx(2 * 0.183)
    assert seen.link_utilisation == pytest.approx(2 * 0.00736)
    assert seen.accuracy == 0.86


def test_reward_terms_by_hand() -> None:
    """Local light: A = 0.1/7 of the span from 0.79 to 0.86, L = 1 − 32.5/500, E = 1 − 1/8."""
    model = small_model()
    costs = model.costs(fleet(DEVICE))
    light = costs.prediction(0, model.table.index[LIGHT_LOCAL], np.zeros(1 + len(costs.batches)))
    assert light.reward == pytest.approx(0.34 * (0.01 / 0.07) + 0.33 * (1 - 32.5 / 500) + 0.33 * 7 / 8)
    heavy = costs.prediction(0, model.table.index[HEAVY_LOCAL], np.zeros(1 + len(costs.batches)))
    assert heavy.reward == pytest.approx(0.34 * 1 + 0.33 * (1 - 260 / 500) + 0)


def test_calibration_scales_the_board_and_the_edge() -> None:
    model = small_model()
    plan = model.table.index[HEAVY_S2]
    edge = dataclasses.replace(EDGE, calibration=3.0)
    plain = model.costs(fleet(DEVICE))
    slow = model.costs(fleet(dataclasses.replace(DEVICE, calibration=2.0), edge=edge))
    assert slow.head_ms[0, plan] == 2 * plain.head_ms[0, plan]
    np.testing.assert_allclose(slow.tail_ms[plan], 3 * plain.tail_ms[plan])
    np.testing.assert_allclose(slow.load[0, plan, 1:], 3 * plain.load[0, plan, 1:])


def test_idle_power_counts_for_the_time_a_frame_takes() -> None:
    model = small_model()
    profile = dataclasses.replace(board(), idle_power_mw=1000.0)
    with_idle = model.costs(fleet(dataclasses.replace(DEVICE, profile=profile)))
    plain = model.costs(fleet(DEVICE))
    plan = model.table.index[HEAVY_S2]
    busy_ms = 182 + 1 + 920 * 8 / 8000
    assert with_idle.energy_mj[0, plan] - plain.energy_mj[0, plan] == pytest.approx(busy_ms)


def test_a_camera_as_fast_as_possible_runs_at_the_pace_of_the_plan() -> None:
    model = small_model()
    costs = model.costs(fleet(dataclasses.replace(DEVICE, fps=0.0)))
    plan = model.table.index[HEAVY_S2]
    assert costs.load[0, plan, 0] == pytest.approx(1000 / 183)
    assert costs.device_utilisation.max() <= 1 + 1e-9


def test_unknown_accuracy_counts_as_the_least_known() -> None:
    facts = [PlanFacts(OUTPUT, NO_CODEC, 0, 0, None)]
    known = [PlanFacts(OUTPUT, NO_CODEC, 0, 0, 0.7)]
    better = [PlanFacts(OUTPUT, NO_CODEC, 0, 0, 0.9)]
    table = CostModel(
        catalog(version("mine", 1, facts), version("good", 1, better), version("poor", 1, known)), None
    ).table
    assert dict(zip((p.version for p in table.plans), table.accuracy, strict=True))["mine"] == 0.7
    assert list(table.accuracy_known) == [False, True, True]


def test_plans_that_no_profile_covers_are_not_known() -> None:
    model = small_model()
    bare = dataclasses.replace(BOARD, heads=BOARD.heads[1:])
    costs = model.costs(fleet(dataclasses.replace(DEVICE, profile=bare)))
    assert not costs.known[0, model.table.index[HEAVY_S2]]
    assert costs.known[0, model.table.index[HEAVY_LOCAL]]


def test_a_link_asked_for_more_than_it_has_makes_every_frame_late() -> None:
    model = small_model()
    costs = model.costs(fleet(dataclasses.replace(DEVICE, uplink_bps=2e5, deadline_ms=5000)))
    plan = model.table.index[HEAVY_RAW]
    assert costs.link_utilisation[0, plan] == pytest.approx(2 * 27_648 * 8 / 2e5)
    assert costs.prediction(0, plan, costs.load[0, plan]).late_share == 1.0


def test_late_frames_cost_the_local_finish_too() -> None:
    model = small_model()
    tight = model.costs(fleet(dataclasses.replace(DEVICE, deadline_ms=150)))
    plan = model.table.index[HEAVY_S2]
    seen = tight.prediction(0, plan, tight.load[0, plan])
    assert seen.late_share == 1.0
    assert seen.energy_mj == pytest.approx(182 * 2 + 2 + 920 * 8 / 8000 * 0.7 + 260 * 2)


BATCHES = np.array([1, 2, 4], np.int64)


def load_of(fps: float, tail_ms: tuple[float, float, float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    per_frame = np.array(tail_ms) / BATCHES
    return np.concatenate([[fps], fps * per_frame])


def test_wait_of_one_interpreter_is_that_of_an_m_d_1_queue() -> None:
    wait, batch = edge_delay(load_of(40, (10, 20, 40)), BATCHES, 1, 0.0)
    assert wait == pytest.approx(10 * 0.4 / (2 * 0.6))
    assert batch == 0


def test_batches_grow_when_single_frames_would_saturate() -> None:
    wait, batch = edge_delay(load_of(150, (10, 12, 16)), BATCHES, 1, 0.0)
    assert BATCHES[batch] > 1
    assert wait < 100


def test_beyond_saturation_the_wait_grows_by_what_piles_up() -> None:
    waits = [float(edge_delay(load_of(fps, (10, 20, 40)), BATCHES, 1, 0.0)[0]) for fps in (120, 150)]
    assert waits[1] - waits[0] == pytest.approx(0.3 * BACKLOG_HORIZON_MS)
    assert waits[0] > (1.2 - UTILISATION_CAP) * BACKLOG_HORIZON_MS


def test_nobody_serves_without_a_worker() -> None:
    assert edge_delay(load_of(1, (10, 20, 40)), BATCHES, 0, 0.0)[0] == NO_WORKER_MS


def test_a_backlog_is_waited_for() -> None:
    assert edge_delay(load_of(1, (10, 20, 40)), BATCHES, 1, 77.0)[0] == 77.0


@given(st.floats(0.1, 500), st.floats(0, 500), st.floats(0.5, 60), st.floats(0.1, 1.0), st.integers(1, 16))
def test_delay_never_falls_as_frames_are_added(
    fps: float, more: float, tail: float, batching: float, interpreters: int
) -> None:
    """``batching`` 1: a batch takes as long as its frames one by one; lower: it gains."""
    tails = (tail, tail * (1 + batching), tail * (1 + 3 * batching))

    def delay(rate: float) -> float:
        wait, batch = edge_delay(load_of(rate, tails), BATCHES, interpreters, 0.0)
        return float(wait) + tails[int(batch)]

    assert delay(fps + more) >= delay(fps) - 1e-9
    assert delay(fps) >= tail
    faster, _ = edge_delay(load_of(fps, tails), BATCHES, interpreters + 1, 0.0)
    assert np.isfinite(faster)


def test_shares_of_late_and_dropped_frames() -> None:
    at = np.array
    np.testing.assert_allclose(late_share(at([80.0, 100, 120]), at([100.0, 120, 140]), at(100.0)), [0, 0.5, 1])
    np.testing.assert_allclose(dropped_share(at([0.5, 1.0, 2.0])), [0, 0, 0.5])


def test_accuracies_that_do_not_differ_are_all_best() -> None:
    np.testing.assert_array_equal(accuracy_term(np.array([0.8, 0.8])), [1, 1])
    np.testing.assert_allclose(accuracy_term(np.array([0.7, 0.8, 0.9])), [0, 0.5, 1])


def test_profiles_without_end_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policy.costs.MAX_ROWS", 3)
    model = small_model()
    for number in range(10):
        profile = board(heavy_ms=100.0 + number)
        assert model.row(profile).head_ms.max() == 100.0 + number
    assert len(model._rows) <= 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_a_profile_with_a_figure_that_cannot_be_lacks_that_plan(bad: float) -> None:
    heads = tuple(dataclasses.replace(h, head_ms_p95=bad) if h.cut == "s2" else h for h in BOARD.heads)
    model = small_model()
    costs = model.costs(fleet(dataclasses.replace(DEVICE, profile=dataclasses.replace(BOARD, heads=heads))))
    index = model.table.index
    assert not costs.known[0, index[HEAVY_S2]] and costs.known[0, index[HEAVY_LOCAL]]
    assert np.isfinite(costs.together(np.array([index[HEAVY_LOCAL]])).reward).all()
    powerless = dataclasses.replace(DEVICE, profile=dataclasses.replace(BOARD, tx_power_mw=bad))
    assert not model.costs(fleet(powerless)).known.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_an_edge_profile_with_a_figure_that_cannot_be(bad: float) -> None:
    edge = edge_profile()
    tails = tuple(dataclasses.replace(t, batch_ms=((1, bad), (8, 9.0))) if t.cut == "s2" else t for t in edge.tails)
    model = CostModel(small_catalog(), dataclasses.replace(edge, tails=tails))
    assert not model.edge.known[model.table.index[HEAVY_S2]] and model.edge.known[model.table.index[HEAVY_RAW]]
    with pytest.raises(PolicyError, match="overhead_ms"):
        CostModel(small_catalog(), dataclasses.replace(edge, overhead_ms=bad))


@pytest.mark.parametrize("seed", range(8))
def test_what_is_missed_when_the_edge_idles_is_what_the_outlook_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen = random_fleet(rng, 9)
    hasty = tuple(dataclasses.replace(d, deadline_ms=d.deadline_ms / 3, fps=d.fps * 2) for d in seen.devices)
    costs = small_model(90.0).costs(dataclasses.replace(seen, devices=(*seen.devices, *hasty)))
    device, plan = np.arange(18)[:, None], np.arange(len(costs.table))[None]
    expected = costs.outlook(device, plan, np.zeros(()), np.zeros((), np.int64)).misses
    np.testing.assert_array_equal(costs.misses_when_idle(), expected)
    assert 0 < expected.sum() < expected.size


def test_predictions_of_many_are_those_of_each() -> None:
    costs = small_model(90.0).costs(random_fleet(np.random.default_rng(1), 6))
    device, plan = np.arange(6), np.array([0, 1, 2, 3, 4, 5])
    load = costs.total_load(plan) + costs.load_of(device, plan)
    assert costs.predictions(device, plan, load) == [costs.prediction(i, i, load[i]) for i in range(6)]
    np.testing.assert_array_equal(costs.load_of(device, plan), costs.load[device, plan])
    assert costs.predictions(device[:0], plan[:0], load[:0]) == []
