"""The baselines: what each is for, and how near the sequential one comes to the best joint assignment."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.baselines import FixedPlans, Greedy, Sequential, look
from policy.costs import CostModel
from policy.errors import PolicyError
from policy.interface import Choice, DeviceObservation, FleetObservation, Policy, Weights
from policy.mask import Refusal, mask
from policy.registry import make_policy
from tests.policy.builders import (
    CODECS,
    DEVICE,
    EDGE,
    HEAVY_LOCAL,
    HEAVY_RAW,
    HEAVY_S2,
    HEAVY_WEBP,
    LIGHT_LOCAL,
    LIGHT_WEBP,
    alike,
    board,
    fleet,
    small_model,
)
from wire.plan import Plan

MODEL = small_model()
BOARDS = [board(f"board-{ms}", ms) for ms in (90.0, 260.0, 700.0)]
NAMES = ("local", "remote", "greedy", "sequential")


def decide(policy: Policy, seen: FleetObservation, seed: int = 0) -> Mapping[str, Choice]:
    return policy.decide(seen, np.random.default_rng(seed))


def named(name: str, model: CostModel = MODEL) -> Policy:
    return make_policy(name, model, FixedPlans(LIGHT_LOCAL))


def plans(choices: Mapping[str, Choice]) -> list[Plan]:
    return [choice.plan for choice in choices.values()]


def site_reward(model: CostModel, seen: FleetObservation, chosen: list[Plan]) -> float:
    assignment = np.array([model.table.index[p] for p in chosen])
    return float(model.costs(seen).together(assignment).reward.sum())


@st.composite
def sites(draw: st.DrawFn, most: int = 6) -> FleetObservation:
    def device(i: int) -> DeviceObservation:
        weights = draw(st.sampled_from([Weights(), Weights(0.8, 0.1, 0.1), Weights(0, 1, 0), Weights(0.1, 0.1, 0.8)]))
        return dataclasses.replace(
            DEVICE,
            name=f"cam-{i}",
            profile=draw(st.sampled_from([*BOARDS, None])),
            uplink_bps=draw(st.sampled_from([1.3e5, 1.1e6, 5.85e6, 2e7])),
            fps=draw(st.sampled_from([0.0, 1.0, 4.0, 15.0])),
            deadline_ms=draw(st.sampled_from([150.0, 500.0, 1500.0])),
            may_ship_input=draw(st.booleans()),
            codecs=draw(st.sampled_from([CODECS, frozenset({"q2"}), frozenset[str]()])),
            weights=weights,
            current=draw(st.sampled_from([None, *MODEL.table.plans])),
            hold=draw(st.booleans()),
        )

    count = draw(st.integers(1, most))
    workers = draw(st.integers(0, 2))
    edge = dataclasses.replace(EDGE, workers=workers, threads=workers)
    return fleet(*(device(i) for i in range(count)), edge=edge)


@given(sites(), st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_no_policy_picks_a_refused_plan_and_a_seed_fixes_all(seen: FleetObservation, seed: int) -> None:
    masked = mask(seen, MODEL.costs(seen))
    for name in (*NAMES, "fixed"):
        choices = decide(named(name), seen, seed)
        assert list(choices) == [d.name for d in seen.devices]
        for i, choice in enumerate(choices.values()):
            reason = masked.why(i, MODEL.table.index[choice.plan])
            tolerated = {Refusal.ALLOWED} | (
                {Refusal.MISSES_DEADLINE} if name in ("local", "remote", "fixed") else set()
            )
            assert reason in tolerated, name
        assert plans(choices) == plans(decide(named(name), seen, seed))


@given(sites())
@settings(deadline=None, max_examples=30)
def test_names_of_devices_do_not_matter(seen: FleetObservation) -> None:
    renamed = fleet(*(dataclasses.replace(d, name=f"zz-{9 - i}") for i, d in enumerate(seen.devices)), edge=seen.edge)
    for name in NAMES:
        assert plans(decide(named(name), seen)) == plans(decide(named(name), renamed))


@given(sites(most=5).map(lambda s: dataclasses.replace(s, devices=s.devices[::-1])))
@settings(deadline=None, max_examples=30)
def test_the_order_of_devices_does_not_matter_where_each_decides_alone(seen: FleetObservation) -> None:
    other = dataclasses.replace(seen, devices=seen.devices[::-1])
    for name in ("local", "remote", "greedy"):
        assert plans(decide(named(name), seen)) == plans(decide(named(name), other))[::-1]


def test_one_device_alone_gets_the_argmin_of_the_table() -> None:
    seen = fleet(DEVICE)
    costs = MODEL.costs(seen)
    best = max(
        MODEL.table.plans, key=lambda p: site_reward(MODEL, seen, [p]) if costs.known[0, MODEL.table.index[p]] else -9
    )
    assert plans(decide(named("greedy"), seen)) == [best]
    assert plans(decide(named("sequential"), seen)) == [best]


def test_local_takes_the_best_version_that_keeps_up() -> None:
    accurate = Weights(0.9, 0.05, 0.05)
    easy = dataclasses.replace(DEVICE, weights=accurate)
    hurried = dataclasses.replace(easy, name="cam-2", fps=6.0)
    choices = decide(named("local"), fleet(easy, hurried))
    assert plans(choices) == [HEAVY_LOCAL, LIGHT_LOCAL]


def test_local_stays_local_when_only_the_edge_would_meet_the_deadline() -> None:
    slow = dataclasses.replace(DEVICE, profile=board("slow", 5000.0), deadline_ms=200.0)
    assert decide(named("local"), fleet(slow))["cam-1"].plan.is_local


def test_remote_ships_the_frame_with_the_best_codec() -> None:
    assert plans(decide(named("remote"), fleet(DEVICE, dataclasses.replace(DEVICE, name="b", uplink_bps=1.1e6)))) == [
        HEAVY_WEBP,
        HEAVY_WEBP,
    ]
    private = dataclasses.replace(DEVICE, may_ship_input=False)
    assert not decide(named("remote"), fleet(private))["cam-1"].plan.ships_input


def test_fixed_follows_the_operator_unless_it_cannot_be() -> None:
    policy = make_policy("fixed", MODEL, FixedPlans(HEAVY_RAW, {"cam-2": HEAVY_S2}))
    seen = fleet(
        DEVICE, dataclasses.replace(DEVICE, name="cam-2"), dataclasses.replace(DEVICE, name="x", may_ship_input=False)
    )
    choices = decide(policy, seen)
    assert plans(choices)[:2] == [HEAVY_RAW, HEAVY_S2]
    assert not choices["x"].plan.ships_input
    with pytest.raises(PolicyError, match="no plan resnet/input/gif"):
        make_policy("fixed", MODEL, FixedPlans(Plan("resnet", "input", "gif")))
    with pytest.raises(PolicyError, match="needs a plan"):
        make_policy("fixed", MODEL, FixedPlans())


def test_unknown_policy_names_those_there_are() -> None:
    with pytest.raises(PolicyError, match="fixed, local, remote, greedy, sequential"):
        make_policy("magic", MODEL, FixedPlans())


SLOW_EDGE = small_model(edge_heavy_ms=120.0)


@pytest.mark.parametrize("count", [2, 4, 8, 16])
def test_greedy_herds_and_sequential_does_not(count: int) -> None:
    seen = fleet(*alike(count))
    greedy = plans(decide(Greedy(SLOW_EDGE), seen))
    sequential = plans(decide(Sequential(SLOW_EDGE), seen))
    assert len(set(greedy)) == 1
    assert site_reward(SLOW_EDGE, seen, sequential) >= site_reward(SLOW_EDGE, seen, greedy) - 1e-9
    if count >= 8:
        assert site_reward(SLOW_EDGE, seen, sequential) > site_reward(SLOW_EDGE, seen, greedy) + 0.1 * count


@given(
    sites().map(
        lambda s: dataclasses.replace(s, devices=tuple(dataclasses.replace(d, current=None) for d in s.devices))
    )
)
@settings(deadline=None, max_examples=60)
def test_sequential_is_never_below_greedy(seen: FleetObservation) -> None:
    ours = site_reward(MODEL, seen, plans(decide(Sequential(MODEL), seen)))
    assert ours >= site_reward(MODEL, seen, plans(decide(Greedy(MODEL), seen))) - 1e-9


def test_sequential_gives_way_to_a_neighbour_that_greed_would_swamp() -> None:
    """A patient device gains by sending heavy frames; the 120 ms each takes would make an urgent neighbour late.

    For the site the patient one must step aside, although nothing in its own reward tells it to.
    """
    patient = dataclasses.replace(
        DEVICE,
        name="patient",
        fps=7.5,
        deadline_ms=20_000.0,
        weights=Weights(0.3, 0.0, 0.7),
        codecs=frozenset({"webp50"}),
    )
    urgent = dataclasses.replace(
        DEVICE, name="urgent", fps=1.0, weights=Weights(0.0, 1.0, 0.0), profile=board("slow", 3000.0)
    )
    alone = decide(Sequential(SLOW_EDGE), fleet(patient))["patient"].plan
    assert alone == HEAVY_WEBP
    both = fleet(patient, urgent)
    for seed in range(4):
        chosen = decide(Sequential(SLOW_EDGE), both, seed)
        assert chosen["patient"].plan != alone
        assert not chosen["urgent"].plan.is_local
        assert chosen["urgent"].predicted is not None
        assert chosen["urgent"].predicted.late_share == 0


def crowded_site(seed: int) -> FleetObservation:
    """Three devices with four plans each before one slow interpreter."""
    rng = np.random.default_rng(seed)
    kinds = [Weights(), Weights(0.8, 0.1, 0.1), Weights(0.1, 0.1, 0.8)]
    return fleet(
        *(
            dataclasses.replace(
                DEVICE,
                name=f"cam-{i}",
                profile=BOARDS[rng.integers(3)],
                uplink_bps=[1.1e6, 5.85e6, 2e7][rng.integers(3)],
                fps=[2.0, 6.0][rng.integers(2)],
                weights=kinds[rng.integers(3)],
                codecs=frozenset({"q2", "webp50"}),
            )
            for i in range(3)
        )
    )


def test_the_best_joint_assignment_bounds_sequential_and_is_near() -> None:
    gaps = {"sequential": 0.0, "greedy": 0.0}
    sites_tried = 40
    for seed in range(sites_tried):
        seen = crowded_site(seed)
        scene = look(SLOW_EDGE, seen)
        options = [[SLOW_EDGE.table.plans[j] for j in scene.masked.plans(i)] for i in range(3)]
        oracle = max(site_reward(SLOW_EDGE, seen, list(joint)) for joint in itertools.product(*options))
        for name in gaps:
            gap = oracle - site_reward(SLOW_EDGE, seen, plans(decide(named(name, SLOW_EDGE), seen, seed)))
            assert gap >= -1e-9
            gaps[name] += gap / sites_tried
    assert gaps["sequential"] < 0.05
    assert gaps["greedy"] > 5 * gaps["sequential"]


def test_a_settled_site_stays_where_it_is() -> None:
    """Equal optima must not alternate from period to period, whatever the order of turns."""
    seen = fleet(*alike(8))
    chosen = plans(decide(Sequential(SLOW_EDGE), seen, seed=1))
    for seed in range(5):
        again = fleet(*(dataclasses.replace(d, current=p) for d, p in zip(seen.devices, chosen, strict=True)))
        assert plans(decide(Sequential(SLOW_EDGE), again, seed)) == chosen


def test_what_a_choice_tells() -> None:
    seen = fleet(dataclasses.replace(DEVICE, current=LIGHT_WEBP, weights=Weights(0.8, 0.1, 0.1)))
    choice = decide(Sequential(MODEL), seen)["cam-1"]
    assert choice.plan == HEAVY_WEBP
    assert choice.predicted is not None and choice.staying is not None
    assert choice.gain == pytest.approx(choice.predicted.reward - choice.staying.reward)
    assert choice.refused == ""
    gone = fleet(seen.devices[0], edge=dataclasses.replace(EDGE, workers=0, threads=0))
    forced = decide(Sequential(MODEL), gone)["cam-1"]
    assert math.isinf(forced.gain)
    assert forced.refused == "no edge worker is ready"


def test_an_empty_site_needs_no_decision() -> None:
    for name in NAMES:
        assert decide(named(name), fleet()) == {}
