"""A device that goes on with an older decision refuses the newer one; it is not told that plan for a while."""

from __future__ import annotations

import dataclasses
from collections import Counter

from policy.decider import Issued
from policy.interface import FleetObservation
from policy.mask import Refusal, mask
from policy.refusals import MASKED_S, PATIENCE_S, Refusals
from tests.policy.builders import DEVICE, HEAVY_S2, HEAVY_WEBP, LIGHT_LOCAL, fleet, small_model
from tests.policy.test_decider import Site

MODEL = small_model()


def watched(*reports: tuple[int, float]) -> Refusals:
    """Told revision 3; reports of (revision, time)."""
    refusals = Refusals(Counter())
    refusals.told("cam", 3, HEAVY_S2)
    for rev, at_s in reports:
        refusals.follows("cam", rev, at_s)
    return refusals


def test_only_reports_of_an_older_revision_for_a_while_are_a_refusal() -> None:
    late = PATIENCE_S + 1
    assert watched((2, 0.0), (2, late)).plans(late) == {"cam": frozenset({HEAVY_S2})}
    assert watched((2, 0.0), (2, PATIENCE_S)).plans(late) == {}
    assert watched((2, 0.0), (3, 5.0), (2, late)).plans(late) == {}
    assert watched((2, 100.0)).plans(100.0) == {}, "a device that was silent may not have heard"
    assert watched((4, 0.0), (4, late)).plans(late) == {}
    assert Refusals(Counter()).plans(0.0) == {}


def test_a_refusal_is_forgotten_after_a_minute() -> None:
    late = PATIENCE_S + 1
    refusals = watched((2, 0.0), (2, late))
    assert refusals.plans(late + MASKED_S - 1)
    assert refusals.plans(late + MASKED_S) == {}


def test_a_decision_told_anew_is_given_time_again() -> None:
    refusals = watched((2, 0.0))
    refusals.told("cam", 4, HEAVY_WEBP)
    refusals.follows("cam", 2, PATIENCE_S + 1)
    assert refusals.plans(PATIENCE_S + 1) == {}


def test_the_mask_says_so() -> None:
    seen: FleetObservation = fleet(dataclasses.replace(DEVICE, refuses=frozenset({HEAVY_S2})))
    masked = mask(seen, MODEL.costs(seen))
    assert masked.why(0, MODEL.table.index[HEAVY_S2]) == Refusal.DEVICE_REFUSES
    assert masked.why(0, MODEL.table.index[HEAVY_WEBP]) == Refusal.ALLOWED


def test_a_device_that_refuses_a_plan_is_told_another() -> None:
    site = Site()
    told: list[Issued] = []
    for second in range(100):
        site.uplink(8e6, float(second))
        site.worker(ready=True, now_s=float(second))
        follows = max((issued.rev for issued in told if issued.plan != HEAVY_WEBP), default=0)
        site.decider.follows("cam", follows, float(second))
        told += site.decide(float(second))
    first, second_ = told
    assert first.plan == HEAVY_WEBP != second_.plan
    assert "the device was told that plan and does not follow it" in second_.reason
    assert site.decider.counters["device_refuses_plan"] == 1


def test_a_device_that_refuses_everything_ends_on_the_safe_plan() -> None:
    site = Site()
    plans = []
    for second in range(120):
        site.uplink(8e6, float(second))
        site.worker(ready=True, now_s=float(second))
        site.decider.follows("cam", 0, float(second))
        plans += [issued.plan for issued in site.decide(float(second))]
    assert LIGHT_LOCAL in plans
    assert len(plans) < 15
