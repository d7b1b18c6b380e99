"""Perfect planning for one period: on what is seen, and on what is true."""

from __future__ import annotations

import numpy as np

from policy.batch import Batch, Index, Reals
from policy.coordination import Score, Turn, for_the_site, price, take_turns
from policy.references.agent import Memoryless
from policy.references.starts import as_they_are, best_local
from policy.simulation.world import Seen, World


def plan_well(batch: Batch, current: Index, rng: np.random.Generator, penalty: Reals | None = None) -> Index:
    """Return plans [F, N] whose sum of rewards no single device can raise, the best found from several starts.

    ``penalty`` [F, N, P] is taken off the reward of each plan.
    """
    starts = (price(batch).assignment, as_they_are(batch, current), best_local(batch))
    score = less(penalty)
    best, most = starts[0], np.full(len(current), -np.inf)
    for start in starts:
        end = take_turns(batch, start, score, rng)
        best, most = _better(batch, penalty, best, most, end)
    end = take_turns(batch, best, score, rng)
    return _better(batch, penalty, best, most, end)[0]


def less(penalty: Reals | None) -> Score:
    """Return the score by which a device serves the site, less a penalty [F, N, P]."""
    if penalty is None:
        return for_the_site

    def score(turn: Turn) -> Reals:
        return np.asarray(for_the_site(turn) - penalty[np.arange(len(turn.chosen))[:, None], turn.chosen])

    return score


def _better(batch: Batch, penalty: Reals | None, best: Index, most: Reals, other: Index) -> tuple[Index, Reals]:
    """Return the better of two assignments per site, and its worth [F]."""
    worth = batch.together(other)
    if penalty is not None:
        worth = worth - batch.pick(penalty, other)
    total = worth.sum(axis=1)
    return np.where((total > most)[:, None], other, best), np.maximum(total, most)


class OracleObserved(Memoryless):
    """What perfect planning for one period reaches with the information that every policy has."""

    name = "oracle_observed"

    def act(self, world: World, seen: Seen, rng: np.random.Generator) -> Index:  # noqa: ARG002
        """Plan on what is seen."""
        return plan_well(seen.batch, seen.now.current, rng)


class OracleClairvoyant(Memoryless):
    """The same, knowing what the coming period will be like: true links, rates and edge. It does not look further."""

    name = "oracle_clairvoyant"

    def act(self, world: World, seen: Seen, rng: np.random.Generator) -> Index:
        """Plan on the truth."""
        return plan_well(world.truth(), seen.now.current, rng)
