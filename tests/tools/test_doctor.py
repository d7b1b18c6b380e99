"""What the doctor says: every trouble gets its verdict and words on what to change, a healthy site none."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from edge_broker_side.inventory import AccountFacts, Inventory
from tests.wire.examples import EXAMPLES
from tflite_models.profile import DeviceProfile, HeadCost
from tools.doctor_check import Check, Verdict, distribution
from tools.doctor_device import DeviceEvidence, device_checks
from tools.doctor_site import SiteEvidence, StoreFacts, Tls, site_checks
from wire.messages import (
    CachedVersion,
    Decision,
    DeviceState,
    FrameOutcome,
    Outcome,
    PolicyState,
    RecorderState,
    State,
    Telemetry,
    WorkerLoad,
    WorkerState,
)
from wire.plan import Plan

PLAN = Plan("resnet-light", "s2", "q8")
NOW_MS = 50_000
HEALTHY = {
    "rtt_ms": 8.0, "uplink_bps": 20e6, "memory_mb": 66.0, "temperature_c": 48.0, "disk_free_mb": 9000.0, "throttled": 0,
    "counters": {"outcome_edge": 990, "outcome_fallback": 10},
}  # fmt: skip


def load(**more: Any) -> WorkerLoad:
    return dataclasses.replace(WorkerLoad(1, NOW_MS, 1000.0, 0, 9, 9, 0, 0.4), **more)


def policy(**more: Any) -> PolicyState:
    return dataclasses.replace(PolicyState(1, NOW_MS, 5000.0, "a2c", "a2c", 3, 0), **more)


def recorder(**more: Any) -> RecorderState:
    return dataclasses.replace(RecorderState(1, NOW_MS, 5000.0, 100, 2**20), **more)


def healthy_site() -> SiteEvidence:
    return SiteEvidence(
        broker="edge:8883",
        tls=Tls("TLSv1.3", 800.0),
        max_packet_bytes=5_000_000,
        needed_bytes=4_000_000,
        pings_ms=[0.5] * 48 + [0.9, 3.0],
        workers={"edge-1": WorkerState(DeviceState.READY, 1)},
        loads={"edge-1": load()},
        policies={"policy": policy()},
        recorders={"recorder": recorder()},
        store=StoreFacts("/data/records.sqlite", 90_000.0, 0.5),
        acl_up_to_date=True,
        devices={"ready": 3},
    )


def site_rows(**changes: Any) -> dict[str, Check]:
    return {check.what: check for check in site_checks(dataclasses.replace(healthy_site(), **changes))}


def test_a_healthy_site_needs_nothing() -> None:
    rows = site_rows()
    assert {check.verdict for check in rows.values()} == {Verdict.OK}
    assert not any(check.advice for check in rows.values())
    assert rows["round trip"].value == "p50 0.5 ms, p95 0.5 ms, max 3.0 ms of 50 QoS 1 messages"


@pytest.mark.parametrize(
    ("changes", "what", "verdict", "advice"),
    [
        ({"unreached": "no answer: is the broker running?"}, "broker", "bad", "is the broker running"),
        ({"tls": Tls("TLSv1.1", 800.0)}, "TLS", "bad", "TLS 1.2"),
        ({"tls": None, "encrypted": False}, "TLS", "warning", "INSECURE"),
        ({"tls": Tls("TLSv1.3", 30.0)}, "broker certificate", "warning", "rotating"),
        ({"tls": Tls("TLSv1.3", 3.0)}, "broker certificate", "bad", "rotating"),
        ({"max_packet_bytes": 2_000_000}, "largest packet", "warning", "max_packet_size"),
        ({"max_packet_bytes": 20_000}, "largest packet", "bad", "max_packet_size"),
        ({"pings_ms": [44.0] * 50}, "round trip", "warning", "set_tcp_nodelay"),
        ({"pings_ms": [300.0] * 50}, "round trip", "bad", "slow link"),
        ({"pings_ms": []}, "round trip", "warning", "operator"),
        ({"acl_up_to_date": False}, "ACL", "bad", "start the broker again"),
        ({"refused": {"publish": 7}}, "refused", "warning", "site status"),
        ({"workers": {}}, "worker", "bad", "start one"),
        ({"workers": {"edge-1": WorkerState(DeviceState.LOST, 1)}}, "worker", "bad", "start one"),
        ({"loads": {}}, "worker edge-1", "bad", "log"),
        ({"loads": {"edge-1": load(utilisation=0.9)}}, "worker edge-1", "warning", "another worker"),
        ({"loads": {"edge-1": load(utilisation=0.99)}}, "worker edge-1", "bad", "another worker"),
        ({"loads": {"edge-1": load(busy=4)}}, "worker edge-1", "warning", "another worker"),
        ({"recorders": {"recorder": recorder(problem="wrong token")}}, "recorder recorder", "warning", "wrong token"),
        ({"recorders": {"recorder": recorder(dead=3)}}, "recorder recorder", "warning", "3 points"),
        ({"recorders": {}}, "recorder", "ok", ""),  # its store is fresh
        ({"recorders": {}, "store": StoreFacts("x", 9e9, 99.0)}, "recorder", "bad", "start it"),
        ({"recorders": {}, "store": StoreFacts("x", 9e9, None), "devices": {}}, "recorder", "ok", ""),
        ({"recorders": {}, "store": None}, "recorder", "warning", "start it"),
        ({"policies": {}}, "policy", "warning", "profiles"),
        ({"policies": {"policy": policy(problems=("rules of cam-1: no",))}}, "policy policy", "warning", "rules of"),
        ({"policies": {"policy": policy(fallback={"no profile": 4})}}, "policy policy", "warning", "no profile"),
        ({"policies": {"policy": policy(collapsed=True, collapse="one plan")}}, "policy policy", "warning", "one plan"),
        ({"store": StoreFacts("x", 500.0, 0.0)}, "store disk", "warning", "make room"),
        ({"store": StoreFacts("x", 50.0, 0.0)}, "store disk", "bad", "make room"),
        ({"devices": {"ready": 1, "lost": 2}}, "devices", "warning", "2 vanished"),
        ({"devices": {}}, "devices", "warning", "splitfleet devices"),
    ],
)
def test_a_trouble_of_the_edge(changes: dict[str, Any], what: str, verdict: str, advice: str) -> None:
    check = site_rows(**changes)[what]
    assert check.verdict == verdict and advice in check.advice


PROFILE = DeviceProfile("pi4", "", "", "measured", 0, 1, 1, (HeadCost("resnet-light", "output", 9.0, 9.9, 1.0),), ())


def board(
    *, told: dict[str, Any] | None = None, state: DeviceState = DeviceState.READY, seqs: tuple[int, ...] = (1, 2, 3),
    decided: int = 3, versions: tuple[str, ...] = ("resnet-light",), silent: bool = False, skew_ms: int = 0,
    revoked: bool = False, **evidence: Any,
) -> dict[str, Check]:  # fmt: skip
    inventory = Inventory({}, {"cam": AccountFacts(9, revoked)})
    inventory.take("cam", State(state, 1), NOW_MS)
    inventory.take("cam", Decision(decided, PLAN, 500.0, "a2c", "because"), NOW_MS)
    held = tuple(CachedVersion(name, "ab" * 32) for name in versions)
    inventory.take("cam", dataclasses.replace(EXAMPLES["capabilities"], session=1, versions=held), NOW_MS)
    for seq in () if silent else seqs:
        message = Telemetry(1, seq, NOW_MS + skew_ms, PLAN, 3, 10.0, 0, 0, **{**HEALTHY, **(told or {})})
        inventory.take("cam", message, NOW_MS)
    seen: dict[str, Any] = {
        "days_left": 800.0,
        "profile": PROFILE,
        "profiled": True,
        "gap": 5,
        "captured": 1000,
    } | evidence
    entry = inventory.entries["cam"]
    return {check.what: check for check in device_checks(DeviceEvidence(entry, inventory.problems(entry), **seen))}


def test_a_healthy_board_needs_nothing() -> None:
    rows = board()
    assert {check.what: check.verdict for check in rows.values() if check.verdict != "ok"} == {}
    assert not any(check.advice for check in rows.values())
    assert rows["clock"].value == "+0.004 s ± 4 ms" and rows["fallback"].value.startswith("1.0% of 1,000 frames")


def fell_back(reason: str) -> FrameOutcome:
    return FrameOutcome(1, Outcome.FALLBACK, 0, NOW_MS, 500.0, reason=reason)


@pytest.mark.parametrize(
    ("what", "verdict", "advice", "case"),
    [
        ("state", "bad", "vanished", {"state": DeviceState.LOST}),
        ("state", "bad", "start the client", {"state": DeviceState.STOPPED}),
        ("state", "warning", "look again", {"state": DeviceState.SLEEPING}),
        ("state", "bad", "no telemetry", {"silent": True}),
        ("state", "bad", "devices add cam", {"revoked": True}),
        ("certificate", "bad", "devices add cam", {"days_left": 2.0}),
        ("round trip", "warning", "access point", {"told": {"rtt_ms": 150.0}}),
        ("round trip", "warning", "look again", {"told": {"rtt_ms": None}}),
        ("uplink", "bad", "fewer bytes", {"told": {"uplink_bps": 20e3}}),
        ("telemetry lost", "bad", "network", {"seqs": (1, 2, 9)}),
        ("too large to send", "warning", "max_packet_size", {"told": {"counters": {"link_refused_too_large": 3}}}),
        ("clock", "warning", "clock", {"skew_ms": -5_000}),
        ("clock", "bad", "clock", {"skew_ms": 3_600_000}),
        ("disk", "bad", "room", {"told": {"disk_free_mb": 20.0}}),
        ("temperature", "warning", "cool", {"told": {"temperature_c": 75.0}}),
        ("throttled", "bad", "power supply", {"told": {"throttled": 0x50005}}),
        ("throttled", "warning", "power supply", {"told": {"throttled": 0x50000}}),
        ("throttled", "bad", "cool it", {"told": {"throttled": 0x8}}),
        ("memory", "warning", "lighter", {"told": {"memory_mb": 0.4 * 3792}}),
        ("plan", "warning", "log", {"decided": 4}),
        ("plan", "bad", "lacks", {"decided": 4, "told": {"counters": {"decisions_refused": 2}}}),
        ("fallback", "warning", "what to watch", {"told": {"counters": {"outcome_edge": 9, "outcome_fallback": 1}}}),
        ("fallback", "bad", "start another worker", {
            "told": {"counters": {"outcome_edge": 1, "outcome_fallback": 1}}, "rows": [fell_back("busy")],
        }),
        ("frames unaccounted", "bad", "ledger", {"gap": 100_000, "captured": 200_000}),
        ("profile", "warning", "device_client.profiling", {"profile": None, "profile_problem": "not there"}),
        ("profile", "warning", "measure again", {"versions": ("resnet-light", "vgg-heavy")}),
        ("capabilities", "warning", "flash", {"versions": ()}),
    ],
)  # fmt: skip
def test_a_trouble_of_a_board(what: str, verdict: str, advice: str, case: dict[str, Any]) -> None:
    check = board(**case)[what]
    assert check.verdict == verdict and advice in check.advice


def test_a_board_that_never_came_is_told_from_one_that_is_lost() -> None:
    inventory = Inventory({}, {"cam": AccountFacts(9, revoked=False)})
    (check, *_) = device_checks(DeviceEvidence(inventory.entries["cam"]))
    assert (check.value, check.verdict) == ("never seen", "bad") and "flash" in check.advice


def test_distributions_are_by_nearest_rank() -> None:
    assert distribution([float(value) for value in range(100, 0, -1)]) == (50.0, 95.0, 100.0)
    assert distribution([7.0]) == (7.0, 7.0, 7.0)
    assert distribution([1.0, 9.0]) == (1.0, 9.0, 9.0)
