"""One thing the doctor looked at: its value, a verdict, and in words what to change; and the rules all checks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

SOON_DAYS = 60
"""A certificate that ends within so many days: time to reach boards that are not always on."""
LAST_DAYS = 7


class Verdict(StrEnum):
    """How a thing is."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the doctor's report."""

    what: str
    value: str
    verdict: Verdict = Verdict.OK
    advice: str = ""
    """What to change; empty where all is well."""


def above(value: float, warning: float, bad: float) -> Verdict:
    """Judge a figure that should be low."""
    return Verdict.BAD if value > bad else Verdict.WARNING if value > warning else Verdict.OK


def below(value: float, warning: float, bad: float) -> Verdict:
    """Judge a figure that should be high."""
    return Verdict.BAD if value < bad else Verdict.WARNING if value < warning else Verdict.OK


def advised(what: str, value: str, verdict: Verdict, advice: str) -> Check:
    """Return a check whose advice is told only where something is to be changed."""
    return Check(what, value, verdict, advice if verdict is not Verdict.OK else "")


def certificate(what: str, days_left: float, how: str) -> Check:
    """Judge when a certificate ends."""
    return advised(what, f"{days_left:.0f} days left", below(days_left, SOON_DAYS, LAST_DAYS), how)


def distribution(values_ms: Sequence[float]) -> tuple[float, float, float]:
    """Return median, 95th percentile (nearest rank) and largest of some times."""
    ordered = sorted(values_ms)
    rank = max(0, -(-len(ordered) * 95 // 100) - 1)
    return ordered[(len(ordered) - 1) // 2], ordered[rank], ordered[-1]


def spread(values_ms: Sequence[float], of: str) -> str:
    """Return the distribution in words."""
    p50, p95, most = distribution(values_ms)
    return f"p50 {p50:.1f} ms, p95 {p95:.1f} ms, max {most:.1f} ms of {len(values_ms)} {of}"
