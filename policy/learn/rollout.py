"""Plays simulated fleets with the network as it is and lays out what happened for the learner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policy.actor import SHARPNESS, Actor
from policy.batch import Batch as CostBatch
from policy.batch import Index, Mask, Reals
from policy.coordination import Turn, look_at, take_turns
from policy.features import FACTORS, PLAN_FEATURES
from policy.learn.a2c import Batch
from policy.learn.advantage import gae
from policy.learn.scorer import PlanScorer
from policy.memory import Memory
from policy.simulation.hindsight import Day
from policy.simulation.scenario import Scenario
from policy.simulation.world import Source, World
from policy.table import Array
from policy.view import View, view

TURNS_IN_TRAINING = 8
RESERVE = 0.7
"""Share of a charge that the day is planned with: the plan reckons with an edge that is never full."""
MOST_OTHERS = 5.0
"""Bound of what one plan may do to the rest of a site, in sums of reward: beyond it a lesson is a lesson."""


@dataclass(frozen=True)
class _Period:
    states: Reals
    features: Reals
    allowed: Mask
    plans: Index
    known: Reals
    reward: Reals
    over: bool


class Player:
    """Plays one scenario on and on, with fresh sites whenever an episode is over."""

    def __init__(self, scenario: Scenario, fleets: int, seed: int, recorded: Source | None = None) -> None:
        self.scenario = scenario
        self._world = World(scenario, fleets, seed, recorded)
        self._rng = np.random.default_rng((seed, 1))
        self._memory = Memory((fleets, scenario.devices))
        self._day = self._look_ahead()
        self._kept: list[_Period] = []

    def play(self, network: PlanScorer, periods: int, gae_lambda: float) -> tuple[Batch, float]:
        """Play so many periods; return what the learner needs, and the mean reward.

        The reward of a period counts through ``known_values``: what it would have been, for the whole site, under every
        plan a device could have taken, since the simulation can tell. What is sampled is the future alone, each
        device's own: its advantage is that of the discounted rewards after this period.
        """
        actor = network.actor({})
        while len(self._kept) <= periods:
            self._kept.append(self._period(actor))
        batch = self._lay_out(self._kept, network, gae_lambda)
        # The last period's reward was the next one's for all before it; it will be learned from itself next time.
        done, self._kept = self._kept[:-1], self._kept[-1:]
        return batch, float(np.mean([period.reward for period in done]))

    def _period(self, actor: Actor) -> _Period:
        if self._world.over:
            self._world.reset()
            self._memory = Memory((self._world.fleets, self.scenario.devices))
            self._day = self._look_ahead()
        seen = self._world.seen()
        looked = view(actor, seen.now, seen.batch, self._memory)
        features = np.zeros((*seen.batch.shape, len(PLAN_FEATURES)), np.float32)
        batch = looked.batch
        plans = take_turns(
            batch,
            looked.priced.assignment,
            lambda turn: _logits(turn, looked, features),
            self._rng,
            factors=FACTORS,
            turns=TURNS_IN_TRAINING,
            pick=self._draw,
        )
        truth = self._world.truth()
        everyone = np.tile(np.arange(batch.shape[1]), (batch.shape[0], 1))
        turn = look_at(truth, plans, everyone)
        known = turn.own[0] + np.clip(turn.others[0], -MOST_OTHERS, MOST_OTHERS)
        if self._day is not None:
            known = known - self._cost_of_energy(self._day, truth)
        alive = (self._world.battery_mj > 0)[..., None]
        outcome = self._world.step(plans, truth)
        return _Period(
            looked.states,
            features,
            batch.allowed,
            plans,
            np.where(alive & batch.allowed, known, 0).astype(np.float32),
            outcome.reward.astype(np.float32),
            self._world.over,
        )

    def _look_ahead(self) -> Day | None:
        return None if self.scenario.battery is None else Day(self._world)

    def _cost_of_energy(self, day: Day, truth: CostBatch) -> Reals:
        """Return what the energy of every plan [F, N, P] will be missed for, at the price the day's rest implies."""
        world = self._world
        price = day.price(world.t, RESERVE * world.battery_mj)
        used = price * world.traces.fps[world.t] * self.scenario.period_s
        return np.asarray(used[..., None] * truth.energy_mj, np.float32)

    def _draw(self, logits: Reals) -> Index:
        """Draw plans from the softmax of their scores (by Gumbel noise)."""
        return np.asarray(np.argmax(logits + self._rng.gumbel(size=logits.shape), axis=-1))

    def _lay_out(self, kept: list[_Period], network: PlanScorer, gae_lambda: float) -> Batch:
        periods, discount = len(kept) - 1, self.scenario.discount
        states = np.stack([period.states for period in kept])
        shape = states.shape[1:3]
        advantage = returns = np.zeros((periods, *shape), np.float32)
        if discount > 0:
            worth = network.worth(states, discount)
            # Rewards shifted by one period, so that the critic tells what comes after this one.
            later = discount * np.stack([period.reward for period in kept[1:]])
            ends = np.broadcast_to(np.array([p.over for p in kept[:-1]])[:, None, None], later.shape)
            later = np.where(ends, 0, later)

            def flat(values: Array) -> Array:
                return values.reshape(len(values), -1)

            advantage, returns = gae(flat(later), flat(worth[:-1]), worth[-1].ravel(), flat(ends), discount, gae_lambda)
        known = np.stack([period.known for period in kept[:-1]])
        rows = periods * shape[0] * shape[1]
        return Batch(
            inputs=(
                states[:-1].reshape(rows, -1),
                np.stack([p.features for p in kept[:-1]]).reshape(rows, -1, len(PLAN_FEATURES)),
                np.full((rows, 1), discount, np.float32),
            ),
            actions=np.stack([p.plans for p in kept[:-1]]).reshape(rows, 1).astype(np.int32),
            allowed=np.stack([p.allowed for p in kept[:-1]]).reshape(rows, 1, -1),
            advantages=advantage.ravel(),
            returns=returns.ravel(),
            known_values=known.reshape(rows, 1, -1),
        )


def _logits(turn: Turn, looked: View, features: Reals) -> Reals:
    """Return the logits [F, C, P] of a turn's plans, and keep their features among those of all devices."""
    of = looked.features(turn)
    features[np.arange(len(turn.chosen))[:, None], turn.chosen] = of
    return np.asarray(SHARPNESS * looked.scores(turn, of))
