"""Entropy, switches and collapse of a site's plans, over a window of rounds."""

from __future__ import annotations

import math

import pytest

from policy.errors import PolicyError
from policy.monitor import Monitor, MonitorSettings
from tests.policy.builders import HEAVY_LOCAL, HEAVY_S2, HEAVY_WEBP, LIGHT_LOCAL
from wire.plan import Plan

QUICK = MonitorSettings(window_s=10.0)
VARIED = [HEAVY_S2, HEAVY_S2, HEAVY_LOCAL, LIGHT_LOCAL]


def watched(*plans: Plan, seconds: int = 10, settings: MonitorSettings = QUICK) -> Monitor:
    monitor = Monitor(6, settings)
    for second in range(seconds + 1):
        monitor.saw(float(second), {f"cam-{i}": plan for i, plan in enumerate(plans)})
    return monitor


def test_nothing_seen_is_no_mix() -> None:
    mix = Monitor(6).mix()
    assert (mix.plans, mix.top_share, mix.entropy, mix.switches_per_minute) == ((), 0.0, 0.0, 0.0)


def test_shares_and_entropy_of_a_mix() -> None:
    """Half, a quarter, a quarter: 1.5 bit of the 2 that four devices can have."""
    mix = watched(*VARIED).mix()
    assert mix.plans[0] == (HEAVY_S2, 0.5)
    assert mix.entropy == pytest.approx(1.5 * math.log(2))
    assert mix.entropy_share == pytest.approx(0.75)
    assert mix.switches_per_minute == 0.0


def test_switches_are_counted_per_device_and_minute_and_forgotten_after_the_window() -> None:
    monitor = Monitor(6, QUICK)
    for second in range(11):
        plan = HEAVY_S2 if second in (0, 1, 2) else LIGHT_LOCAL
        monitor.saw(float(second), {"a": plan, "b": HEAVY_S2})
    assert monitor.mix().switches_per_minute == pytest.approx(1 / (2 * 10 / 60))
    for second in range(11, 15):
        monitor.saw(float(second), {"a": LIGHT_LOCAL, "b": HEAVY_S2})
    assert monitor.mix().switches_per_minute == 0.0


@pytest.mark.parametrize(
    ("plans", "seconds", "reference", "collapsed"),
    [
        ([HEAVY_S2] * 4, 10, VARIED, True),
        ([HEAVY_S2] * 4, 5, VARIED, False),  # not for a whole window
        ([HEAVY_S2] * 3, 10, VARIED[1:], False),  # too few devices to tell
        (VARIED, 10, [HEAVY_S2] * 4, False),
        ([HEAVY_S2] * 4, 10, [HEAVY_WEBP] * 4, False),  # anybody would give all the same
        ([HEAVY_S2] * 4, 10, [], False),
        ([HEAVY_S2] * 9 + [LIGHT_LOCAL], 10, VARIED, False),
        ([HEAVY_S2] * 39 + [LIGHT_LOCAL], 10, VARIED * 10, True),
    ],
)
def test_collapsed_is_one_plan_for_nearly_all_where_another_policy_would_vary(
    plans: list[Plan], seconds: int, reference: list[Plan], collapsed: bool
) -> None:
    words = watched(*plans, seconds=seconds).collapse(reference)
    assert bool(words) == collapsed
    assert not collapsed or f"devices follow {HEAVY_S2} for 10 s" in words


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(PolicyError, match="monitor window_s = 0"):
        MonitorSettings(window_s=0.0)
