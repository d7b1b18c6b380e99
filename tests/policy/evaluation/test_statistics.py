"""Intervals and quantiles, against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from policy.errors import PolicyError
from policy.evaluation.statistics import mean_interval, scores, weighted_quantiles


def test_the_interval_is_students() -> None:
    # mean 3, s = sqrt(2.5), t(0.975, 4) = 2.7764: half = 2.7764 * sqrt(2.5 / 5)
    interval = mean_interval(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert (interval.estimate, interval.half) == pytest.approx((3.0, 2.7764 * 0.5**0.5), rel=1e-4)
    ten = mean_interval(np.array([0.0, 1.0] * 5))
    # s² = 10/36, t(0.975, 9) = 2.2622
    assert ten.half == pytest.approx(2.2622 * (10 / 36 / 10) ** 0.5, rel=2e-3)


def test_one_seed_has_no_interval() -> None:
    with pytest.raises(PolicyError, match="at least two seeds"):
        mean_interval(np.array([1.0]))


def test_a_score_is_the_share_of_the_room_seed_by_seed() -> None:
    found = scores(np.array([0.5, 0.9, 0.2]), np.array([0.0, 0.8, 0.2]), np.array([1.0, 1.0, 0.2]))
    assert found == pytest.approx([0.5, 0.5, 1.0])


def test_quantiles_weigh_frames() -> None:
    values, weights = np.array([30.0, 10.0, 20.0], np.float32), np.array([1.0, 8.0, 1.0], np.float32)
    assert weighted_quantiles(values, weights, (0.5, 0.85, 0.95)) == (10.0, 20.0, 30.0)
    assert weighted_quantiles(values, 0 * weights, (0.5,)) == (0.0,)
