"""Coordination without learning as agents: devices in turn, and prices."""

from __future__ import annotations

import numpy as np

from policy.batch import Index
from policy.coordination import affordable, pricing_and_sweep, sequential, spendable
from policy.references.agent import Memoryless
from policy.references.starts import as_they_are
from policy.simulation.world import Outcome, Seen, World


class Sequential(Memoryless):
    """Each device in turn takes what is best for the site, twice round."""

    name = "sequential"

    def act(self, world: World, seen: Seen, rng: np.random.Generator) -> Index:  # noqa: ARG002
        """Settle from where the site is."""
        return sequential(seen.batch, as_they_are(seen.batch, seen.now.current), rng, passes=2)


class Pricing(Memoryless):
    """A price for the edge's time, and one for each battery so that it lasts at the present rate; then one sweep."""

    name = "pricing"

    def act(self, world: World, seen: Seen, rng: np.random.Generator) -> Index:  # noqa: ARG002
        """Price and sweep."""
        budget = seen.now.budget_mj_per_s().astype(np.float32)
        return pricing_and_sweep(seen.batch, rng, budget).assignment


class PricingPerFrame:
    """The same, but batteries are paced by frames, more in busy hours than in calm ones, and by a rule beside a price.

    Plans that draw much more than the budget are out of the question, however busy the edge; a price alone, found for
    an idle edge, does not keep a device from falling back on a dear local plan when the edge is full.
    """

    name = "pricing_per_frame"

    def begin(self, world: World) -> None:
        """Forget the last day."""
        self._rate = np.zeros((world.fleets, world.scenario.devices))
        self._periods = 0

    def act(self, world: World, seen: Seen, rng: np.random.Generator) -> Index:  # noqa: ARG002
        """Price and sweep among the plans that the battery affords."""
        self._periods += 1
        self._rate += (seen.now.fps - self._rate) / self._periods
        budget = spendable(seen.now.budget_mj_per_s(), seen.now.fps, self._rate)
        return pricing_and_sweep(affordable(seen.batch, budget), rng, budget).assignment

    def learn(self, outcome: Outcome) -> None:
        """Nothing to learn."""
