"""The learned policy as it plays simulated worlds: by the actor alone, without the service around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policy.actor import SHARPNESS, Actor, scores
from policy.batch import Batch, Index, Reals
from policy.coordination import Priced, Score, Turn, price, take_turns
from policy.features import FACTORS, afford, plan_features, states
from policy.memory import Memory
from policy.simulation.world import Outcome, Seen, World


@dataclass(frozen=True)
class View:
    """What the actor has worked out for one period of F fleets."""

    batch: Batch
    """Of the plans that batteries afford."""
    states: Reals
    coefficients: Reals
    priced: Priced


def view(actor: Actor, seen: Seen, memory: Memory) -> View:
    """Work out states, prices and coefficients; the one forward pass of a period."""
    seen.now.remember(memory)
    batch, power = afford(seen.now, memory, seen.batch)
    priced = price(batch, power)
    state = states(seen.now, memory, batch, priced)
    return View(batch, state, actor.coefficients(state), priced)


class LearnedAgent:
    """Starts from what pricing would choose; then each device in turn takes the plan that scores best."""

    name = "a2c"

    def __init__(self, actor: Actor, passes: int = 2) -> None:
        self._actor = actor
        self._passes = passes

    def begin(self, world: World) -> None:
        """Forget the last episode."""
        self._memory = Memory((world.fleets, world.scenario.devices))

    def act(self, world: World, seen: Seen, rng: np.random.Generator) -> Index:  # noqa: ARG002
        """Return the plans [F, N]."""
        seen_as = view(self._actor, seen, self._memory)
        assignment = seen_as.priced.assignment
        for _ in range(self._passes):
            assignment = take_turns(seen_as.batch, assignment, scorer(seen, seen_as), rng, factors=FACTORS)
        return assignment

    def learn(self, outcome: Outcome) -> None:
        """Nothing: it has learned before."""


def scorer(seen: Seen, seen_as: View) -> Score:
    """Return the function that scores the plans of a turn as logits."""

    def score(turn: Turn) -> Reals:
        features = plan_features(turn, seen.now.current, seen_as.priced, seen_as.batch.interpreters)
        site = np.arange(len(turn.chosen))[:, None]
        return np.asarray(SHARPNESS * scores(features, seen_as.coefficients[site, turn.chosen]))

    return score
