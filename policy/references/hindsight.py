"""Policies that know the whole episode before it begins."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np

from policy.batch import NOTHING, Batch, Index, Reals
from policy.coordination import pricing_and_sweep, sequential, take_turns
from policy.references.oracles import less
from policy.references.starts import alone_on_edge, idle_rewards
from policy.reward import DROP_PENALTY
from policy.simulation.world import Outcome, Seen, World
from policy.table import Array

SAMPLES = 8
"""Periods on which plans that everybody follows are compared, before the best are played."""
FINALISTS = 3


def replay(world: World, plans: Index) -> Array:
    """Play plans [T, F, N] or [F, N] in a copy of a fresh world; return the sum of rewards [F, N]."""
    fork = copy.copy(world)  # its state is replaced from period to period, never changed in place
    reward: Array = np.zeros(plans.shape[-2:])
    while not fork.over:
        reward += fork.step(plans if plans.ndim == 2 else plans[fork.t]).reward
    return reward


def at(world: World, t: int) -> Batch:
    """Return the true costs of a period, without what earlier ones leave behind."""
    trace, hardware = world.traces, world.hardware
    return hardware.costs(
        trace.uplink_bps[t], trace.rtt_ms, trace.fps[t], np.zeros(world.fleets), hardware.edge_truth.astype(np.float64)
    )


class BestStatic:
    """The best plan per device that never changes, chosen in hindsight: an honest operator can do no better by hand.

    Candidates are one plan for the whole site, and a plan per device that suits the episode's mean conditions (uplinks
    taken at their geometric or harmonic mean); each is played in a copy of the world and the best kept, fleet by fleet.
    """

    name = "best_static"

    def begin(self, world: World) -> None:
        """Play the candidates."""
        rng = np.random.default_rng(0)
        best = np.full(world.fleets, -np.inf)
        self._chosen = np.zeros((world.fleets, world.scenario.devices), np.int64)
        for candidate in _candidates(world, rng):
            total = replay(world, candidate).sum(axis=1)
            self._chosen = np.where((total > best)[:, None], candidate, self._chosen)
            best = np.maximum(total, best)

    def act(self, world: World, seen: Seen, rng: np.random.Generator) -> Index:  # noqa: ARG002
        """Never change."""
        return self._chosen

    def learn(self, outcome: Outcome) -> None:
        """Nothing to learn."""


def _candidates(world: World, rng: np.random.Generator) -> Iterator[Index]:
    for plan in _for_everybody(world):
        yield np.repeat(plan[:, None], world.scenario.devices, axis=1)
    trace, hardware = world.traces, world.hardware
    rate = trace.fps.mean(axis=0)
    day_s = world.scenario.periods * world.scenario.period_s
    for uplink in (np.exp(np.log(trace.uplink_bps).mean(axis=0)), 1 / (1 / trace.uplink_bps).mean(axis=0)):
        mean = hardware.costs(
            uplink, trace.rtt_ms, rate, np.zeros(world.fleets), hardware.edge_truth.astype(np.float64)
        )
        budget = (world.battery_mj / day_s).astype(np.float32)
        yield sequential(mean, alone_on_edge(mean), rng, passes=3)
        yield pricing_and_sweep(mean, rng, budget, sweeps=2).assignment


def _for_everybody(world: World) -> list[Index]:
    """Return the plans [F] that do best when the whole site follows one, on periods spread over the episode."""
    fleets, devices, plans = world.hardware.allowed.shape
    worth, power = np.zeros((2, fleets, devices, plans))
    times = np.unique(np.linspace(0, world.scenario.periods - 1, SAMPLES).astype(int))
    for t in times:
        batch = at(world, int(t))
        power += batch.energy_mj * batch.fps[..., None] / len(times)
        for plan in range(plans):
            worth[..., plan] += batch.together(np.full((fleets, devices), plan)) / len(times)
    day_s = world.scenario.periods * world.scenario.period_s
    alive = np.minimum(1, world.battery_mj[..., None] / np.maximum(power * day_s, 1e-9))
    total = (alive * worth - (1 - alive) * DROP_PENALTY).sum(axis=1)
    return list(np.argsort(-np.where(world.hardware.allowed[:, 0], total, NOTHING), axis=1)[:, :FINALISTS].T)


ROUNDS = 12
"""Whole days played to find the prices of energy."""
STEP = 1.6
"""By which the logarithm of a price moves at first."""
SHRINK = 0.8
FULL = 0.995
"""Share of the charge that a day may take: what backlogs cost beyond the plan is not known before."""


class OracleBattery:
    """Plans a whole day on batteries, knowing it: one constant price per device for energy, periods otherwise apart.

    This is the Lagrangian of the day's linear programme: with the price at which a battery is just used up, taking the
    best of reward less price × energy in every period is optimal for the day, up to the one plan that does not divide.
    All prices are searched at once over whole days, by steps that shrink like a bisection's, because devices share an
    edge; the best day found is played. It can be reached, so the true optimum lies at or above it. Oracles of one
    period do not bound a day on batteries.
    """

    name = "oracle_battery"

    def begin(self, world: World) -> None:
        """Find the prices and the plans of the day [T, F, N]."""
        rng = np.random.default_rng(0)
        days = [at(world, t) for t in range(world.scenario.periods)]
        plans = np.stack([alone_on_edge(day) for day in days])
        prices, least = _idle_prices(world, days)
        best = np.full(world.fleets, -np.inf)
        self._plans, enough = plans, prices
        for n in range(ROUNDS):
            if n == ROUNDS - 1:
                prices = enough
            plans = _plan_day(world, days, plans, np.where(prices > least, prices, 0), rng)
            self._plans, best = _keep(world, plans, self._plans, best)
            over = _spent(world, days, plans) > FULL * world.capacity_mj
            enough = np.where(over, np.maximum(enough, prices), prices)
            prices = np.maximum(prices * np.exp(STEP * SHRINK**n * np.where(over, 1, -1)), least)

    def act(self, world: World, seen: Seen, rng: np.random.Generator) -> Index:  # noqa: ARG002
        """Follow the plan of the day."""
        return np.asarray(self._plans[world.t])

    def learn(self, outcome: Outcome) -> None:
        """Nothing to learn."""


def _keep(world: World, plans: Index, held: Index, best: Array) -> tuple[Index, Array]:
    """Return the better day [T, F, N] of two per fleet, and its sum of rewards [F]."""
    total = replay(world, plans).sum(axis=1)
    return np.where((total > best)[None, :, None], plans, held), np.maximum(total, best)


def _per_period(world: World, day: Batch, prices: Array) -> Reals:
    """Return what the energy of each plan costs [F, N, P] in a period."""
    used = prices * day.fps * world.scenario.period_s
    return np.asarray(used[..., None] * day.energy_mj, np.float32)


def _plan_day(world: World, days: list[Batch], plans: Index, prices: Array, rng: np.random.Generator) -> Index:
    return np.stack(
        [take_turns(day, now, less(_per_period(world, day, prices)), rng) for day, now in zip(days, plans, strict=True)]
    )


def _spent(world: World, days: list[Batch], plans: Index) -> Array:
    """Return the energy in mJ [F, N] that a day would take of batteries without end."""
    spent = np.zeros(plans.shape[1:])
    for day, now in zip(days, plans, strict=True):
        spent += day.felt(now, *_edge(day, now)).energy_mj * day.fps * world.scenario.period_s
    return spent


def _edge(day: Batch, plans: Index) -> tuple[Reals, Reals]:
    """Return the wait [F, 1] and the batch times [F, N] at an assignment."""
    wait, index = day.delay(day.total_load(plans))
    return wait[:, None], np.take_along_axis(day.pick(day.tail_ms, plans), index[:, None, None], axis=-1)[..., 0]


def _idle_prices(world: World, days: list[Batch]) -> tuple[Array, Array]:
    """Return the price per mJ [F, N] at which each battery lasts the day on an idle edge, and a trifling one."""
    worth = np.stack([idle_rewards(day) for day in days])
    used = np.stack([day.energy_mj * day.fps[..., None] * world.scenario.period_s for day in days])

    def spent(prices: Array) -> Array:
        chosen = np.argmax(worth - prices[..., None] * used, axis=-1)
        return np.asarray(np.take_along_axis(used, chosen[..., None], axis=-1)[..., 0].sum(axis=0))

    typical = 1 / np.maximum(np.where(world.hardware.allowed, used, 0).max(axis=-1).mean(axis=0), 1e-9)
    least = typical * 1e-2
    low, high = least, typical * 1e2
    for _ in range(20):
        middle = np.sqrt(low * high)
        over = spent(middle) > world.capacity_mj
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    return high, least
