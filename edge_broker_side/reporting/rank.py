"""Which of many values is their percentile: one definition for the store, the live view and the metrics server."""

from __future__ import annotations


def rank(count: int, percent: float) -> int:
    """Return the place, from 0, of a percentile among ``count`` sorted values (1 or more).

    Nearest rank as InfluxDB's ``PERCENTILE`` takes it, ``floor(n * p / 100 + 0.5) - 1`` (measured on 1.6.7), so that a
    report gives the same figure from either source.
    """
    return max(int(count * percent / 100 + 0.5) - 1, 0)
