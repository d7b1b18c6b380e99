"""Figures of blocks drawn at random, so that a test knows what is true of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from policy.table import Array, Index
from tools.pilot.estimates import METRICS, Figures
from tools.pilot.schedule import ARMS, Stretch, schedule
from wire.messages import Outcome

FRAMES = 200


def drawn(rounds: int, rng: np.random.Generator, effect_ms: Mapping[str, float] | None = None) -> Figures:
    """Latencies of about 100 ms that drift from round to round and differ from block to block; and by ``effect_ms``."""
    blocks = schedule(ARMS, rounds, rng)
    drift = rng.normal(0, 30, rounds)
    effect = np.array([(effect_ms or {}).get(one.arm, 0.0) for one in blocks])
    level = 100 + drift[[one.round for one in blocks]] + effect + rng.normal(0, 4, len(blocks))
    frames = np.full(len(blocks), FRAMES, np.int64)
    return of_blocks(tuple(Stretch(b, 20.0 * b.number, 20.0 * b.number + 5, 20.0 * b.number + 20) for b in blocks),
                     {"latency_ms": level * FRAMES}, frames)  # fmt: skip


def of_blocks(stretches: tuple[Stretch, ...], totals: Mapping[str, Array], frames: Index, **counts: Array) -> Figures:
    """Figures with these sums; what is not named is over no frame, and no frame is dropped."""
    none = np.zeros(len(stretches))
    total = {metric.key: totals.get(metric.key, none) for metric in METRICS}
    count = {
        metric.key: counts.get(metric.key, frames * 1.0 if metric.key in totals else none) for metric in METRICS
    } | {"sent_bytes": frames * 1.0}
    outcomes = {str(outcome): np.zeros(len(stretches), np.int64) for outcome in Outcome}
    return Figures(stretches, frames, outcomes, total, count)
