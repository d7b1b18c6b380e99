"""Measured rewards of a site as they come in: what a running promotion is fed with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policy.promotion_evidence import BLOCK_S, LAG_S
from policy.site_periods import Knowledge, collect
from policy.site_record import SiteRecord

MAX_BLOCKS = 10
"""Read at once after a pause; what is older is passed over."""


@dataclass(frozen=True, slots=True)
class Rewarded:
    """The mean measured reward of the frames one device captured in one block of time."""

    at_s: float
    """Middle of the block, Unix seconds."""
    device: str
    reward: float
    frames: int


class RewardFeed:
    """Reads the recorder's store block by block; the store must be of the one site that the service decides for."""

    def __init__(self, store: Path, known: Knowledge, site: str) -> None:
        self._store = store
        self.known = known
        """May be exchanged: rewards are measured by the rules of the moment."""
        self._site = site
        self._next: int | None = None

    def pass_over(self, now_s: float) -> None:
        """Begin with the first block that lies wholly after ``now_s``."""
        self._next = int(now_s // BLOCK_S) + 1

    def new(self, now_s: float) -> list[Rewarded]:
        """Return the rewards of the blocks that are over since the last call; most calls return nothing at once.

        Raises ``PolicyError`` where the store cannot be read; the same blocks are then due at the next call.
        """
        over = int((now_s - LAG_S) // BLOCK_S)  # the first block that is not over
        first = over - 1 if self._next is None else max(min(self._next, over), over - MAX_BLOCKS)
        if first >= over:
            return []
        block_ms = int(1000 * BLOCK_S)
        with SiteRecord(self._store) as record:
            since_ms, until_ms = first * block_ms, over * block_ms - 1
            if not record.any_frames(since_ms, until_ms):
                self._next = over
                return []
            periods = collect(record, self.known, since_ms, block_ms, until_ms)
        self._next = over
        reward, frames = periods.figures["reward"], periods.figures["frames"]
        out = []
        for i, t in np.argwhere((frames > 0) & np.isfinite(reward)):
            site, _, device = periods.devices[i].partition("/")
            if site == self._site:
                at_s = (periods.start_ms + (t + 0.5) * block_ms) / 1000
                out.append(Rewarded(float(at_s), device, float(reward[i, t]), int(frames[i, t])))
        return out
