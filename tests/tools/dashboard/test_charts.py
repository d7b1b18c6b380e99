"""The charts: what a series holds at its time, and nothing that a browser would run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.tools.dashboard.messages import LOCAL, SHIP, line, load, outcomes, policy, telemetry
from tools.dashboard import charts
from tools.dashboard.charts import Clock
from tools.dashboard.device_memory import DeviceMemory
from tools.dashboard.memory import POLICY_GAUGES, WORKER_GAUGES, SiteMemory
from tools.dashboard.series import Series
from wire import channels
from wire.channels import Address
from wire.messages import EnergySource, Outcome, PlanShare
from wire.plan import Plan, parse_plan

NOW_S = 10_000.0
WALL_S = 1_790_000_000.0
CLOCK = Clock(NOW_S, WALL_S, NOW_S - 3600)
HOSTILE = ':x"><img src=x onerror=alert(1)>'


def data(options: dict[str, Any], name: str) -> list[list[Any]]:
    (found,) = (one["data"] for one in options["series"] if one["name"] == name)
    return [pair for pair in found if pair[1] is not None]


def at(seconds_ago: float) -> int:
    """Return the beginning of the bucket of that moment, as the axis has it."""
    return round(1000 * (WALL_S - (seconds_ago + (NOW_S - seconds_ago) % 5)))


def test_the_plan_stands_against_the_bandwidth() -> None:
    device = DeviceMemory("cam-1", NOW_S)
    device.take_telemetry(telemetry(SHIP, uplink_bps=20e6), NOW_S - 60)
    device.take_telemetry(telemetry(LOCAL, uplink_bps=0.25e6), NOW_S)
    options = charts.bandwidth_and_plan(device, CLOCK)
    assert data(options, "uplink") == [[at(60), 20.0], [at(0), 0.25]]
    assert data(options, "plan") == [[at(60), SHIP], [at(0), LOCAL]]
    assert options["yAxis"][1]["data"] == [SHIP, LOCAL]
    assert options["yAxis"][0]["min"] == 0.1


def test_a_frames_time_in_parts_and_how_frames_ended() -> None:
    device = DeviceMemory("cam-1", NOW_S)
    told = [line(1, head_ms=10.0, network_ms=20.0), line(2, head_ms=30.0, network_ms=40.0), line(3, Outcome.DROPPED)]
    device.take_outcomes(outcomes(1, 3, *told), NOW_S)
    parts = charts.latency(device, CLOCK)
    assert data(parts, "head") == [[at(0), 20.0]] and data(parts, "network") == [[at(0), 30.0]]
    assert data(parts, "capture to answer") == [[at(0), 50.0]]
    ended = charts.outcomes(device, CLOCK)
    assert data(ended, "edge") == [[at(0), 2 / 5]] and data(ended, "dropped") == [[at(0), 1 / 5]]


def test_measured_and_modelled_energy_are_lines_of_their_own() -> None:
    device = DeviceMemory("cam-1", NOW_S)
    told = [line(1, energy_mj=10.0), line(2, energy_mj=30.0, energy_source=EnergySource.MEASURED)]
    device.take_outcomes(outcomes(1, 2, *told), NOW_S)
    device.take_telemetry(telemetry(battery_share=0.5), NOW_S)
    options = charts.energy(device, CLOCK)
    assert [one["name"] for one in options["series"]] == ["measured", "modelled", "battery"]
    assert [data(options, name)[0][1] for name in ("measured", "modelled", "battery")] == [30.0, 10.0, 50.0]


def test_gauges_of_several_workers_and_of_a_policy() -> None:
    memory = SiteMemory()
    for name, queued in (("edge-1", 3), ("edge-2", 5)):
        memory.take(Address("site", name, channels.WORKER_LOAD), load(queued=queued), NOW_S, retained=False)
    shown = charts.gauges({name: one.series for name, one in memory.workers.items()}, "queued", CLOCK)
    assert [data(shown, name) for name in ("edge-1", "edge-2")] == [[[at(0), 3.0]], [[at(0), 5.0]]]
    memory.take(Address("site", "policy", channels.POLICY_STATE), policy(entropy_share=0.25), NOW_S, retained=False)
    varied = charts.varied(memory.policies["policy"].series, CLOCK)
    assert data(varied, "entropy over its maximum") == [[at(0), 25.0]]


def test_a_report_beside_its_bucket_makes_no_gap_and_a_longer_silence_does() -> None:
    device = DeviceMemory("cam-1", NOW_S)
    for ago, uplink in ((40, 4e6), (30, 3e6), (10, 1e6), (5, 2e6)):
        device.take_telemetry(telemetry(uplink_bps=uplink), NOW_S - ago)
    assert data(charts.bandwidth_and_plan(device, CLOCK), "uplink") == [
        [at(40), 4.0], [at(35), 4.0], [at(30), 3.0], [at(10), 1.0], [at(5), 2.0],
    ]  # fmt: skip


def test_charts_begin_with_the_dashboard_and_at_most_a_quarter_of_an_hour_ago() -> None:
    begins = [Clock(NOW_S, WALL_S, NOW_S - ago).begun_s for ago in (0, 300, 3600)]
    assert begins == [NOW_S - 120, NOW_S - 300, NOW_S - 900]


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def test_what_others_wrote_is_never_a_key_and_all_of_it_is_json() -> None:
    """NiceGUI runs the value of a key that begins with a colon."""
    device = DeviceMemory(HOSTILE, NOW_S)
    device.take_telemetry(telemetry(Plan(HOSTILE, HOSTILE, HOSTILE), uplink_bps=0.0, battery_share=0.1), NOW_S)
    device.take_outcomes(outcomes(1, 1, line(1, reason=HOSTILE)), NOW_S)
    mix = policy(plans=(PlanShare(Plan(HOSTILE, HOSTILE, HOSTILE), 1, 0.5), PlanShare(parse_plan(SHIP), 1, 0.5)))
    drawn = [
        charts.bandwidth_and_plan(device, CLOCK), charts.latency(device, CLOCK), charts.outcomes(device, CLOCK),
        charts.energy(device, CLOCK), charts.plan_mix(mix),
        charts.gauges({HOSTILE: Series((), WORKER_GAUGES)}, "queued", CLOCK),
        charts.varied(Series((), POLICY_GAUGES), CLOCK),
    ]  # fmt: skip
    for options in drawn:
        assert not [key for key in _keys(options) if key.startswith(":")]
        json.dumps(options, allow_nan=False)
        assert options.get("tooltip", {}).get("renderMode", "richText") == "richText", "drawn, not HTML"
