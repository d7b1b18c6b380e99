"""When to send which points to the metrics server: batches, back-off, and the search for points that it refuses."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from edge_broker_side.influx import InfluxError, PointsRefused, TooLarge, Unavailable
from edge_broker_side.store_file import Row

MIN_SIZE_BYTES = 64 * 1024
"""However small a server wants its requests: a line alone is smaller than that."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How much at once, and how often."""

    points: int
    """Of a batch, at most."""
    size_bytes: int
    """Of a batch's lines, at most."""
    period_s: float
    """Between two looks at the store while fewer than half a batch come: a server likes few large requests."""
    backoff_min_s: float
    backoff_max_s: float


@dataclass(frozen=True, slots=True)
class Fetch:
    """Look into the store for so much."""

    points: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Send:
    """Write these to the server."""

    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Wait:
    """There is nothing to do until then."""

    until_s: float


class Forwarding:
    """What a forwarder does next. Pure: it is told the time and what happened; points come and go in their order."""

    def __init__(self, pace: Pace, rng: random.Random) -> None:
        self._pace = pace
        self._rng = rng
        self._size_bytes = pace.size_bytes
        self._pieces: list[Sequence[Row]] = []
        """What is left of the batch, the next piece last."""
        self._failures = 0
        """In a row."""
        self._full = False
        self._at_s = 0.0

    def next(self, now_s: float) -> Fetch | Send | Wait:
        """Return the next step."""
        if now_s < self._at_s:
            return Wait(self._at_s)
        if self._pieces:
            return Send(self._pieces[-1])
        return Fetch(self._pace.points, self._size_bytes)

    def fetched(self, rows: Sequence[Row], now_s: float) -> None:
        """Take a batch that the store gave, empty where nothing waits."""
        self._pieces = [rows] if rows else []
        self._full = 2 * len(rows) > self._pace.points or 2 * sum(len(row.line) for row in rows) > self._size_bytes
        if not rows:
            self._at_s = now_s + self._pace.period_s

    def accepted(self, now_s: float) -> None:
        """The piece is on the server, and that is noted."""
        self._pieces.pop()
        self._failures = 0
        if not self._pieces and not self._full:
            self._at_s = now_s + self._pace.period_s

    def failed(self, error: InfluxError, now_s: float) -> Sequence[Row]:
        """Take in why the server has not all of the piece; return rows that it will never take.

        A piece that it refuses is halved until what it refuses is one point. Those are to be noted as dead letters.
        """
        if isinstance(error, PointsRefused | TooLarge):
            return self._refused(error)
        if isinstance(error, Unavailable):
            delay_s = min(self._pace.backoff_min_s * 2.0**self._failures, self._pace.backoff_max_s)
            delay_s = max(
                self._rng.uniform(0.5, 1.0) * delay_s, (error.retry_after_s or 0.0) * self._rng.uniform(1, 1.1)
            )
        else:  # somebody has to change something: that takes time
            delay_s = self._rng.uniform(0.5, 1.0) * self._pace.backoff_max_s
        self.postpone(now_s, delay_s)
        return ()

    def postpone(self, now_s: float, delay_s: float) -> None:
        """Do nothing for a while, then go on with the same piece."""
        self._failures = min(self._failures + 1, 30)
        self._at_s = now_s + delay_s

    def hurry(self) -> None:
        """Send what waits at once, unless the server is to be left alone."""
        if not self._failures:
            self._at_s = 0.0

    def forget(self) -> None:
        """The store begins elsewhere: fetch anew."""
        self._pieces = []

    def _refused(self, error: InfluxError) -> Sequence[Row]:
        piece = self._pieces.pop()
        self._failures = 0
        if len(piece) == 1:
            return piece
        if isinstance(error, TooLarge):
            half_bytes = sum(len(row.line) + 1 for row in piece) // 2
            self._size_bytes = max(min(half_bytes, self._size_bytes), MIN_SIZE_BYTES)
        middle = len(piece) // 2
        self._pieces += [piece[middle:], piece[:middle]]
        return ()
