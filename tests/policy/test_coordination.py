"""Turns and prices do what they promise, on random sites."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from policy.coordination import Turn, for_the_site, look_at, pace, price, pricing_and_sweep, sequential, take_turns
from policy.references.starts import alone_on_edge, best_local
from tests.policy.sites import random_plans, random_site

SEEDS = range(10)
SMALL = 0.02
"""Of a site's sum: interpolation between waits."""


@pytest.mark.parametrize("seed", SEEDS)
def test_turns_never_lower_the_sum(seed: int) -> None:
    _, batch = random_site(seed, devices=8)
    rng = np.random.default_rng(seed)
    plans = random_plans(batch, rng)
    for _ in range(3):
        before = float(batch.together(plans).sum())
        plans = take_turns(batch, plans, for_the_site, rng)
        assert float(batch.together(plans).sum()) >= before - SMALL


@pytest.mark.parametrize("seed", SEEDS)
def test_turns_choose_among_what_is_allowed_and_everybody_once(seed: int) -> None:
    _, batch = random_site(seed, devices=9)
    rng = np.random.default_rng(seed)
    allowed = batch.allowed & ((rng.random(batch.shape) < 0.5) | batch.local)
    some = dataclasses.replace(batch, allowed=allowed)
    asked: list[int] = []

    def note(turn: Turn, scores: np.ndarray, plans: np.ndarray) -> None:  # type: ignore[type-arg]
        asked.extend(turn.chosen[0].tolist())

    plans = take_turns(some, best_local(some), for_the_site, rng, turns=4, on_turn=note)
    assert sorted(asked) == list(range(9))
    assert some.pick(allowed, plans).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_pricing_and_turns_beat_the_herd_on_a_narrow_edge(seed: int) -> None:
    _, batch = random_site(seed, devices=12, edge_heavy_ms=250.0)
    rng = np.random.default_rng(seed)
    herd = float(batch.together(alone_on_edge(batch)).sum())
    assert float(batch.together(price(batch).assignment).sum()) >= herd - SMALL
    swept = pricing_and_sweep(batch, rng).assignment
    settled = sequential(batch, alone_on_edge(batch), rng)
    assert float(batch.together(swept).sum()) >= float(batch.together(price(batch).assignment).sum()) - SMALL
    assert float(batch.together(settled).sum()) >= herd - SMALL


def test_a_free_edge_costs_nothing_and_a_narrow_one_something() -> None:
    _, free = random_site(0, devices=2, edge_heavy_ms=60.0)
    _, narrow = random_site(0, devices=12, edge_heavy_ms=120.0)
    assert price(free).price.tolist() == [0.0]
    assert price(free).battery_price.tolist() == [[0.0] * 2]
    assert price(narrow).price[0] > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_pacing_keeps_to_the_budget_where_any_plan_does(seed: int) -> None:
    _, batch = random_site(seed, devices=8)
    burn = np.where(batch.allowed, batch.energy_mj * batch.fps[..., None], np.inf)
    least = burn.min(axis=-1)
    rng = np.random.default_rng(seed)
    budget = (least * np.exp(rng.uniform(0.05, 3, least.shape))).astype(np.float32)
    prices = pace(batch, budget)
    worth = np.where(batch.allowed, batch.rewards(np.zeros(1, np.float32), np.zeros(1, np.int64)), np.float32(-1e9))
    chosen = np.argmax(worth - prices[..., None] * batch.energy_mj, axis=-1)
    assert (batch.pick(burn, chosen) <= budget * 1.0001).all()
    lasting = batch.pick(burn, alone_on_edge(batch)) <= budget
    assert (prices[lasting] == 0).all()
    assert (prices[~lasting] > 0).all()


def test_a_battery_without_end_has_no_price() -> None:
    _, batch = random_site(2, devices=3)
    budget = np.full((1, 3), np.inf, np.float32)
    assert price(batch, budget).battery_price.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("seed", range(4))
def test_several_sites_at_once_are_what_each_is_alone(seed: int) -> None:
    """Looking at two sites stacked gives the numbers of each."""
    _, one = random_site(seed, devices=5)
    _, two = random_site(seed + 100, devices=5)
    names = [field.name for field in dataclasses.fields(one) if field.name != "batches"]
    both = dataclasses.replace(one, **{n: np.concatenate([getattr(one, n), getattr(two, n)]) for n in names})
    plans = random_plans(both, np.random.default_rng(seed))
    everybody = np.tile(np.arange(5), (2, 1))
    together = look_at(both, plans, everybody)
    for s, site in enumerate((one, two)):
        alone = look_at(site, plans[s : s + 1], everybody[:1])
        assert together.own[0][s] == pytest.approx(alone.own[0][0], abs=1e-5)
        assert together.others[0][s] == pytest.approx(alone.others[0][0], abs=1e-4)
    assert price(both).price == pytest.approx([float(price(s).price[0]) for s in (one, two)], abs=1e-5)
