"""The bench of decisions runs and tells every policy on every load."""

from __future__ import annotations

from tools.bench.policy import Load, measure

SMALL = (Load("four on one edge", 1, 4, 1), Load("five on two edges", 2, 5, 1, 50.0))


def test_every_policy_is_timed_on_every_load() -> None:
    runs = list(measure(("a2c", "pricing", "sequential", "greedy"), 2, 0, SMALL))
    assert [(run.load, run.policy) for run in runs] == [
        (load.name, policy) for load in SMALL for policy in ("a2c", "pricing", "sequential", "greedy")
    ]
    assert all(len(run.decide_ms) == 2 and min(run.decide_ms) > 0 for run in runs)
    assert {run.target_ms for run in runs if run.load == "five on two edges"} == {50.0}


def test_what_takes_minutes_is_left_out() -> None:
    many = Load("many on one edge", 1, 201, 1)
    assert list(measure(("sequential",), 1, 0, (many,))) == []
