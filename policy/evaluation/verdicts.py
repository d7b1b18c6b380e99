"""What tables and charts say of results: which policies are shown, by what names, and where learning helped."""

from __future__ import annotations

from enum import StrEnum

from policy.evaluation.results import PolicyResult, Results

LEARNED = "a2c"
COLUMNS = (LEARNED, "pricing", "sequential", "greedy", "best_static", "oracle_observed")
"""Policies of the overview, and of charts that have no room for all."""
COORDINATED = ("pricing", "sequential")
"""The references that learning must beat to be worth its while."""
_LABELS = {
    "pricing": "pricing + sweep",
    "linucb": "LinUCB",
    "oracle_observed": "oracle on observed",
    "oracle_clairvoyant": "clairvoyant oracle",
    "oracle_battery": "battery oracle",
}


class Verdict(StrEnum):
    """Of a difference with its 95 % interval."""

    ABOVE = "above"
    LEVEL = "level"
    BELOW = "below"


MARKS = {Verdict.ABOVE: "▲", Verdict.LEVEL: "=", Verdict.BELOW: "▼"}


def label(policy: str) -> str:
    """Return the name of a policy in words."""
    return _LABELS.get(policy, policy.replace("_", " "))


def shown(results: Results, scenario: str) -> list[str]:
    """Return the policies of ``COLUMNS`` that a scenario has."""
    return [policy for policy in COLUMNS if policy in results["scenarios"][scenario]]


def verdict(results: Results, scenario: str, reference: str) -> Verdict | None:
    """Tell the learned policy from a reference, seed by seed; ``None`` where they were not compared."""
    difference = results["differences"].get(scenario, {}).get(f"{LEARNED}-{reference}")
    if difference is None:
        return None
    low, high = difference["ci95"]
    return Verdict.ABOVE if low > 0 else Verdict.BELOW if high < 0 else Verdict.LEVEL


def best_reference(results: Results, scenario: str) -> str | None:
    """Return the honest reference with the highest reward among those the learned policy was compared with."""
    compared = [key.removeprefix(f"{LEARNED}-") for key in results["differences"].get(scenario, {})]
    here = results["scenarios"][scenario]
    honest = [policy for policy in compared if policy in here and not policy.startswith("oracle")]
    return max(honest, key=lambda policy: here[policy]["reward"], default=None)


def half_width(result: PolicyResult) -> float:
    """Return half of the width of the score's interval."""
    low, high = result["score_ci95"]
    return (high - low) / 2


DETAILS = (
    "policy", "score", "reward", "p50 ms", "p95 ms", "mJ", "accuracy", "edge", "device", "fallback", "dropped",
)  # fmt: skip


def details(results: Results, scenario: str) -> list[list[str]]:
    """Return one row per policy of a scenario under ``DETAILS``."""
    here = results["scenarios"][scenario]
    return [_detail(policy, here[policy]) for policy in results["policies"] if policy in here]


def _detail(policy: str, result: PolicyResult) -> list[str]:
    shares = result["shares"]
    return [
        label(policy),
        f"{result['score']:.3f} ± {half_width(result):.3f}",
        f"{result['reward']:.3f}",
        f"{result['latency_ms_p50']:,.0f}",
        f"{result['latency_ms_p95']:,.0f}",
        f"{result['energy_mj']:,.0f}",
        f"{100 * result['accuracy']:.1f} %",
        *(
            f"{100 * share:.0f} %"
            for share in (shares["edge"], shares["device"], shares["fallback"], shares["dropped"])
        ),
    ]


OVERVIEW = ("scenario", *map(label, COLUMNS), *(f"{LEARNED} to {label(policy)}" for policy in COORDINATED))


def overview(results: Results) -> list[list[str | None]]:
    """Return one row of scores per scenario under ``OVERVIEW``; the marks are those of ``MARKS``."""
    rows: list[list[str | None]] = []
    for scenario, here in results["scenarios"].items():
        scores = [f"{here[policy]['score']:.3f}" if policy in here else None for policy in COLUMNS]
        found = [verdict(results, scenario, reference) for reference in COORDINATED]
        rows.append([scenario, *scores, *(f"{MARKS[one]} {one}" if one else None for one in found)])
    return rows
