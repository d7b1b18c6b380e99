"""What plays a simulated world."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from policy.batch import Index
from policy.simulation.world import Outcome, Seen, World


class Agent(Protocol):
    """Chooses plans for all fleets of a world, period by period."""

    name: str

    def begin(self, world: World) -> None:
        """Make ready for an episode."""

    def act(self, world: World, seen: Seen, rng: np.random.Generator) -> Index:
        """Return the plans [F, N]; honest agents look at ``seen`` only, oracles at ``world``."""
        ...

    def learn(self, outcome: Outcome) -> None:
        """Take in what the period brought."""


class Memoryless:
    """Begins and learns nothing: the frame of agents that look at the present alone."""

    def begin(self, world: World) -> None:
        """Nothing to make ready."""

    def learn(self, outcome: Outcome) -> None:
        """Nothing to learn."""
