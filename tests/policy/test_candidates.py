"""The few plans worth a look: none that may not be told, none missing that could be best."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from policy.baselines import look
from policy.candidates import Sieve
from policy.interface import DeviceObservation
from tests.policy.builders import (
    DEVICE,
    EDGE,
    HEAVY_LOCAL,
    HEAVY_RAW,
    HEAVY_S2,
    LIGHT_LOCAL,
    alike,
    board,
    fleet,
    small_model,
)
from tests.policy.sites import random_fleet
from wire.plan import Plan

MODEL = small_model(90.0)


def sieved(*devices: DeviceObservation) -> list[set[Plan]]:
    """The plans that are candidates of each device."""
    scene = look(MODEL, fleet(*devices))
    found = Sieve(MODEL).candidates(scene)
    plans = MODEL.table.plans
    return [
        {plans[column] for column, there in zip(columns, allowed, strict=True) if there}
        for columns, allowed in zip(found.columns, found.batch.allowed[0], strict=True)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_edge_is_like_the_best_plan_is_among_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen = random_fleet(rng, 6)
    scene = look(MODEL, seen)
    costs = scene.costs
    found = Sieve(MODEL).candidates(scene)
    for wait_ms in (0.0, 30.0, 200.0, 2000.0):
        for size in range(len(costs.batches)):
            for device in range(6):
                allowed = scene.masked.plans(device)
                worth = costs.outlook(device, allowed, np.array(wait_ms), np.array(size)).reward
                few = found.columns[device][found.batch.allowed[0, device]]
                best = costs.outlook(device, few, np.array(wait_ms), np.array(size)).reward.max()
                assert set(few) <= set(allowed)
                assert best == pytest.approx(float(worth.max()), abs=1e-9)


def test_a_plan_that_another_beats_is_left_out_unless_it_is_followed() -> None:
    worse = dataclasses.replace(DEVICE, name="cam-2", current=HEAVY_RAW)
    light, followed = sieved(dataclasses.replace(DEVICE, profile=board(heavy_ms=20.0)), worse)
    assert HEAVY_RAW in followed
    assert all(plan in light for plan in (HEAVY_LOCAL, LIGHT_LOCAL))


def test_a_plan_that_is_followed_but_refused_is_no_candidate() -> None:
    private = dataclasses.replace(DEVICE, current=HEAVY_RAW, may_ship_input=False)
    scene = look(MODEL, fleet(private))
    found = Sieve(MODEL).candidates(scene)
    assert found.current.tolist() == [[-1]]
    assert sieved(private)[0] <= {HEAVY_S2, HEAVY_LOCAL, LIGHT_LOCAL}


def test_a_held_device_has_its_plan_alone_and_a_nameless_one_a_local_plan() -> None:
    held = dataclasses.replace(DEVICE, name="held", current=HEAVY_S2, hold=True)
    nameless = dataclasses.replace(DEVICE, name="nameless", profile=None)
    assert sieved(held, nameless) == [{HEAVY_S2}, {LIGHT_LOCAL}]


def test_what_fills_up_is_not_allowed_and_has_figures_of_the_device() -> None:
    held = dataclasses.replace(DEVICE, name="held", current=HEAVY_S2, hold=True)
    scene = look(MODEL, fleet(held, DEVICE))
    batch = Sieve(MODEL).candidates(scene).batch
    assert batch.allowed[0, 0].sum() == 1 < batch.allowed[0, 1].sum()
    assert np.unique(batch.own_ms[0, 0]).size == 1


def test_columns_lead_back_to_plans() -> None:
    scene = look(MODEL, fleet(*alike(3, dataclasses.replace(DEVICE, current=HEAVY_S2))))
    found = Sieve(MODEL).candidates(scene)
    assert [MODEL.table.plans[i] for i in found.plans(found.current)] == [HEAVY_S2] * 3


def test_a_profile_that_takes_anothers_place_in_memory_is_looked_at_anew() -> None:
    sieve = Sieve(MODEL)
    for ms in range(200, 260):
        scene = look(MODEL, fleet(dataclasses.replace(DEVICE, profile=board(heavy_ms=float(ms)))))
        sieve.candidates(scene)
    assert all(id(profile) == key[0] for key, (profile, _) in sieve._kinds.items())
    assert len(sieve._kinds) == 60


def test_the_mask_of_a_moment_is_not_a_kind() -> None:
    sieve = Sieve(MODEL)
    for uplink_bps in np.geomspace(1e4, 1e8, 40):
        seen = [dataclasses.replace(d, uplink_bps=float(uplink_bps), deadline_ms=150.0) for d in alike(3)]
        sieve.candidates(look(MODEL, fleet(*seen, edge=EDGE)))
    assert len(sieve._kinds) == 1
