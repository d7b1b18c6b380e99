"""Intervals for means of figures that follow each other in time and therefore resemble each other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from policy.table import Array

MAX_RESEMBLANCE = 0.9
"""Of neighbouring samples; a series that resembles itself more is a handful of samples at any length."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and where the true value lies with the confidence asked for."""

    estimate: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half of its width."""
        return (self.high - self.low) / 2


def t_quantile(probability: float, freedom: float) -> float:
    """Return the quantile of Student's t (Abramowitz & Stegun 26.7.5; within 2 % from 3 degrees of freedom on)."""
    z, v = NormalDist().inv_cdf(probability), max(freedom, 3.0)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / v ** (i + 1) for i, term in enumerate(terms))


def effective_count(series: Array) -> float:
    """Return how many independent samples a series is worth, by the resemblance (lag-1 correlation) of neighbours."""
    n = len(series)
    around = series - series.mean()
    power = float(around @ around)
    if n < 3 or power <= 0:
        return float(n)
    resemblance = min(max(float(around[1:] @ around[:-1]) / power + 1 / n, 0.0), MAX_RESEMBLANCE)  # + 1/n: its bias
    return max(n * (1 - resemblance) / (1 + resemblance), min(n, 2.0))


def difference(after: Array, before: Array, confidence: float) -> Interval:
    """Return mean(after) − mean(before) with Welch's t interval; each needs two samples in order of time."""
    estimate = float(after.mean() - before.mean())
    counts = np.array([effective_count(after), effective_count(before)])
    parts = np.array([after.var(ddof=1), before.var(ddof=1)]) / counts
    variance = float(parts.sum())
    freedom = variance**2 / float((parts**2 / np.maximum(counts - 1, 1)).sum()) if variance > 0 else math.inf
    half = t_quantile((1 + confidence) / 2, freedom) * math.sqrt(variance)
    return Interval(estimate, estimate - half, estimate + half)


def between(treated: Array, others: Array, confidence: float) -> Interval:
    """Return mean(treated) − mean(others) by Student's t on their common variance; together three samples at least."""
    estimate = float(treated.mean() - others.mean())
    freedom = len(treated) + len(others) - 2
    spread = float(((treated - treated.mean()) ** 2).sum() + ((others - others.mean()) ** 2).sum()) / freedom
    half = t_quantile((1 + confidence) / 2, freedom) * math.sqrt(spread * (1 / len(treated) + 1 / len(others)))
    return Interval(estimate, estimate - half, estimate + half)


def bootstrap_ratio(
    total: Array, count: Array, confidence: float, rng: np.random.Generator, draws: int = 2000
) -> Interval:
    """Return sum(total) / sum(count) with a percentile interval over redrawn blocks; both arrays are [blocks]."""
    picked = rng.integers(len(total), size=(draws, len(total)))
    ratios = total[picked].sum(axis=1) / np.maximum(count[picked].sum(axis=1), 1e-300)
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(total.sum() / count.sum()), float(low), float(high))
