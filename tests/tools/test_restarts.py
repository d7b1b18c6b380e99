"""A process that keeps dying is started ever more rarely; one that ran well begins anew."""

from __future__ import annotations

from tools.restarts import FIRST_S, LONGEST_S, STEADY_S, Restarts


def test_pauses_double_up_to_a_bound_and_restarts_are_counted() -> None:
    restarts, now_s, pauses = Restarts(), 100.0, []
    restarts.started("worker", now_s)
    for _ in range(8):
        pause_s = restarts.ended("worker", "code 1: no", now_s)
        pauses.append(pause_s)
        assert restarts.due(now_s + pause_s * 0.99) == []
        now_s += pause_s
        assert restarts.due(now_s) == ["worker"]
        restarts.started("worker", now_s)
        assert restarts.due(now_s + 1e6) == []
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert restarts.lives["worker"].restarts == 8 and restarts.lives["worker"].last_words == "code 1: no"
    assert pauses[0] == FIRST_S and pauses[-1] == LONGEST_S


def test_one_that_ran_for_long_is_started_again_soon() -> None:
    restarts = Restarts()
    restarts.started("worker", 0.0)
    for now_s in (1.0, 2.0, 3.0):
        restarts.ended("worker", "", now_s)
        restarts.started("worker", now_s)
    assert restarts.ended("worker", "", 3.0 + STEADY_S) == FIRST_S


def test_processes_do_not_wait_for_each_other() -> None:
    restarts = Restarts()
    for name in ("recorder", "worker"):
        restarts.started(name, 0.0)
    restarts.ended("worker", "", 5.0)
    assert restarts.due(10.0) == ["worker"]
