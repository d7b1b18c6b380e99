"""Assignments [F, N] that need no search: where policies start from, and what the simplest ones do."""

from __future__ import annotations

import numpy as np

from policy.batch import NOTHING, Batch, Index, Mask, Reals

NO_WAIT = np.zeros((1, 1, 1), np.float32)
ONE_FRAME = np.zeros((1, 1, 1), np.int64)


def idle_rewards(batch: Batch) -> Reals:
    """Return the own reward [F, N, P] of each plan on an idle edge; ``NOTHING`` where it is not allowed."""
    return np.asarray(np.where(batch.allowed, batch.rewards(NO_WAIT, ONE_FRAME), np.float32(NOTHING)))


def alone_on_edge(batch: Batch, among: Mask | None = None) -> Index:
    """Return each device's best plan on an idle edge, of those in ``among`` [F, N, P]."""
    worth = idle_rewards(batch)
    if among is not None:
        worth = np.where(among, worth, np.float32(2 * NOTHING))
    return np.asarray(np.argmax(worth, axis=-1))


def as_they_are(batch: Batch, current: Index) -> Index:
    """Return the plans devices follow; where one has none, or none that is allowed, its best on an idle edge."""
    known = np.maximum(current, 0)
    stays = (current >= 0) & batch.pick(batch.allowed, known)
    return np.where(stays, known, alone_on_edge(batch))


def best_local(batch: Batch) -> Index:
    """Return each device's best local plan."""
    return alone_on_edge(batch, batch.local & batch.allowed)
