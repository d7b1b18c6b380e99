"""The ring of buckets: what falls where, and what is forgotten."""

from __future__ import annotations

import numpy as np

from tools.dashboard.series import BUCKET_S, BUCKETS, Series, times_s

SPAN_S = BUCKET_S * BUCKETS


def counted(series: Series, now_s: float, seconds: float = SPAN_S) -> list[float]:
    return [float(n) for n in series.column(series.last(now_s, seconds), "frames")]


def count(series: Series, at_s: float) -> None:
    row = series.row(at_s)
    assert row is not None
    row[series.columns["frames"]] += 1


def test_moments_fall_into_their_buckets_also_when_they_come_late() -> None:
    series = Series(("frames",))
    for at_s in (100.0, 104.9, 105.0, 119.0, 101.0):
        count(series, at_s)
    assert counted(series, 119.0, 20) == [3, 1, 0, 1]
    assert times_s(119.0, 4) == [100.0, 105.0, 110.0, 115.0]


def test_time_that_went_on_without_news_is_empty() -> None:
    series = Series(("frames",), ("uplink",))
    count(series, 100.0)
    series.set(100.0, uplink=7.0)
    assert counted(series, 112.0, 15) == [1, 0, 0]
    uplink = series.column(series.last(112.0, 15), "uplink")
    assert uplink[0] == 7.0 and np.isnan(uplink[1:]).all()
    assert sum(counted(series, 100.0 + SPAN_S)) == 0
    assert sum(counted(Series(("frames",)), 50.0)) == 0


def test_a_quarter_of_an_hour_is_kept_and_no_more() -> None:
    series = Series(("frames",))
    for second in range(0, 3 * SPAN_S, BUCKET_S):
        count(series, float(second))
    assert counted(series, 3.0 * SPAN_S - 1) == [1.0] * BUCKETS
    assert series.row(2.0 * SPAN_S - 1) is None, "older than the oldest bucket"
    count(series, 10.0 * SPAN_S)
    assert counted(series, 10.0 * SPAN_S) == [0.0] * (BUCKETS - 1) + [1.0]


def test_what_is_not_known_leaves_a_gauge_as_it_is() -> None:
    series = Series((), ("uplink", "rtt"))
    series.set(10.0, uplink=5.0, rtt=1.0)
    series.set(11.0, uplink=None, rtt=2.0)
    (row,) = series.last(11.0, 5)
    assert row.tolist() == [5.0, 2.0]
