"""What the fleet's policy is trained on: which scenarios, how varied, in which proportion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from policy.simulation.replay import Recording, replayed
from policy.simulation.scenario import Scenario, load_scenario
from policy.simulation.world import Source

FAMILIES = ("resnet", "vgg")
"""``densenet`` is left out, so that ``unseen_family`` is what its name says."""
SPREAD = 0.25
MOST_PLANS = 24
FLEETS = 16
PERIODS = 5
MOST_DEVICES = 12
"""Devices of one simulated fleet; a larger site is sampled."""
MOST_PERIODS = 60


@dataclass(frozen=True)
class Lesson:
    """A scenario with how much of it is played per update."""

    scenario: Scenario
    fleets: int = FLEETS
    periods: int = PERIODS
    recorded: Source | None = None
    """Links and rates of a real site instead of drawn ones."""


def standard(families: Sequence[str] = FAMILIES) -> tuple[Lesson, ...]:
    """Return the lessons behind the shipped weights, in the order in which they take turns."""

    def lesson(name: str, periods: int = PERIODS, fleets: int = FLEETS, **changes: object) -> Lesson:
        wide = {"families": tuple(families), "spread": SPREAD, "most_plans": MOST_PLANS, **changes}
        return Lesson(replace(load_scenario(name), **wide), fleets, periods)  # type: ignore[arg-type]

    return (
        lesson("contention_8"),
        lesson("late_telemetry"),
        lesson("misspecified_edge", devices=8, edge_truth=(0.33, 4.5)),
        lesson("outage"),
        lesson("battery_day", discount=0.0, fleets=12, periods=12),
        lesson("bursts"),
        lesson("contention_16", fleets=8),
        lesson("handover"),
        lesson("late_telemetry", devices=12, demand=(2.0, 5.0), telemetry_delay=(1, 8), fleets=12),
        lesson("misspecified_edge", devices=14, edge_truth=(0.33, 4.5), fleets=8),
        lesson("mixed_fleet"),
        lesson("outage", devices=5, demand=(0.5, 2.0), site_outage=0.03, fleets=24),
        lesson("battery_day", discount=0.0, fleets=12, periods=12, weights="mixed", battery=(0.2, 0.8)),
        lesson("half_edge", devices=12, fleets=12),
        lesson("contention_4", fleets=32),
        lesson("misspecified_edge_calibrated"),
        lesson("battery_day", discount=0.0, devices=4, fleets=16, periods=12, battery=(0.05, 0.5)),
        lesson("misspecified_edge", devices=11, demand=(2.0, 6.0), edge_truth=(0.33, 4.5), fleets=12),
        lesson("tx2_8mbps", families=(), devices=6, uplink_mbps=(1.1, 8.0, 20.0), slowdown=(0.5, 2.0), weights="mixed",
               uplink_jitter=0.2, uplink_switch=0.03, demand=(0.5, 4.0), fps=(0.3, 1.0), deadline_ms=(2000.0, 2000.0)),
        lesson("single_device", fleets=64, uplink_jitter=0.15, uplink_switch=0.05),
    )  # fmt: skip


def of_site(recording: Recording) -> tuple[Lesson, ...]:
    """Return lessons with the links, rates and edge of a real site, as they are and with news that is late."""
    low, high = recording.edge_truth
    site = replace(
        load_scenario("mixed_fleet"),
        name="site",
        title="Links and rates recorded at a site",
        devices=min(recording.devices, MOST_DEVICES),
        periods=min(recording.periods, MOST_PERIODS),
        spread=SPREAD,
        most_plans=MOST_PLANS,
        edge_truth=(low * 0.8, high * 1.25),
    )
    late = replace(site, name="site, late news", telemetry_delay=(1, 6))
    blind = replace(site, name="site, edge not calibrated", calibrated=False)
    return tuple(Lesson(one, recorded=replayed(recording)) for one in (site, site, late, blind))
