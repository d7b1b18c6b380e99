"""What a policy remembers from one period to the next: trends that no single observation shows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from policy.table import Array

SLOW = 0.1
FAST = 0.3
FIRST_UNREST = 0.1
LEAST_BUSY = 0.05
"""An edge expected to be less busy than this says nothing of how long tails really take."""
FULL = 0.97
"""A utilisation that is no more than a lower bound."""


@dataclass
class Memory:
    """Running figures of S sites with N devices, arrays [S, N] unless said otherwise; ``update`` takes in a period."""

    shape: tuple[int, int]
    usual: Array = field(init=False)
    """Slow mean of the uplink's logarithm."""
    unrest: Array = field(init=False)
    """Mean absolute change of the uplink's logarithm."""
    worst: Array = field(init=False)
    """Lowest logarithm of the uplink lately; forgets slowly."""
    last: Array = field(init=False)
    rate: Array = field(init=False)
    """Slow mean of the frame rate, over what was seen so far."""
    late: Array = field(init=False)
    edge_ratio: Array = field(init=False)
    """[S]: mean logarithm of measured over expected utilisation."""
    backlog_ms: Array = field(init=False)
    """[S]: of the period before."""
    periods: int = 0

    def update(
        self, uplink_bps: Array, fps: Array, late: Array, utilisation: Array, expected: Array, backlog_ms: Array
    ) -> None:
        """Take in what is known now."""
        now = np.log(uplink_bps)
        if self.periods == 0:
            self.usual, self.last, self.worst = now.copy(), now.copy(), now.copy()
            self.unrest, self.late = np.full(self.shape, FIRST_UNREST), np.zeros(self.shape)
            self.rate = fps.copy()
            self.edge_ratio, self.backlog_ms = np.zeros(self.shape[0]), np.zeros(self.shape[0])
        new = np.isnan(self.usual)
        if new.any():
            self.usual, self.last = np.where(new, now, self.usual), np.where(new, now, self.last)
            self.worst, self.rate = np.where(new, now, self.worst), np.where(new, fps, self.rate)
            self.unrest, self.late = np.where(new, FIRST_UNREST, self.unrest), np.where(new, 0.0, self.late)
        self.periods += 1
        self.unrest += SLOW * (np.abs(now - self.last) - self.unrest)
        self.usual += SLOW * (now - self.usual)
        self.worst = np.minimum(now, self.worst + SLOW * (self.usual - self.worst))
        self.last = now
        self.rate += (fps - self.rate) / min(self.periods, 200)
        self.late += FAST * (late - self.late)
        ratio = np.log(np.clip(utilisation, 1e-3, None) / np.maximum(expected, LEAST_BUSY))
        says = (expected >= LEAST_BUSY) & ((utilisation < FULL) | (ratio > self.edge_ratio))
        self.edge_ratio = np.where(
            says, self.edge_ratio + FAST * (np.clip(ratio, -2, 2) - self.edge_ratio), self.edge_ratio
        )
        self.backlog_ms = backlog_ms

    def follow(self, rows: NDArray[np.int64]) -> None:
        """Go on with other devices: ``rows`` [N] are their places so far, −1 for new ones. For one site alone."""
        if self.periods:
            known = rows >= 0
            for name in ("usual", "unrest", "worst", "last", "rate", "late"):
                old = getattr(self, name)
                setattr(self, name, np.where(known, old[:, np.maximum(rows, 0)] if old.size else 0.0, np.nan))
        self.shape = (self.shape[0], len(rows))
