"""Return on investment: arithmetic that a reader can follow by hand, and intervals that are carried through."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from policy.table import Array
from tests.tools.pilot.made import drawn, of_blocks
from tools.pilot.estimates import Figures, compare
from tools.pilot.kpi import Adoption, KpiSheet, Operation, Worth
from tools.pilot.returns import Amount, accuracy_key, frames_per_second, payback, returns
from tools.pilot.schedule import Block, Stretch
from wire.messages import Outcome

SHEET = KpiSheet(
    Worth(second_of_latency=0.01, kilowatt_hour=0.36, wrong_answer=0.002, lost_frame=0.05, gigabyte=2.0),
    Operation(devices=10, frames_per_device_month=1_000_000),
    Adoption(once=3000.0, monthly=100.0),
)
RNG = np.random.default_rng(0)


def by_hand(rounds: int = 1) -> Figures:
    """Per round 100 frames under ``local`` (10 of them lost) and 200 under the current policy (none)."""
    arms = ("local", "current") * rounds
    stretches = tuple(Stretch(Block(i, i // 2, arm), 0.0, 5.0, 25.0) for i, arm in enumerate(arms))

    def twice(*values: float) -> Array:
        return np.array(values * rounds, np.float64)

    frames = np.array([100, 200] * rounds, np.int64)
    totals = {
        "latency_ms": twice(90 * 300.0, 200 * 100.0),
        "energy_modelled_mj": twice(100 * 1000.0, 200 * 400.0),
        "accuracy": twice(36.0, 90.0),
        "sent_bytes": twice(0.0, 200 * 5000.0),
    }
    told = of_blocks(stretches, totals, frames, accuracy=twice(45.0, 100.0), latency_ms=twice(90.0, 200.0))
    lost = {str(Outcome.DROPPED): np.array([10, 0] * rounds, np.int64)}
    return dataclasses.replace(told, outcomes=dict(told.outcomes) | lost)


def test_a_month_worked_out_by_hand() -> None:
    found = returns(SHEET, by_hand(), "local", 10_000_000, RNG)
    assert found is not None
    # Per frame, local less current. Latency: 0.01 × (0.9 × 0.300 s − 0.100 s); energy: 600 mJ at 1e-10 EUR per mJ;
    # wrong: 0.002 × (0.9 × 0.2 − 0.1); lost: 0.05 × 0.1; data: 2e-9 × (0 − 5000).
    parts = {"latency": 0.0017, "energy": 6e-8, "wrong answers": 0.00016, "lost frames": 0.005, "data": -0.00001}
    assert found.saved_per_million == {name: pytest.approx(1e6 * value) for name, value in parts.items()}
    saving = sum(parts.values())
    assert found.saving_per_million.estimate == pytest.approx(1e6 * saving)
    assert found.net_per_month.estimate == pytest.approx(1e7 * saving - 100)
    assert found.payback_months is not None
    assert found.payback_months.estimate == pytest.approx(3000 / (1e7 * saving - 100))
    assert (found.net_per_month.low, found.payback_months.low) == (None, None), "one round has no interval"


def test_rounds_that_are_all_alike_leave_no_doubt() -> None:
    found = returns(SHEET, by_hand(5), "local", 10_000_000, RNG)
    assert found is not None and found.net_per_month.low is not None
    assert found.net_per_month.low == pytest.approx(found.net_per_month.estimate)
    assert found.rounds == 5


def test_the_interval_is_that_of_the_difference_it_rests_on() -> None:
    told = drawn(6, np.random.default_rng(3), {"current": -20.0})
    latency_alone = KpiSheet(Worth(second_of_latency=1.0), Operation(1), Adoption())
    found = returns(latency_alone, told, "local", 1000.0, np.random.default_rng(5))
    compared = compare(told, "local", "latency_ms", np.random.default_rng(5))
    assert found is not None and compared is not None and compared.interval is not None
    assert found.saving_per_million.estimate == pytest.approx(-1000 * compared.difference)
    assert found.saving_per_million.low == pytest.approx(-1000 * compared.interval.high)
    assert found.saving_per_million.high == pytest.approx(-1000 * compared.interval.low)


def test_payback_is_never_claimed_where_nothing_may_be_earned() -> None:
    assert payback(1200.0, Amount(100.0, 50.0, 200.0)) == Amount(12.0, 6.0, 24.0)
    assert payback(1200.0, Amount(100.0, -5.0, 200.0)) == Amount(12.0, 6.0, None)
    assert payback(1200.0, Amount(100.0)) == Amount(12.0)
    assert payback(1200.0, Amount(-1.0, -5.0, 200.0)) is None
    assert payback(1200.0, Amount(0.0)) is None


def test_wrong_answers_come_from_labels_else_from_the_catalog_else_they_are_left_out() -> None:
    told = by_hand()
    catalog = dataclasses.replace(SHEET, accuracy="catalog")
    assert accuracy_key(SHEET, told) == accuracy_key(catalog, told) == "accuracy"
    unlabelled = dataclasses.replace(told, count=dict(told.count) | {"accuracy": np.zeros(2)})
    assert accuracy_key(SHEET, unlabelled) is None
    found = returns(SHEET, unlabelled, "local", 1.0, RNG)
    assert found is not None and found.saved_per_million["wrong answers"] == 0
    both = dataclasses.replace(told, count=dict(told.count) | {"accuracy_catalog": np.ones(2)})
    assert (accuracy_key(SHEET, both), accuracy_key(catalog, both)) == ("accuracy", "accuracy_catalog")


def test_a_block_that_was_broken_off_does_not_take_the_right_answers_away() -> None:
    told = by_hand(2)
    (*whole, last) = told.stretches
    broken = dataclasses.replace(
        told,
        stretches=(*whole, dataclasses.replace(last, is_whole=False)),
        count=dict(told.count) | {"accuracy": np.array([45.0, 100.0, 45.0, 0.0])},
    )
    assert accuracy_key(SHEET, broken) == "accuracy"


def test_frames_per_second_are_those_of_one_device_in_the_measured_time() -> None:
    assert frames_per_second(by_hand(), 3) == pytest.approx(300 / (2 * 20 * 3))
    assert frames_per_second(by_hand(), 0) == 0.0
    assert returns(SHEET, by_hand(), "remote", 1.0, RNG) is None
