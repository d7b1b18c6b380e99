"""The one path from what is known of sites to scores of their plans: serving, judging and training all take it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policy.actor import Actor, scores
from policy.batch import Batch, Index, Reals
from policy.coordination import Priced, Turn, price
from policy.features import Situation, afford, plan_features, states
from policy.memory import Memory


@dataclass(frozen=True)
class View:
    """What the actor has worked out for one period of S sites."""

    batch: Batch
    """Of the plans that batteries afford."""
    current: Index
    """[S, N]; −1: none."""
    states: Reals
    coefficients: Reals
    priced: Priced

    def features(self, turn: Turn) -> Reals:
        """Return the plan features [S, C, P, K] of a turn."""
        return plan_features(turn, self.current, self.priced, self.batch.interpreters)

    def scores(self, turn: Turn, features: Reals) -> Reals:
        """Return the scores [S, C, P] of a turn's plans with these features, in units of reward."""
        site = np.arange(len(turn.chosen))[:, None]
        return scores(features, self.coefficients[site, turn.chosen])

    def score(self, turn: Turn) -> Reals:
        """Return the scores [S, C, P] of a turn's plans."""
        return self.scores(turn, self.features(turn))


def view(actor: Actor, now: Situation, batch: Batch, memory: Memory) -> View:
    """Work out states, prices and coefficients, the one forward pass of a period; ``memory`` takes the period in."""
    now.remember(memory)
    affordable, power = afford(now, memory, batch)
    priced = price(affordable, power)
    state = states(now, memory, affordable, priced)
    return View(affordable, now.current, state, actor.coefficients(state), priced)
