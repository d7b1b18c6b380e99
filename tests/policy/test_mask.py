"""What a device may be told, rule by rule."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.interface import DeviceObservation, EdgeObservation, FleetObservation, Weights
from policy.mask import Refusal, mask
from tests.policy.builders import (
    BOARD,
    CODECS,
    DEVICE,
    EDGE,
    HEAVY_LOCAL,
    HEAVY_RAW,
    HEAVY_S2,
    HEAVY_WEBP,
    LIGHT_LOCAL,
    LIGHT_WEBP,
    fleet,
    small_model,
)
from wire.plan import Plan

MODEL = small_model()
ALL = {HEAVY_RAW, HEAVY_WEBP, HEAVY_S2, HEAVY_LOCAL, LIGHT_WEBP, LIGHT_LOCAL}


def allowed(seen: FleetObservation) -> set[Plan]:
    return {MODEL.table.plans[i] for i in mask(seen, MODEL.costs(seen)).plans(0)}


def why(seen: FleetObservation, plan: Plan) -> Refusal:
    return mask(seen, MODEL.costs(seen)).why(0, MODEL.table.index[plan])


def but(**changes: object) -> DeviceObservation:
    return dataclasses.replace(DEVICE, **changes)  # type: ignore[arg-type]


def test_nothing_is_refused_without_a_reason() -> None:
    assert allowed(fleet(DEVICE)) == ALL


@pytest.mark.parametrize(
    ("device", "left", "refused", "reason"),
    [
        (but(versions=frozenset({"light"})), {LIGHT_WEBP, LIGHT_LOCAL}, HEAVY_S2, Refusal.DEVICE_LACKS_VERSION),
        (but(codecs=CODECS - {"webp50"}), ALL - {HEAVY_WEBP, LIGHT_WEBP}, HEAVY_WEBP, Refusal.DEVICE_LACKS_CODEC),
        (but(may_ship_input=False), {HEAVY_S2, HEAVY_LOCAL, LIGHT_LOCAL}, HEAVY_WEBP, Refusal.PRIVACY),
        (but(profile=None), {LIGHT_LOCAL}, HEAVY_S2, Refusal.NO_PROFILE),
        (but(deadline_ms=200.0), ALL - {HEAVY_S2, HEAVY_LOCAL}, HEAVY_LOCAL, Refusal.MISSES_DEADLINE),
        (but(fps=5.0), ALL - {HEAVY_LOCAL}, HEAVY_LOCAL, Refusal.MISSES_DEADLINE),
        (but(battery_share=0.1, battery_floor=0.2), {LIGHT_WEBP, HEAVY_WEBP}, LIGHT_LOCAL, Refusal.BATTERY),
        (but(hold=True, current=HEAVY_RAW), {HEAVY_RAW}, HEAVY_WEBP, Refusal.NOTHING_FRESH),
    ],
)
def test_rules_of_a_device(device: DeviceObservation, left: set[Plan], refused: Plan, reason: Refusal) -> None:
    assert allowed(fleet(device)) == left
    assert why(fleet(device), refused) == reason


@pytest.mark.parametrize(
    ("edge", "left", "reason"),
    [
        (dataclasses.replace(EDGE, workers=0, threads=0), {HEAVY_LOCAL, LIGHT_LOCAL}, Refusal.NO_WORKER),
        (
            dataclasses.replace(EDGE, versions=frozenset({"light"})),
            {HEAVY_LOCAL, LIGHT_LOCAL, LIGHT_WEBP},
            Refusal.WORKER_LACKS_VERSION,
        ),
    ],
)
def test_rules_of_the_edge(edge: EdgeObservation, left: set[Plan], reason: Refusal) -> None:
    assert allowed(fleet(DEVICE, edge=edge)) == left
    assert why(fleet(DEVICE, edge=edge), HEAVY_S2) == reason


def test_a_battery_above_its_floor_changes_nothing() -> None:
    assert allowed(fleet(but(battery_share=0.3, battery_floor=0.2))) == ALL


def test_a_deadline_nobody_meets_masks_nothing() -> None:
    assert allowed(fleet(but(deadline_ms=1.0))) == ALL


def test_the_safe_plan_is_left_when_everything_is_refused() -> None:
    nobody = dataclasses.replace(EDGE, workers=0, threads=0)
    blind = dataclasses.replace(BOARD, heads=())
    assert allowed(fleet(but(profile=blind), edge=nobody)) == {LIGHT_LOCAL}
    assert allowed(fleet(but(versions=frozenset({"heavy"}), profile=None))) == {HEAVY_LOCAL}


devices = st.builds(
    DeviceObservation,
    name=st.just("cam-1"),
    profile=st.sampled_from([BOARD, None]),
    versions=st.sets(st.sampled_from(["heavy", "light", "foreign"])).map(frozenset),
    codecs=st.sets(st.sampled_from(sorted(CODECS))).map(frozenset),
    weights=st.just(Weights()),
    deadline_ms=st.floats(1, 5000),
    fps=st.floats(0, 60),
    uplink_bps=st.floats(1e4, 1e9),
    rtt_ms=st.floats(0, 500),
    battery_share=st.none() | st.floats(0, 1),
    battery_floor=st.floats(0, 1),
    may_ship_input=st.booleans(),
    current=st.none() | st.sampled_from(sorted(ALL)),
    hold=st.booleans(),
)


@given(devices, st.integers(0, 3), st.sets(st.sampled_from(["heavy", "light"])))
def test_never_empty_and_never_the_picture_against_its_rule(
    device: DeviceObservation, workers: int, versions: set[str]
) -> None:
    seen = fleet(device, edge=EdgeObservation(workers, workers * 2, frozenset(versions)))
    left = allowed(seen)
    assert left
    assert device.may_ship_input or not any(p.ships_input for p in left)
    if not device.hold or device.current is None:
        assert workers or all(p.is_local for p in left)
