"""Figures over time in a ring of buckets: a quarter of an hour, however much arrives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

BUCKET_S = 5
BUCKETS = 180
"""A quarter of an hour."""

MOST = 1e15
"""More than any figure of a device; 32-bit sums of a bucket's frames stay far from overflowing."""

Table = NDArray[np.float32]


class Series:
    """Columns of sums (empty: 0) and of gauges (empty: not a number), one row per bucket of time."""

    def __init__(self, sums: Sequence[str], gauges: Sequence[str] = ()) -> None:
        self.columns: Mapping[str, int] = {name: i for i, name in enumerate((*sums, *gauges))}
        self._empty = np.array([0.0] * len(sums) + [np.nan] * len(gauges), np.float32)
        self._rows = np.tile(self._empty, (BUCKETS, 1))
        self._newest: int | None = None

    def row(self, at_s: float) -> Table | None:
        """Return the bucket of a moment, to be written to; ``None``: that long ago nothing is kept."""
        bucket = int(at_s // BUCKET_S)
        if self._newest is None or bucket > self._newest:
            skipped = BUCKETS if self._newest is None else min(bucket - self._newest, BUCKETS)
            for one in range(bucket - skipped + 1, bucket + 1):
                self._rows[one % BUCKETS] = self._empty
            self._newest = bucket
        if bucket <= self._newest - BUCKETS:
            return None
        row: Table = self._rows[bucket % BUCKETS]
        return row

    def set(self, at_s: float, **values: float | None) -> None:
        """Write gauges of a moment; the last of a bucket stays."""
        row = self.row(at_s)
        if row is not None:
            for name, value in values.items():
                if value is not None:
                    row[self.columns[name]] = sane(value)

    def last(self, now_s: float, seconds: float) -> Table:
        """Return the buckets up to that of ``now_s``, oldest first: (buckets, columns), a copy."""
        count = min(max(1, int(seconds // BUCKET_S)), BUCKETS)
        now = int(now_s // BUCKET_S)
        if self._newest is None:
            return np.tile(self._empty, (count, 1))
        table: Table = self._rows[np.arange(now - count + 1, now + 1) % BUCKETS]
        ahead = min(max(now - self._newest, 0), count)  # time went on and nothing came
        if ahead:
            table[count - ahead :] = self._empty
        return table

    def column(self, table: Table, name: str) -> Table:
        """Return one column of a table of this series."""
        found: Table = table[:, self.columns[name]]
        return found


def sane(value: float) -> float:
    """Return a figure that somebody else sent so that sums of many stay numbers; no true one is changed."""
    return min(max(value, -MOST), MOST)


def times_s(now_s: float, count: int) -> list[float]:
    """Return when each of the last ``count`` buckets began, oldest first."""
    now = int(now_s // BUCKET_S)
    return [float(one * BUCKET_S) for one in range(now - count + 1, now + 1)]
