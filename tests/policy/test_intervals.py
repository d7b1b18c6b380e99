"""Intervals that hold what they promise, also for samples that resemble their neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from policy.intervals import between, bootstrap_ratio, difference, effective_count, t_quantile
from policy.table import Array


@pytest.mark.parametrize(
    ("probability", "freedom", "printed"),
    [(0.975, 3, 3.182), (0.975, 10, 2.228), (0.995, 5, 4.032), (0.995, 30, 2.750), (0.975, 1e9, 1.960)],
)
def test_quantiles_are_those_of_the_printed_tables(probability: float, freedom: float, printed: float) -> None:
    assert t_quantile(probability, freedom) == pytest.approx(printed, rel=0.02)


def series(rng: np.random.Generator, n: int, resemblance: float) -> Array:
    out = np.empty(n)
    value = rng.normal()
    for i in range(n):
        value = resemblance * value + np.sqrt(1 - resemblance**2) * rng.normal()
        out[i] = value
    return out


@pytest.mark.parametrize("resemblance", [0.0, 0.5, 0.7])
def test_the_true_difference_is_inside_as_often_as_promised(resemblance: float) -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(300):
        found = difference(series(rng, 60, resemblance), series(rng, 40, resemblance), 0.95)
        inside += found.low <= 0 <= found.high
    assert inside >= 0.90 * 300


def test_resemblance_makes_fewer_samples() -> None:
    rng = np.random.default_rng(2)
    assert effective_count(series(rng, 400, 0.0)) > 300
    assert effective_count(series(rng, 400, 0.8)) < 90
    assert effective_count(np.ones(10)) == 10


def test_between_groups_is_students_two_sample_interval() -> None:
    found = between(np.array([1.0, 3.0]), np.array([0.0, 2.0]), 0.95)
    # common variance 2, standard error sqrt(2), t(2 degrees) = 4.303; ours is that of 3 degrees, its least
    assert found.estimate == 1.0
    assert found.half == pytest.approx(3.182 * np.sqrt(2), rel=0.02)


def test_redrawn_blocks_find_the_ratio() -> None:
    rng = np.random.default_rng(3)
    count = rng.integers(1, 9, 100).astype(float)
    found = bootstrap_ratio(0.25 * count, count, 0.95, rng)
    assert (found.estimate, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    noisy = bootstrap_ratio(0.25 * count + rng.normal(size=100), count, 0.95, rng)
    assert noisy.low < 0.25 < noisy.high
    # the error of a sum of 100 unit normals over the sum of the counts
    assert noisy.half == pytest.approx(1.96 * 10 / count.sum(), rel=0.3)
