"""Pricing and the learned policy on observed sites: every plan may be told, whatever the site is like."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.actor import Actor
from policy.baselines import FixedPlans, look
from policy.costs import CostModel
from policy.features import PLAN_FEATURES, STATE
from policy.interface import Choice, DeviceObservation, EdgeObservation, FleetObservation, Policy, Weights
from policy.learned import Learned, Pricing
from policy.mask import Refusal
from policy.registry import make_policy
from tests.policy.builders import (
    DEVICE,
    EDGE,
    HEAVY_LOCAL,
    HEAVY_S2,
    HEAVY_WEBP,
    LIGHT_LOCAL,
    LIGHT_WEBP,
    alike,
    catalog,
    edge_profile,
    fleet,
    small_catalog,
    small_model,
)
from tests.policy.sites import random_fleet
from wire.plan import Plan

MODEL = small_model(90.0)
NOBODY = EdgeObservation(workers=0, threads=0, versions=frozenset())


def network(scale: float) -> Actor:
    """A network with one hidden layer; 0: untrained."""
    rng = np.random.default_rng(3)
    inner, outer = rng.normal(0, 0.3, (len(STATE), 8)), rng.normal(0, scale, (8, len(PLAN_FEATURES)))
    layers = ((inner, np.zeros(8)), (outer, np.zeros(len(PLAN_FEATURES))))
    return Actor(tuple((w.astype(np.float32), b.astype(np.float32)) for w, b in layers), {})


MAKERS: Mapping[str, Callable[[CostModel], Policy]] = {
    "pricing": Pricing,
    "untrained": lambda model: Learned(model, network(0.0)),
    "random weights": lambda model: Learned(model, network(0.5)),
    "shipped": lambda model: make_policy("a2c", model, FixedPlans()),
}
every_policy = pytest.mark.parametrize("kind", MAKERS)


def decided(policy: Policy, seen: FleetObservation, seed: int = 0, model: CostModel = MODEL) -> Mapping[str, Choice]:
    """Decide and check what holds for every choice."""
    choices = policy.decide(seen, np.random.default_rng(seed))
    assert list(choices) == [device.name for device in seen.devices]
    scene = look(model, seen)
    for i, device in enumerate(seen.devices):
        choice = choices[device.name]
        assert scene.masked.why(i, model.table.index[choice.plan]) is Refusal.ALLOWED
        assert not math.isnan(choice.gain) and choice.gain > -math.inf
        if scene.current[i] < 0 or not scene.is_allowed(i, int(scene.current[i])):
            assert choice.gain == math.inf
        if choice.plan == device.current:
            assert choice.predicted is None
        elif scene.costs.known[i, model.table.index[choice.plan]]:
            assert choice.predicted is not None and math.isfinite(choice.predicted.reward)
    return choices


def plans(choices: Mapping[str, Choice]) -> list[Plan]:
    return [choice.plan for choice in choices.values()]


SITES = {
    "one device": fleet(DEVICE),
    "nobody knows the link": fleet(dataclasses.replace(DEVICE, uplink_known=False, telemetry_age_ms=None)),
    "closed loop": fleet(*alike(3, dataclasses.replace(DEVICE, fps=0.0))),
    "no worker": fleet(*alike(3), edge=NOBODY),
    "a crowd": fleet(*alike(40)),
    "an edge far behind": fleet(*alike(3), edge=dataclasses.replace(EDGE, backlog_ms=5e4, utilisation=1.0)),
    "an edge that idles": fleet(*alike(3), edge=dataclasses.replace(EDGE, utilisation=0.0, calibration=0.25)),
    "hopeless deadline": fleet(dataclasses.replace(DEVICE, deadline_ms=1.0)),
    "saturated board": fleet(dataclasses.replace(DEVICE, fps=1000.0)),
    "slowest and fastest link": fleet(
        dataclasses.replace(DEVICE, name="slow", uplink_bps=1e3, rtt_ms=60_000.0),
        dataclasses.replace(DEVICE, name="fast", uplink_bps=1e11, rtt_ms=0.0),
    ),
    "accuracy alone": fleet(dataclasses.replace(DEVICE, weights=Weights(1.0, 0.0, 0.0))),
    "empty battery": fleet(dataclasses.replace(DEVICE, battery_share=0.0, battery_mj=0.0, horizon_s=3600.0)),
    "battery past its horizon": fleet(dataclasses.replace(DEVICE, battery_share=0.5, battery_mj=1e6, horizon_s=0.0)),
    "below the floor": fleet(dataclasses.replace(DEVICE, battery_share=0.1, battery_floor=0.2)),
    "a plan of another catalog": fleet(dataclasses.replace(DEVICE, current=Plan("gone", "s9", "q2"))),
    "held on a plan of another catalog": fleet(
        dataclasses.replace(DEVICE, current=Plan("gone", "s9", "q2"), hold=True)
    ),
    "old news": fleet(dataclasses.replace(DEVICE, telemetry_age_ms=1e9, uplink_age_ms=1e9, late_share=1.0)),
    "refuses everything": fleet(dataclasses.replace(DEVICE, refuses=frozenset(MODEL.table.plans), current=HEAVY_S2)),
    "holds nothing": fleet(dataclasses.replace(DEVICE, versions=frozenset(), codecs=frozenset())),
}


@every_policy
@pytest.mark.parametrize("site", SITES)
def test_whatever_the_site_is_like_every_plan_may_be_told(kind: str, site: str) -> None:
    policy = MAKERS[kind](MODEL)
    for seed in range(3):  # what is remembered of the first round must not spoil the next
        decided(policy, SITES[site], seed)


@every_policy
def test_nobody_is_no_decision(kind: str) -> None:
    assert MAKERS[kind](MODEL).decide(fleet(), np.random.default_rng(0)) == {}


@every_policy
def test_a_catalog_of_one_plan(kind: str) -> None:
    only = small_catalog().folder("light").version
    model = CostModel(catalog(dataclasses.replace(only, plans=only.plans[1:])), edge_profile())
    assert plans(decided(MAKERS[kind](model), fleet(*alike(3)), model=model)) == [LIGHT_LOCAL] * 3


@every_policy
def test_without_workers_everybody_works_alone(kind: str) -> None:
    assert all(plan.is_local for plan in plans(decided(MAKERS[kind](MODEL), fleet(*alike(5), edge=NOBODY))))


@every_policy
def test_a_held_device_stays_and_its_load_counts(kind: str) -> None:
    held = dataclasses.replace(DEVICE, fps=30.0, current=HEAVY_WEBP, hold=True)
    crowd = tuple(dataclasses.replace(held, name=f"held-{i}") for i in range(4))
    choices = decided(MAKERS[kind](MODEL), fleet(*crowd, dataclasses.replace(DEVICE, weights=Weights(0.1, 0.8, 0.1))))
    assert plans(choices)[:4] == [HEAVY_WEBP] * 4
    if kind in ("pricing", "untrained"):  # the edge is full with them: light and alone is quickest
        assert choices["cam-1"].plan == LIGHT_LOCAL


@pytest.mark.parametrize("kind", ["pricing", "untrained"])
@pytest.mark.parametrize("seed", range(6))
def test_a_device_nobody_profiled_changes_nothing_for_the_others(kind: str, seed: int) -> None:
    """It is on a local plan, and nothing is known of it that could be weighed."""
    seen = random_fleet(np.random.default_rng(seed), 5)
    nameless = dataclasses.replace(DEVICE, name="nameless", profile=None, fps=50.0, deadline_ms=200.0)
    alone = decided(MAKERS[kind](MODEL), seen)
    beside = decided(MAKERS[kind](MODEL), dataclasses.replace(seen, devices=(*seen.devices, nameless)))
    assert beside["nameless"].plan == LIGHT_LOCAL and beside["nameless"].predicted is None
    assert _worth(seen, beside) == pytest.approx(_worth(seen, alone), abs=0.02 * 5)


def _worth(seen: FleetObservation, choices: Mapping[str, Choice]) -> float:
    costs = MODEL.costs(seen)
    assignment = np.array([MODEL.table.index[choices[device.name].plan] for device in seen.devices])
    return float(costs.together(assignment).reward.sum())


@pytest.mark.parametrize("kind", ["pricing", "untrained"])
@pytest.mark.parametrize("seed", range(8))
def test_untrained_it_is_about_as_good_as_taking_turns_exactly(kind: str, seed: int) -> None:
    seen = random_fleet(np.random.default_rng(100 + seed), 12)
    exact = _worth(seen, make_policy("sequential", MODEL, FixedPlans()).decide(seen, np.random.default_rng(0)))
    assert _worth(seen, decided(MAKERS[kind](MODEL), seen)) > exact - 0.02 * 12


@pytest.mark.parametrize("kind", ["pricing", "untrained", "shipped"])
def test_a_crowd_does_not_herd(kind: str) -> None:
    """One device alone goes to the edge; forty of a kind leave it to some."""
    hasty = dataclasses.replace(DEVICE, weights=Weights(0.5, 0.4, 0.1), fps=5.0)
    policy = MAKERS[kind](MODEL)
    assert not plans(decided(policy, fleet(hasty)))[0].is_local
    remote = sum(not plan.is_local for plan in plans(decided(MAKERS[kind](MODEL), fleet(*alike(40, hasty)))))
    assert 0 < remote < 40


def test_the_gain_is_what_the_site_wins_by_one_move() -> None:
    choices = decided(Pricing(MODEL), fleet(dataclasses.replace(DEVICE, current=LIGHT_WEBP)))
    choice = choices["cam-1"]
    assert choice.predicted is not None and choice.staying is not None
    assert choice.gain == pytest.approx(choice.predicted.reward - choice.staying.reward, abs=1e-3)


def test_who_stays_gains_nothing() -> None:
    seen = fleet(*alike(4))
    settled = decided(Pricing(MODEL), seen)
    again = tuple(dataclasses.replace(d, current=settled[d.name].plan) for d in seen.devices)
    for kind in ("pricing", "untrained"):
        for choice, device in zip(decided(MAKERS[kind](MODEL), fleet(*again)).values(), again, strict=True):
            if choice.plan == device.current:
                assert choice.gain == pytest.approx(0.0, abs=1e-4)


@every_policy
def test_a_battery_that_must_last_turns_to_the_plan_it_affords(kind: str) -> None:
    accurate = dataclasses.replace(DEVICE, weights=Weights(1.0, 0.0, 0.0), versions=frozenset({"heavy"}))
    # Heavy at home takes 520 mJ a frame, its cut 364 and more; a picture sent much less.
    poor = dataclasses.replace(accurate, battery_share=0.5, battery_mj=3600 * 50.0, horizon_s=3600.0)
    assert plans(decided(MAKERS[kind](MODEL), fleet(poor)))[0].ships_input


class TestMemory:
    """Devices that join and leave between two rounds."""

    def test_each_keeps_what_is_remembered_of_it_wherever_it_stands(self) -> None:
        policy = Learned(MODEL, network(0.0))
        seen = random_fleet(np.random.default_rng(1), 6)
        for _ in range(5):
            decided(policy, seen)
        before = {d.name: float(policy._memory.usual[0, i]) for i, d in enumerate(seen.devices)}
        stranger = dataclasses.replace(DEVICE, name="new", uplink_bps=5e5)
        left = (seen.devices[4], stranger, seen.devices[1])
        decided(policy, dataclasses.replace(seen, devices=left))
        after = policy._memory.usual[0]
        assert after.shape == (3,)
        assert after == pytest.approx([before["cam-4"], math.log(5e5), before["cam-1"]])

    def test_everybody_leaves_and_others_come(self) -> None:
        policy = Learned(MODEL, network(0.5))
        decided(policy, fleet(*alike(3)))
        decided(policy, fleet())
        decided(policy, fleet(dataclasses.replace(DEVICE, name="other", uplink_bps=1e5)))
        assert policy._memory.usual[0] == pytest.approx([math.log(1e5)])

    def test_a_long_history_of_comings_and_goings_leaves_finite_figures(self) -> None:
        policy, rng = Learned(MODEL, network(0.5)), np.random.default_rng(0)
        for _ in range(40):
            some = random_fleet(rng, int(rng.integers(1, 7)))
            kept = tuple(d for d in some.devices if rng.random() < 0.7) or some.devices[:1]
            decided(policy, dataclasses.replace(some, devices=kept))
            memory = policy._memory
            for figure in (memory.usual, memory.unrest, memory.worst, memory.last, memory.rate, memory.late):
                assert figure.shape == (1, len(kept)) and np.isfinite(figure).all()


@pytest.mark.parametrize("figure", ["late_share", "battery_mj", "telemetry_age_ms", "uplink_age_ms"])
def test_what_is_no_number_spoils_at_most_that_device(figure: str) -> None:
    """Of figures beside the cost model's own, which the fleet replaces before anybody sees them."""
    broken = dataclasses.replace(DEVICE, name="broken", horizon_s=3600.0, **{figure: math.nan})  # type: ignore[arg-type]
    seen = fleet(*alike(3), broken)
    with np.errstate(all="ignore"):
        choices = Learned(MODEL, network(0.0)).decide(seen, np.random.default_rng(0))
    assert all(math.isfinite(choices[f"cam-{i}"].gain) or choices[f"cam-{i}"].gain == math.inf for i in range(3))
    assert plans(choices)[:3] == plans(Learned(MODEL, network(0.0)).decide(fleet(*alike(3)), np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"uplink_bps": 2e3}, "uplink bps 2000 is outside the trained range"),
        ({"rtt_ms": 5e3}, "rtt ms 5000"),
        ({"fps": 500.0}, "fps 500"),
        ({"deadline_ms": 1.0}, "deadline ms 1 "),
        ({}, ""),
    ],
)
def test_what_lies_outside_the_trained_range_is_told(changes: dict[str, float], words: str) -> None:
    odd = dataclasses.replace(DEVICE, name="odd", **changes)  # type: ignore[arg-type]
    told = Learned(MODEL, network(0.0)).outside(fleet(DEVICE, odd))
    assert list(told) == (["odd"] if words else [])
    assert told.get("odd", "").startswith(words)


