"""The learned policy as it plays simulated worlds: by the actor alone, without the service around it."""

from __future__ import annotations

import numpy as np

from policy.actor import Actor
from policy.batch import Index
from policy.coordination import take_turns
from policy.features import FACTORS
from policy.memory import Memory
from policy.simulation.world import Outcome, Seen, World
from policy.view import view


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
        looked = view(self._actor, seen.now, seen.batch, self._memory)
        assignment = looked.priced.assignment
        for _ in range(self._passes):
            assignment = take_turns(looked.batch, assignment, looked.score, rng, factors=FACTORS)
        return assignment

    def learn(self, outcome: Outcome) -> None:
        """Nothing: it has learned before."""
