"""Devices that each look after themselves: by the cost model (greedy), or by trying (LinUCB)."""

from __future__ import annotations

import numpy as np

from policy.batch import NOTHING, Batch, Index, Reals
from policy.references.agent import Memoryless
from policy.references.starts import as_they_are, idle_rewards
from policy.simulation.world import Outcome, Seen, World


class Greedy(Memoryless):
    """Each device takes what is best for itself, beside the others' load as it is; all at once, so they herd."""

    name = "greedy"

    def act(self, world: World, seen: Seen, rng: np.random.Generator) -> Index:  # noqa: ARG002
        """Answer to the load of the others."""
        batch = seen.batch
        return np.asarray(np.argmax(own_rewards(batch, as_they_are(batch, seen.now.current)), axis=-1))


def own_rewards(batch: Batch, assignment: Index) -> Reals:
    """Return each device's reward [F, N, P] per plan while the others stay; ``NOTHING`` if not allowed."""
    others = batch.total_load(assignment)[:, None] - batch.pick(batch.load, assignment)
    wait, index = batch.delay(others[:, :, None] + batch.load)
    return np.where(batch.allowed, batch.rewards(wait, index), np.float32(NOTHING))


WIDTH = 0.15
"""Width of the confidence bound, in reward."""
CONTEXT = 5


class LinUCB:
    """A contextual bandit per device, after Autodidactic Neurosurgeon (Zhang et al. 2021).

    The device knows what it does itself and learns the edge by trying. One arm per remote plan (disjoint LinUCB, Li et
    al. 2010) learns how far its reward falls short of the one on an idle edge, from uplink, frame rate and the edge's
    load; local plans hold no secret and need no arm.
    """

    name = "linucb"

    def begin(self, world: World) -> None:
        """Know nothing."""
        shape = world.hardware.allowed.shape
        eye = np.eye(CONTEXT, dtype=np.float32)
        self._inverse = np.broadcast_to(eye, (*shape, CONTEXT, CONTEXT)).copy()
        self._sum = np.zeros((*shape, CONTEXT), np.float32)

    def act(self, world: World, seen: Seen, rng: np.random.Generator) -> Index:  # noqa: ARG002
        """Take the arm of the highest upper bound."""
        batch, x = seen.batch, _context(seen)
        known = idle_rewards(batch)
        spread = np.einsum("fnpij,fnj->fnpi", self._inverse, x)
        learnt = np.einsum("fnpi,fnpi->fnp", spread, self._sum)
        width = WIDTH * np.sqrt(np.maximum(np.einsum("fnpi,fni->fnp", spread, x), 0))
        # A busy edge can only take away.
        bound = known + np.where(batch.local, 0, np.minimum(learnt + width, WIDTH))
        chosen: Index = np.argmax(bound, axis=-1)
        fleet, device = np.indices(chosen.shape)
        self._at = (fleet, device, chosen)
        self._context, self._expected = x, known[self._at]
        return chosen

    def learn(self, outcome: Outcome) -> None:
        """Take in the reward of the arms pulled, by the formula of Sherman and Morrison."""
        x, inverse = self._context, self._inverse[self._at]
        ax = np.einsum("fnij,fnj->fni", inverse, x)
        grown = 1 + np.einsum("fni,fni->fn", x, ax)
        self._inverse[self._at] = inverse - ax[..., :, None] * ax[..., None, :] / grown[..., None, None]
        self._sum[self._at] += (outcome.reward - self._expected)[..., None] * x


def _context(seen: Seen) -> Reals:
    """Return the context [F, N, CONTEXT] of each device, every entry of order 1."""
    now = seen.now
    shape = now.fps.shape
    columns = (
        np.ones(shape),
        np.log(now.uplink_bps / 3e6) / 2,
        np.log2(np.maximum(now.fps, 0.05)) / 2,
        np.broadcast_to(now.utilisation[:, None], shape),
        now.late_share,
    )
    return np.asarray(np.stack(columns, axis=-1), np.float32)
