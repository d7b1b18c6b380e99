"""Differences between arms: what is true is found, what is not there is not claimed, and what is thin says so."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from tests.tools.pilot.made import drawn
from tools.pilot.estimates import Compared, Figures, compare, figures, widened
from tools.pilot.frames import COLUMNS, OUTCOMES, WASH_OUT, Frames
from tools.pilot.schedule import Block, Stretch
from wire.messages import Outcome
from wire.plan import Plan

HEAVY, SPLIT, STRANGE = Plan("heavy", "output", "none"), Plan("heavy", "s2", "q2"), Plan("own", "s1", "q8")


def latency(told: Figures, arm: str, seed: int = 0) -> Compared:
    found = compare(told, arm, "latency_ms", np.random.default_rng(seed))
    assert found is not None
    return found


def test_a_known_effect_is_found_beneath_a_drift_that_is_larger() -> None:
    told = drawn(8, np.random.default_rng(1), {"current": -20.0, "remote": 20.0})
    local, remote = latency(told, "local"), latency(told, "remote")
    assert local.interval is not None and remote.interval is not None and remote.ratio_interval is not None
    assert local.interval.low < -20 < local.interval.high < 0
    assert remote.interval.low < -40 < remote.interval.high < 0
    assert (local.verdict, remote.verdict, remote.rounds) == ("lower", "lower", 8)
    assert remote.ratio_interval.low < remote.ratio_interval.high < 1
    assert local.interval.half < 12, "the drift of 30 ms cancels within rounds"


@pytest.mark.parametrize("rounds", [4, 8])
def test_without_an_effect_the_interval_covers_zero_about_as_often_as_it_says(
    rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.pilot.estimates.DRAWS", 500)
    rng = np.random.default_rng(7)
    covered = [latency(drawn(rounds, rng), "greedy", i).verdict == "no difference shown" for i in range(400)]
    # 95 % of 400 are 380; the standard error is 4.4. A percentile bootstrap of four rounds would cover 79 %.
    assert 360 <= sum(covered) <= 396


def test_too_few_rounds_give_an_estimate_and_no_verdict() -> None:
    found = latency(drawn(3, np.random.default_rng(1), {"local": 100.0}), "local")
    assert (found.interval, found.ratio_interval, found.verdict) == (None, None, "too few rounds to say")
    assert found.difference < -50


def test_a_round_that_lacks_one_of_both_blocks_is_left_out() -> None:
    told = drawn(5, np.random.default_rng(1))
    last = max(i for i, one in enumerate(told.stretches) if one.block.arm == "local")
    cut = tuple(dataclasses.replace(one, is_whole=i != last) for i, one in enumerate(told.stretches))
    assert latency(dataclasses.replace(told, stretches=cut), "local").rounds == 4
    assert latency(dataclasses.replace(told, stretches=cut), "remote").rounds == 5
    none = dict(told.count) | {"latency_ms": np.zeros(20)}
    assert compare(dataclasses.replace(told, count=none), "local", "latency_ms", np.random.default_rng(0)) is None


def test_intervals_are_widened_to_those_of_student() -> None:
    """Of many draws that are normal, the interval is the estimate and t(7) standard errors of 8 rounds beside it."""
    draws = np.random.default_rng(0).normal(50.0, 2.0 * math.sqrt(7 / 8), 200_000)  # how a bootstrap of 8 would spread
    found = widened(50.0, draws, 8)
    assert found is not None
    assert found.low == pytest.approx(50 - 2.3646 * 2.0, abs=0.1)
    assert found.high == pytest.approx(50 + 2.3646 * 2.0, abs=0.1)
    assert widened(50.0, draws, 3) is None


def frame(place: int, outcome: Outcome, plan: int = 0, **more: float) -> dict[str, float]:
    return dict.fromkeys(COLUMNS, 0.0) | {"place": place, "outcome": OUTCOMES.index(outcome), "plan": plan, **more}


def test_the_figures_of_a_block_counted_by_hand() -> None:
    rows = [
        frame(0, Outcome.DEVICE, latency_ms=50, energy_mj=10, labelled=1, right=1),
        frame(0, Outcome.EDGE, plan=1, latency_ms=150, energy_mj=4, labelled=1, sent_bytes=900),
        frame(0, Outcome.FALLBACK, plan=1, latency_ms=310, energy_mj=12, sent_bytes=900, metered=1),
        frame(0, Outcome.DROPPED, latency_ms=999, energy_mj=0),
        frame(WASH_OUT, Outcome.DEVICE, latency_ms=5000, energy_mj=5000),
        frame(1, Outcome.EDGE, plan=2, latency_ms=80, energy_mj=6, sent_bytes=100),
    ]
    place = np.array([row.pop("place") for row in rows], np.int64)
    columns = {name: np.array([row[name] for row in rows]) for name in COLUMNS}
    stretches = (
        Stretch(Block(0, 0, "local"), 0, 1, 2), Stretch(Block(1, 0, "current"), 2, 3, 4),
    )  # fmt: skip
    frames = Frames(columns, place, ("cam",), (HEAVY, SPLIT, STRANGE), np.zeros(0, np.int64), 0, 0)
    told = figures(frames, stretches, {"cam": 300.0}, {HEAVY: 0.86, SPLIT: 0.80})
    first, second = np.array([0]), np.array([1])

    def both(key: str) -> tuple[Any, Any]:
        return told.mean(key, first), told.mean(key, second)

    assert told.frames.tolist() == [4, 1]
    assert both("latency_ms") == (170.0, 80.0)
    assert both("latency_p50_ms") == (150.0, 80.0)
    assert both("latency_p95_ms") == (310.0, 80.0)
    assert both("energy_measured_mj") == (12.0, None)
    assert both("energy_modelled_mj") == (pytest.approx(14 / 3), 6.0)
    assert both("accuracy") == (0.5, None)
    assert both("accuracy_catalog") == (pytest.approx((0.86 + 0.80 + 0.86) / 3), None), "a fallback ran the whole"
    assert both("fallback_share") == (0.25, 0.0)
    assert both("dropped_share") == (0.25, 0.0)
    assert both("late_share") == (pytest.approx(1 / 3), 0.0)
    assert both("sent_bytes") == (450.0, 100.0)
    assert {name: counts.tolist() for name, counts in told.outcomes.items()} == {
        "edge": [1, 1], "device": [1, 0], "fallback": [1, 0], "dropped": [1, 0],
    }  # fmt: skip
