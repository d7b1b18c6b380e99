"""Places of percentiles, worked out by hand."""

from __future__ import annotations

import pytest

from edge_broker_side.reporting.rank import rank


@pytest.mark.parametrize(
    ("count", "percent", "place"),
    [
        (1, 50, 0),
        (1, 99, 0),
        (2, 50, 0),
        (3, 50, 1),
        (10, 50, 4),
        (11, 50, 5),
        (12, 95, 10),
        (20, 95, 18),
        (100, 99, 98),
    ],
)
def test_rank(count: int, percent: float, place: int) -> None:
    assert rank(count, percent) == place


@pytest.mark.parametrize("percent", [1, 50, 95, 99, 99.9])
def test_rank_is_always_a_place(percent: float) -> None:
    assert all(0 <= rank(count, percent) < count for count in range(1, 2000))
