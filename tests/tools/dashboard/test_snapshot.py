"""One picture for all: rows as they are read, and which of them look different from before."""

from __future__ import annotations

import json

from tests.tools.dashboard.messages import AT_MS, LOCAL, SHIP, decision, line, load, outcomes, telemetry
from tools.dashboard import charts
from tools.dashboard.charts import Clock
from tools.dashboard.concerns import LinkHealth
from tools.dashboard.fleet_page import changes, totals_markup
from tools.dashboard.memory import SiteMemory
from tools.dashboard.snapshot import Photographer, device_row, fleet_totals, percentile, seen_words
from wire import channels
from wire.channels import Address
from wire.messages import DeviceState, EnergySource, Outcome, State

NOW_S = 10_000.0
HEALTHY = LinkHealth(True, NOW_S - 3600)


def site(*names: str) -> SiteMemory:
    memory = SiteMemory()
    for name in names:
        memory.take(Address("site", name, channels.STATE), State(DeviceState.READY, 1), NOW_S, retained=False)
        memory.take(Address("site", name, channels.TELEMETRY), telemetry(), NOW_S, retained=False)
    return memory


def test_a_row_says_what_the_last_minute_was() -> None:
    memory = site("cam-1")
    device = memory.devices["cam-1"]
    device.take_telemetry(telemetry(uplink_bps=1_234_567, rtt_ms=20.6, battery_share=0.5, fps=4.96), NOW_S)
    lines = [line(n, latency_ms=10.0 * n, energy_mj=3.0) for n in range(1, 20)]
    lines.append(line(20, Outcome.FALLBACK, latency_ms=900.0, energy_mj=7.0))
    old = line(21, captured_ms=AT_MS - 120_000)
    device.take_outcomes(outcomes(1, 21, *lines, old), NOW_S)
    row = device_row(device, HEALTHY, NOW_S)
    assert row["mix"] == [19, 0, 1, 0] and row["fallback"] == 5 and row["dropped"] == 0
    assert (row["uplink"], row["rtt"], row["battery"], row["fps"]) == (1.2, 21.0, 50, 5.0)
    assert (row["energy"], row["source"]) == (3.2, "modelled")
    assert (row["plan"], row["state"], row["seen"]) == (SHIP, "ready", "now")
    device.take_outcomes(outcomes(2, 22, line(22, energy_mj=9.0, energy_source=EnergySource.MEASURED)), NOW_S)
    row = device_row(device, HEALTHY, NOW_S)
    assert (row["energy"], row["source"]) == (9.0, "measured"), "never a mean over both"


def test_before_it_speaks_a_device_shows_what_it_was_told() -> None:
    memory = SiteMemory()
    memory.take(Address("site", "cam-1", channels.DECISION), decision(1, LOCAL), NOW_S, retained=True)
    row = device_row(memory.devices["cam-1"], HEALTHY, NOW_S)
    assert (row["plan"], row["state"], row["seen"]) == (LOCAL, "unknown", "–")
    assert (row["p50"], row["fallback"], row["energy"]) == (None, None, None)


def test_percentiles_are_of_the_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.95)) == (50.0, 95.0)
    assert percentile([7.0], 0.95) == 7.0 and percentile([], 0.5) is None


def test_only_rows_that_look_different_are_sent() -> None:
    memory, camera = site("cam-1", "cam-2"), Photographer()
    first = camera.take(memory, HEALTHY, NOW_S)
    assert [row["name"] for row in changes(first, 0, set())["add"]] == ["cam-1", "cam-2"]
    shown = set(first.rows)
    memory.devices["cam-2"].take_telemetry(telemetry(fps=5.04), NOW_S)  # is read as before
    second = camera.take(memory, HEALTHY, NOW_S + 1)
    assert changes(second, first.number, shown) == {"add": [], "update": [], "remove": []}
    memory.devices["cam-2"].take_telemetry(telemetry(LOCAL), NOW_S)
    memory.devices["cam-3"] = site("cam-3").devices["cam-3"]
    memory.forget(Address("site", "cam-1", channels.STATE))
    third = camera.take(memory, HEALTHY, NOW_S + 2)
    for since in (first, second):  # also for a visitor who missed a picture
        found = changes(third, since.number, shown)
        assert [row["plan"] for row in found["update"]] == [LOCAL]
        assert [row["name"] for row in found["add"]] == ["cam-3"]
        assert found["remove"] == [{"name": "cam-1"}]


def test_the_fleets_totals() -> None:
    memory = site("cam-1", "cam-2")
    memory.take(Address("site", "cam-3", channels.STATE), State(DeviceState.LOST, 1), NOW_S, retained=True)
    for n, name in enumerate(("cam-1", "cam-2")):
        lines = [line(i, latency_ms=100.0 * (n + 1), sent_bytes=500) for i in range(1, 31)]
        memory.take(Address("site", name, channels.OUTCOMES), outcomes(1, 30, *lines), NOW_S, retained=False)
    told = fleet_totals(memory, NOW_S)
    assert (told.devices, told.states) == (3, {"ready": 2, "lost": 1})
    assert told.outcomes == {"edge": 60, "device": 0, "fallback": 0, "dropped": 0}
    assert (told.frames_per_s, told.sent_bps) == (1.0, 4000.0)
    assert (told.latency_ms_p50, told.latency_ms_p95) == (100.0, 200.0)
    assert (told.modelled_mj, told.measured_mj) == (40.0, None)


def test_ages_are_coarse() -> None:
    device = site("cam-1").devices["cam-1"]
    words = [seen_words(device, NOW_S + age) for age in (0, 4.9, 7, 64, 240, 7200)]
    assert words == ["now", "now", "5 s", "60 s", "4 min", "2 h"]


def test_figures_that_cannot_be_stop_no_picture() -> None:
    memory = site("cam-1")
    device = memory.devices["cam-1"]
    most, least = 1.7e308, -1.7e308
    for value in (most, least, 5e-324):
        device.take_telemetry(
            telemetry(fps=value, uplink_bps=value, rtt_ms=value, battery_share=value, power_mw=value, in_flight=2**62),
            NOW_S,
        )
        lines = [
            line(n, latency_ms=value, head_ms=value, energy_mj=value, sent_bytes=2**62, captured_ms=(-1) ** n * 2**62)
            for n in range(1, 400)
        ]
        device.take_outcomes(outcomes(1, 2**62, *lines), NOW_S)
        device.take_outcomes(outcomes(2, -(2**62), *[line(n, energy_mj=value) for n in range(500, 900)]), NOW_S)
        loaded = load(period_ms=5e-324, served=2**62, utilisation=value, queued=2**62)
        memory.take(Address("site", "edge-1", channels.WORKER_LOAD), loaded, NOW_S, retained=False)
        snapshot = Photographer().take(memory, HEALTHY, NOW_S)
        json.dumps(dict(snapshot.rows), allow_nan=False)
        assert totals_markup(snapshot.totals)
        clock = Clock(NOW_S, 1.79e9, 0.0)
        for draw in (charts.bandwidth_and_plan, charts.latency, charts.outcomes, charts.energy):
            json.dumps(draw(device, clock), allow_nan=False)
        json.dumps(charts.gauges({"edge-1": memory.workers["edge-1"].series}, "served_per_s", clock), allow_nan=False)
