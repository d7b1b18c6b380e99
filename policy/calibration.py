"""Scales the edge profile to what the workers really take."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from policy.table import EdgeRow

BOUNDS = (0.25, 4.0)
"""Beyond these the edge profile is wrong and should be measured again."""
SMOOTHING = 0.2
LEAST_FRAMES = 3
"""A period with fewer frames says nothing."""


def expected_ms_per_frame(edge: EdgeRow, running: Iterable[tuple[int, float]], batch: float) -> float:
    """Return the interpreter time per frame that the profile expects of a mix of (plan index, frames per second).

    ``batch`` is the mean batch size that was measured. 0 where nobody sends.
    """
    nearest = int(np.argmin(np.abs(edge.batches - max(batch, 1.0))))
    busy = frames = 0.0
    for plan, fps in running:
        per_frame = float(edge.tail_ms[plan, nearest]) / int(edge.batches[nearest])
        if per_frame > 0:
            busy += fps * per_frame
            frames += fps
    return busy / frames if frames > 0 else 0.0


class EdgeCalibration:
    """Measured over predicted busy time of the interpreters, smoothed and bounded."""

    def __init__(self) -> None:
        self.factor = 1.0
        """Multiply every tail time of the profile by it."""

    def update(self, busy_ms: float, frames: int, expected_ms: float) -> None:
        """Take in one period: busy interpreter time, frames served, and the time per frame the profile expected.

        Both times are for the frames that were really served, so that a wrong idea of the frame rate cancels out.
        """
        if frames < LEAST_FRAMES or expected_ms <= 0:
            return
        low, high = BOUNDS
        seen = min(max(busy_ms / frames / expected_ms, low), high)
        self.factor += SMOOTHING * (seen - self.factor)
