"""Which plans another beats in every respect: they are never worth a look, whatever the link and the edge are like."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policy.table import Array, Mask


def undominated(traits: Array) -> Mask:
    """Return [P] which rows of traits [P, T], all of them better when smaller, no other row beats.

    A row is beaten by one that is nowhere worse and somewhere better; of equal rows the first stays.
    """
    no_worse = (traits[None] <= traits[:, None] + 1e-9).all(axis=2)
    better = (traits[None] < traits[:, None] - 1e-9).any(axis=2)
    twins = no_worse & no_worse.T & ~better
    earlier: NDArray[np.bool_] = np.tri(len(traits), k=-1, dtype=bool)
    return np.asarray(~((no_worse & better) | (twins & earlier)).any(axis=1))
