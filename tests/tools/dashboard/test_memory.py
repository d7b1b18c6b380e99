"""What the dashboard remembers: each frame once, at its time, and never more than its bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.tools.dashboard.messages import AT_MS, LOCAL, SHIP, capabilities, decision, line, load, outcomes, telemetry
from tools.dashboard import memory as module
from tools.dashboard.device_memory import DECISIONS, OTHER, PLANS, REASONS, DeviceMemory
from tools.dashboard.memory import SiteMemory
from tools.dashboard.series import BUCKET_S
from wire import channels
from wire.channels import Address, Channel
from wire.messages import DeviceState, EnergySource, FoldedCount, Outcome, State, WorkerState

NOW_S = 10_000.0


def frames(device: DeviceMemory, name: str, now_s: float, seconds: float = 900) -> list[float]:
    return [float(n) for n in device.series.column(device.series.last(now_s, seconds), name)]


def take(memory: SiteMemory, channel: Channel, message: Any, now_s: float = NOW_S, name: str = "cam-1") -> None:
    memory.take(Address("site", name, channel), message, now_s, retained=False)


def test_a_repeated_batch_changes_nothing_also_under_a_new_number() -> None:
    device = DeviceMemory("cam-1", NOW_S)
    batch = outcomes(7, 2, line(1), line(2, Outcome.DEVICE))
    assert device.take_outcomes(batch, NOW_S) == [50.0, 50.0]
    assert device.take_outcomes(batch, NOW_S + 1) == []
    assert device.take_outcomes(outcomes(8, 3, line(2, Outcome.DEVICE), line(3)), NOW_S + 2) == [50.0]
    assert device.outcomes == {"edge": 2, "device": 1}
    assert sum(frames(device, "edge", NOW_S + 2)) == 2


def test_frames_stand_where_they_were_captured_whatever_the_devices_clock_says() -> None:
    device = DeviceMemory("cam-1", NOW_S)
    device.take_telemetry(telemetry(at_ms=5_000), NOW_S)  # its clock is decades behind
    told = [line(1, captured_ms=5_000 - 60_000), line(2, captured_ms=5_000), line(3, captured_ms=5_000_000)]
    device.take_outcomes(outcomes(1, 3, *told), NOW_S)
    table = frames(device, "edge", NOW_S)
    assert table[-1] == 2, "what is of now, and what claims to be of the future"
    assert table[-1 - 60 // BUCKET_S] == 1
    device.take_outcomes(outcomes(2, 4, line(4, captured_ms=5_000 - 3_600_000)), NOW_S)
    assert device.old_frames == 1 and sum(frames(device, "edge", NOW_S)) == 3
    assert device.outcomes["edge"] == 4


def test_measured_and_modelled_energy_are_kept_apart() -> None:
    device = DeviceMemory("cam-1", NOW_S)
    told = [line(1, energy_mj=10.0), line(2, energy_mj=30.0, energy_source=EnergySource.MEASURED)]
    device.take_outcomes(outcomes(1, 2, *told), NOW_S)
    assert [sum(frames(device, name, NOW_S)) for name in ("modelled_mj", "modelled", "measured_mj", "measured")] == [
        10.0, 1.0, 30.0, 1.0,
    ]  # fmt: skip


def test_dropped_frames_have_no_latency() -> None:
    device = DeviceMemory("cam-1", NOW_S)
    assert device.take_outcomes(outcomes(1, 2, line(1), line(2, Outcome.DROPPED, reason="overrun")), NOW_S) == [50.0]
    assert sum(frames(device, "latency_ms", NOW_S)) == 50.0 and sum(frames(device, "answered", NOW_S)) == 1
    assert device.reasons == {"dropped: overrun": 1}


def test_open_frames_are_counted_from_the_fewest_seen_in_a_session() -> None:
    device = DeviceMemory("cam-1", NOW_S)
    device.take_outcomes(outcomes(1, 500, line(490)), NOW_S)
    assert device.open_frames == 0, "what was captured before we listened is nobody's loss"
    device.take_outcomes(outcomes(2, 512, *[line(n) for n in range(491, 501)]), NOW_S)
    assert device.open_frames == 2
    device.take_outcomes(outcomes(3, 513, folded=(FoldedCount(Outcome.DEVICE, "", 3),)), NOW_S)
    assert device.open_frames == 0
    device.take_outcomes(outcomes(4, 20, line(1), session=2), NOW_S)
    assert device.open_frames == 0


def test_what_was_told_while_we_were_away_is_not_open() -> None:
    memory = SiteMemory()
    take(memory, channels.OUTCOMES, outcomes(1, 10, line(10)))
    take(memory, channels.OUTCOMES, outcomes(5, 60, line(60)))
    assert memory.devices["cam-1"].open_frames == 49
    memory.listen_anew()
    take(memory, channels.OUTCOMES, outcomes(9, 90, line(90)))
    assert memory.devices["cam-1"].open_frames == 0
    take(memory, channels.OUTCOMES, outcomes(10, 93, line(91)))
    assert memory.devices["cam-1"].open_frames == 2


def test_folded_counts_are_totals() -> None:
    device = DeviceMemory("cam-1", NOW_S)
    for batch, total in ((1, 5), (2, 5), (3, 9)):
        device.take_outcomes(outcomes(batch, 10, folded=(FoldedCount(Outcome.FALLBACK, "offline", total),)), NOW_S)
    assert device.outcomes == {"fallback": 9} and device.reasons == {"fallback: offline": 9}


def test_a_late_will_does_not_bury_a_newer_session() -> None:
    device = DeviceMemory("cam-1", NOW_S)
    device.take_state(State(DeviceState.READY, 2))
    device.take_state(State(DeviceState.LOST, 1))
    assert str(device.state) == "ready"
    device.take_state(State(DeviceState.LOST, 2))
    assert str(device.state) == "lost"


def test_replayed_telemetry_fills_the_past_and_is_not_the_present() -> None:
    device = DeviceMemory("cam-1", NOW_S)
    device.take_telemetry(telemetry(uplink_bps=9e6), NOW_S)
    device.take_telemetry(telemetry(LOCAL, at_ms=AT_MS - 60_000, uplink_bps=1e6, replayed=True), NOW_S)
    assert device.telemetry is not None and device.telemetry.uplink_bps == 9e6
    uplink = frames(device, "uplink_bps", NOW_S)
    assert uplink[-1] == np.float32(9e6) and uplink[-1 - 60 // BUCKET_S] == np.float32(1e6)
    assert [device.plans[int(n)] for n in frames(device, "plan", NOW_S) if not np.isnan(n)] == [LOCAL, SHIP]


def test_decisions_are_kept_in_order_and_bounded() -> None:
    device = DeviceMemory("cam-1", NOW_S)
    for rev in (1, 2, 2, 1, *range(3, 3 + DECISIONS)):
        device.take_decision(decision(rev), NOW_S)
    assert [told.rev for told in device.decisions] == list(range(3, 3 + DECISIONS))


def test_what_a_device_makes_up_is_bounded() -> None:
    device = DeviceMemory("cam-1", NOW_S)
    for n in range(500):
        device.take_telemetry(telemetry(f"v{n}/output/none"), NOW_S)
        device.take_outcomes(outcomes(n + 1, n + 1, line(n + 1, Outcome.DROPPED, reason=f"r{n}" * 400)), NOW_S)
        device.take_decision(decision(n + 1, reason="x" * 5000), NOW_S)
    assert len(device.plans) == PLANS
    assert len(device.reasons) == REASONS + 1 and device.reasons[OTHER] == 500 - REASONS
    assert max(len(reason) for reason in device.reasons) < 100
    assert max(len(told.reason) for told in device.decisions) <= 300


def test_members_beyond_the_bound_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DEVICES", 3)
    monkeypatch.setattr(module, "MAX_SERVERS", 2)
    memory = SiteMemory()
    for n in range(5):
        take(memory, channels.TELEMETRY, telemetry(), name=f"cam-{n}")
        take(memory, channels.WORKER_LOAD, load(), name=f"edge-{n}")
    assert list(memory.devices) == ["cam-0", "cam-1", "cam-2"] and list(memory.workers) == ["edge-0", "edge-1"]
    assert memory.counters == {"devices_beyond_bound": 2, "servers_beyond_bound": 3}


def test_only_the_device_itself_is_a_sign_of_life() -> None:
    memory = SiteMemory()
    memory.take(Address("site", "cam-1", channels.CAPABILITIES), capabilities(), NOW_S, retained=True)
    take(memory, channels.STATE, State(DeviceState.LOST, 1))
    take(memory, channels.DECISION, decision(1))
    assert memory.devices["cam-1"].seen_s is None
    take(memory, channels.TELEMETRY, telemetry(), NOW_S + 3)
    assert memory.devices["cam-1"].seen_s == NOW_S + 3


def test_a_state_that_is_taken_back_takes_its_member_away() -> None:
    memory = SiteMemory()
    take(memory, channels.STATE, State(DeviceState.READY, 1))
    take(memory, channels.WORKER_STATE, WorkerState(DeviceState.READY, 1), name="edge-1")
    memory.forget(Address("site", "cam-1", channels.DECISION))
    assert memory.devices and memory.workers
    memory.forget(Address("site", "cam-1", channels.STATE))
    memory.forget(Address("site", "edge-1", channels.WORKER_STATE))
    assert not memory.devices and not memory.workers
