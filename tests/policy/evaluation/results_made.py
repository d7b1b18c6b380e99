"""Results made up for the tests of charts, tables and the report."""

from __future__ import annotations

from policy.evaluation.results import Difference, PolicyResult, Results

POLICIES = ("a2c", "random", "greedy", "pricing", "sequential", "oracle_observed", "oracle_clairvoyant")
SCORES = {
    "a2c": 0.97, "random": 0.0, "greedy": -0.6, "pricing": 0.95, "sequential": 0.9, "oracle_observed": 0.98,
    "oracle_clairvoyant": 1.0,
}  # fmt: skip


def a_policy(score: float) -> PolicyResult:
    """Return one policy's figures around a score."""
    return {
        "score": score,
        "score_ci95": [score - 0.01, score + 0.01],
        "score_observed": score,
        "score_observed_ci95": [score - 0.01, score + 0.01],
        "reward": score / 2,
        "reward_ci95": [score / 2 - 0.01, score / 2 + 0.01],
        "reward_by_seed": [score / 2, score / 2],
        "latency_ms_p50": 120.0,
        "latency_ms_p95": 340.0,
        "energy_mj": 510.0,
        "accuracy": 0.9,
        "shares": {"edge": 0.5, "device": 0.4, "fallback": 0.08, "dropped": 0.02},
        "plan_mix": [
            {"plan": "resnet-light/output/none", "share": 0.4},
            {"plan": "resnet-heavy/block3/q8", "share": 0.3},
            {"plan": "resnet-heavy/input/webp75", "share": 0.2},
            {"plan": "others", "share": 0.1},
        ],
        "switches": 0.1,
        "dead": 0.0,
        "regret": {"period": [0, 1, 2], "cumulated": [0.0, 0.1 * (1 - score), 0.2 * (1 - score)]},
        "decide_ms": 1.5,
    }


def a_difference(score: float, half: float) -> Difference:
    """Return a difference with an interval of so much to either side."""
    interval = [score - half, score + half]
    return {"reward": score, "ci95": interval, "score": score, "score_ci95": interval}


def made(gains: dict[str, float], policies: tuple[str, ...] = POLICIES) -> Results:
    """Return results with a scenario for each gain of the learned policy over pricing, intervals ± 0.01."""
    learned = "a2c" in policies
    return {
        "schema": 1,
        "suite": "made up",
        "command": "splitfleet policy evaluate --suite 'a & b'",
        "modelled": True,
        "seeds": [1, 2],
        "fleets": 8,
        "fleets_of": dict.fromkeys(gains, 8),
        "seconds": 12.0,
        "titles": {name: f"About {name}" for name in gains},
        "versions": dict.fromkeys(gains, 1),
        "oracle": dict.fromkeys(gains, "oracle_clairvoyant"),
        "policies": list(policies),
        "scenarios": {name: {policy: a_policy(SCORES[policy]) for policy in policies} for name in gains},
        "differences": {
            name: {"a2c-pricing": a_difference(gain, 0.01), "a2c-sequential": a_difference(gain + 0.05, 0.01)}
            for name, gain in gains.items()
            if learned
        },
    }
