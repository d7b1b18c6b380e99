"""Means with intervals over seeds, scores and weighted quantiles."""

from __future__ import annotations

import math

import numpy as np

from policy.batch import Reals
from policy.errors import PolicyError
from policy.intervals import Interval, t_quantile
from policy.table import Array

CONFIDENCE = 0.95
FEW = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764}
"""0.975 quantiles of Student's t at few degrees of freedom, where the approximation is poor."""
LEAST_ROOM = 1e-6
"""Reward between random and oracle below which a score says nothing."""


def mean_interval(samples: Array) -> Interval:
    """Return the mean of independent samples with its 95 % interval; raises ``PolicyError`` below two samples."""
    if len(samples) < 2:
        raise PolicyError("an interval needs at least two seeds")
    freedom = len(samples) - 1
    quantile = FEW.get(freedom) or t_quantile((1 + CONFIDENCE) / 2, freedom)
    mean, half = float(samples.mean()), quantile * float(samples.std(ddof=1)) / math.sqrt(len(samples))
    return Interval(mean, mean - half, mean + half)


def scores(rewards: Array, least: Array, most: Array) -> Array:
    """Return (reward − least) / (most − least) per seed, all [seeds]; 1 where there is no room between the two."""
    room = most - least
    there = room > LEAST_ROOM
    return np.where(there, (rewards - least) / np.where(there, room, 1), 1.0)


def weighted_quantiles(values: Reals, weights: Reals, at: tuple[float, ...]) -> tuple[float, ...]:
    """Return the least values below which lie these shares of the weight; all 0 where nothing weighs."""
    order = np.argsort(values, axis=None)
    ranked, total = values.ravel()[order], np.cumsum(weights.ravel()[order])
    if not len(total) or total[-1] <= 0:
        return (0.0,) * len(at)
    places = np.searchsorted(total, np.array(at) * total[-1])
    return tuple(float(ranked[min(place, len(ranked) - 1)]) for place in places)
