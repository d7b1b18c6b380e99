"""The weights that ship: their origin is told, and under contention they beat greedy and the best static plans."""

from __future__ import annotations

from policy.actor import load_actor
from policy.evaluation.runner import evaluate
from policy.learned import WEIGHTS
from policy.references.learned import LearnedAgent
from policy.references.registry import REFERENCES
from policy.simulation.scenario import Suite, load_scenario

ABOVE_GREEDY = 0.05
ABOVE_STATIC = 0.005
"""Margins of the score, in which 0 is random and 1 the clairvoyant oracle. The best static plans are found in
hindsight, and links that seldom change leave little above them."""


def test_the_shipped_weights_beat_greedy_and_best_static_under_contention() -> None:
    """On sites that neither training nor the published tables have seen."""
    scenario = load_scenario("contention_8")
    actor = load_actor(WEIGHTS)
    agents = {
        "a2c": lambda: LearnedAgent(actor),
        "greedy": REFERENCES["greedy"],
        "best_static": REFERENCES["best_static"],
    }
    rows = evaluate(Suite("contention", (scenario,)), agents, [77_001, 77_002, 77_003], 4, lambda _: None, "")
    score = {name: row["score"] for name, row in rows["scenarios"]["contention_8"].items()}
    assert score["a2c"] >= 0.97
    assert score["a2c"] > score["greedy"] + ABOVE_GREEDY
    assert score["a2c"] > score["best_static"] + ABOVE_STATIC


def test_it_is_told_where_they_come_from() -> None:
    about = load_actor(WEIGHTS).about
    assert str(about["command"]).startswith("splitfleet policy train --seed ")
    assert {"commit", "seed", "updates", "decisions", "families"} <= about.keys()
    assert WEIGHTS.stat().st_size < 200_000