device = st.builds(
    DeviceObservation,
    name=st.just("cam"),
    profile=st.sampled_from([DEVICE.profile, None]),
    versions=st.sets(st.sampled_from(["heavy", "light"])).map(frozenset),
    codecs=st.sets(st.sampled_from(["q2", "raw8", "webp50"])).map(frozenset),
    weights=st.sampled_from([Weights(), Weights(1.0, 0.0, 0.0), Weights(0.0, 1.0, 0.0), Weights(0.0, 0.0, 1.0)]),
    deadline_ms=st.floats(1, 600_000),
    fps=st.floats(0, 1000),
    uplink_bps=st.floats(1e3, 1e11),
    rtt_ms=st.floats(0, 60_000),
    calibration=st.floats(0.05, 50),
    telemetry_age_ms=st.none() | st.floats(0, 1e9),
    battery_share=st.none() | st.floats(0, 1),
    battery_floor=st.floats(0, 1),
    may_ship_input=st.booleans(),
    current=st.none() | st.sampled_from([HEAVY_LOCAL, HEAVY_S2, HEAVY_WEBP, LIGHT_LOCAL]),
    hold=st.booleans(),
    battery_mj=st.none() | st.floats(0, 1e12),
    horizon_s=st.none() | st.floats(0, 1e9),
    uplink_age_ms=st.none() | st.floats(0, 1e9),
    late_share=st.none() | st.floats(0, 1),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(device, min_size=1, max_size=5),
    st.integers(0, 3),
    st.floats(0, 1),
    st.floats(0.25, 4),
    st.floats(0, 1e6),
)
def test_any_site_that_can_be_observed(
    devices: list[DeviceObservation], threads: int, busy: float, calibration: float, backlog_ms: float
) -> None:
    named = tuple(dataclasses.replace(d, name=f"cam-{i}") for i, d in enumerate(devices))
    edge = EdgeObservation(min(threads, 1), threads, EDGE.versions, busy, calibration, backlog_ms)
    for kind in ("pricing", "random weights"):
        policy = MAKERS[kind](MODEL)
        decided(policy, FleetObservation(named, edge))
        decided(policy, FleetObservation(named[::-1], edge))
