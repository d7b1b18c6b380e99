"""When a learned policy is not trusted, what happens instead, and how it is told."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from policy.baselines import Greedy, Local
from policy.errors import PolicyError
from policy.guard import Guard, GuardSettings
from policy.interface import Choice, DeviceObservation, FleetObservation
from policy.learned import Pricing, load_learned
from tests.policy.builders import (
    DEVICE,
    EDGE,
    HEAVY_LOCAL,
    HEAVY_S2,
    HEAVY_WEBP,
    LIGHT_LOCAL,
    LIGHT_WEBP,
    alike,
    fleet,
    small_model,
)
from wire.plan import Plan

MODEL = small_model()
RNG = np.random.default_rng(0)
NOWHERE = Plan("heavy", "s9", "q2")


class Told:
    """A policy that gives what it is told to, and may know its range."""

    name = "told"

    def __init__(
        self, give: Callable[[FleetObservation], Mapping[str, Choice]], outside: Mapping[str, str] | None = None
    ):
        self._give = give
        self._outside = outside or {}

    def decide(self, fleet: FleetObservation, rng: np.random.Generator) -> Mapping[str, Choice]:
        return self._give(fleet)

    def outside(self, fleet: FleetObservation) -> Mapping[str, str]:
        return self._outside


def same(plan: Plan, gain: float = 1.0, **odd: Choice) -> Callable[[FleetObservation], Mapping[str, Choice]]:
    """Everybody the same plan, but for some."""
    return lambda seen: {d.name: odd.get(d.name.replace("-", ""), Choice(plan, "told", gain)) for d in seen.devices}


def guarded(acting: Told | None, **settings: float) -> Guard:
    guard = Guard("told", Local(MODEL), MODEL, GuardSettings(**settings), clock=lambda: 0.0)
    if acting is not None:
        guard.use(acting)
    return guard


def test_what_may_be_followed_is_passed_on_as_it_is() -> None:
    guard = guarded(Told(same(HEAVY_S2)))
    choices = guard.decide(fleet(*alike(3)), RNG)
    assert [c.plan for c in choices.values()] == [HEAVY_S2] * 3
    assert {(c.policy, c.fallback, c.reason) for c in choices.values()} == {("", "", "told")}
    assert not guard.counters and guard.take_reasons() == {}


def test_without_weights_the_fallback_decides_and_says_so() -> None:
    guard = guarded(None)
    guard.use(None, "weights.npz is not there")
    (choice,) = guard.decide(fleet(DEVICE), RNG).values()
    assert (choice.policy, choice.fallback) == ("local", "weights.npz is not there")
    assert choice.reason == "fallback to local: weights.npz is not there"
    assert guard.counters == {"fallback_no_weights": 1}
    assert guard.take_reasons() == {"weights.npz is not there": 1}
    assert guard.take_reasons() == {}
    guard.use(Told(same(HEAVY_S2)))
    (choice,) = guard.decide(fleet(DEVICE), RNG).values()
    assert choice.plan == HEAVY_S2


def boom(kind: type[Exception]) -> Callable[[FleetObservation], Mapping[str, Choice]]:
    def give(_: FleetObservation) -> Mapping[str, Choice]:
        raise kind("no idea")

    return give


@pytest.mark.parametrize("kind", [PolicyError, ValueError, ZeroDivisionError, KeyError, MemoryError, AttributeError])
def test_whatever_it_raises_the_fallback_decides(kind: type[Exception], caplog: pytest.LogCaptureFixture) -> None:
    guard = guarded(Told(boom(kind)))
    for _ in range(3):
        choices = guard.decide(fleet(*alike(2)), RNG)
        assert {c.policy for c in choices.values()} == {"local"}
        assert all("no idea" in c.reason and c.reason.startswith("fallback to local: ") for c in choices.values())
    assert guard.counters == {"fallback_error": 6, "policy_errors": 3}
    assert len(caplog.records) == 1, "once a minute"


def test_what_tells_the_range_may_raise_too() -> None:
    class Odd(Told):
        def outside(self, fleet: FleetObservation) -> Mapping[str, str]:
            raise IndexError("range")

    assert {c.policy for c in guarded(Odd(same(HEAVY_S2))).decide(fleet(DEVICE), RNG).values()} == {"local"}


def but(**more: Any) -> DeviceObservation:
    return dataclasses.replace(DEVICE, **more)


WRONG = {
    "a plan nobody has": (DEVICE, NOWHERE),
    "no version": (but(versions=frozenset({"light"})), HEAVY_LOCAL),
    "no codec": (but(codecs=frozenset({"q2"})), HEAVY_WEBP),
    "private": (but(may_ship_input=False), HEAVY_WEBP),
    "battery": (but(battery_share=0.1, battery_floor=0.2), HEAVY_LOCAL),
    "held": (but(current=LIGHT_LOCAL, hold=True), HEAVY_S2),
    "refused by the device": (but(refuses=frozenset({HEAVY_S2})), HEAVY_S2),
    "no profile": (but(profile=None), HEAVY_LOCAL),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_plan_that_is_refused_costs_that_device_alone(case: str) -> None:
    device, plan = WRONG[case]
    guard = guarded(Told(same(HEAVY_S2, odd=Choice(plan, "", 1.0))))
    choices = guard.decide(fleet(*alike(3), dataclasses.replace(device, name="odd")), RNG)
    assert [choices[f"cam-{i}"].plan for i in range(3)] == [HEAVY_S2] * 3
    assert choices["odd"].policy == "local" and choices["odd"].plan != plan
    assert guard.counters == {"fallback_refused_plan": 1}


@pytest.mark.parametrize("gain", [math.nan, -math.inf])
def test_a_gain_that_is_no_number_costs_the_choice(gain: float) -> None:
    guard = guarded(Told(same(HEAVY_S2, cam1=Choice(HEAVY_S2, "", gain))))
    choices = guard.decide(fleet(*alike(3)), RNG)
    assert [choices[f"cam-{i}"].policy for i in range(3)] == ["", "local", ""]
    assert guard.counters == {"fallback_not_a_number": 1}


def test_a_prediction_that_is_no_number_costs_the_choice() -> None:
    predicted = Greedy(MODEL).decide(fleet(DEVICE), RNG)["cam-1"].predicted
    assert predicted is not None
    odd = Choice(HEAVY_S2, "", 1.0, dataclasses.replace(predicted, reward=math.nan))
    guard = guarded(Told(same(HEAVY_S2, cam1=odd)))
    assert guard.decide(fleet(*alike(3)), RNG)["cam-1"].policy == "local"
    assert guard.counters == {"fallback_not_a_number": 1}


def test_a_deadline_that_is_predicted_to_be_missed_is_its_own_affair() -> None:
    late = dataclasses.replace(DEVICE, deadline_ms=20.0, uplink_bps=1e5)
    guard = guarded(Told(same(HEAVY_WEBP)))
    assert guard.decide(fleet(late), RNG)["cam-1"].plan == HEAVY_WEBP


def test_without_workers_nothing_remote_passes() -> None:
    guard = guarded(Told(same(LIGHT_WEBP)))
    nobody = dataclasses.replace(EDGE, workers=0, threads=0, versions=frozenset())
    choices = guard.decide(fleet(*alike(3), edge=nobody), RNG)
    assert {(c.policy, c.plan.is_local) for c in choices.values()} == {("local", True)}


def test_a_device_it_forgot_is_decided_by_the_fallback() -> None:
    guard = guarded(Told(lambda seen: {d.name: Choice(HEAVY_S2, "", 1.0) for d in seen.devices[1:]}))
    choices = guard.decide(fleet(*alike(4)), RNG)
    assert [choices[f"cam-{i}"].policy for i in range(4)] == ["local", "", "", ""]
    assert guard.counters == {"fallback_no_choice": 1}


@pytest.mark.parametrize(("outside", "told"), [(0, 4), (1, 3), (2, 2), (3, 0), (4, 0)])
def test_devices_outside_the_trained_range_get_the_fallbacks_plan_and_most_of_them_all(outside: int, told: int) -> None:
    words = {f"cam-{i}": f"uplink of {i}" for i in range(outside)}
    guard = guarded(Told(same(HEAVY_S2), {**words, "stranger": "is not here"}))
    choices = guard.decide(fleet(*alike(4)), RNG)
    assert sum(c.plan == HEAVY_S2 for c in choices.values()) == told
    assert guard.counters.get("fallback_outside", 0) == 4 - told
    assert all(c.reason.startswith("fallback to local: uplink of ") for c in choices.values() if c.policy)


def stale(count: int) -> tuple[DeviceObservation, ...]:
    devices = alike(4)
    return tuple(dataclasses.replace(d, telemetry_age_ms=None) if i < count else d for i, d in enumerate(devices))


@pytest.mark.parametrize(("share", "silent", "by"), [(0.5, 2, ""), (0.5, 3, "local"), (0.0, 1, "local"), (1.0, 4, "")])
def test_too_many_silent_devices_and_the_fallback_decides(share: float, silent: int, by: str) -> None:
    guard = guarded(Told(same(HEAVY_S2)), most_stale=share)
    choices = guard.decide(fleet(*stale(silent)), RNG)
    assert {c.policy for c in choices.values()} == {by}
    assert guard.counters.get("fallback_stale", 0) == (4 if by else 0)


def test_an_empty_fleet_needs_nobody() -> None:
    assert guarded(None).decide(fleet(), RNG) == {}


def test_reasons_are_bounded() -> None:
    guard = guarded(Told(boom(ValueError)))
    for i in range(40):
        guard.use(None, f"reason {i}")
        guard.decide(fleet(DEVICE), RNG)
    reasons = guard.take_reasons()
    assert len(reasons) == 17 and sum(reasons.values()) == 40


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(PolicyError, match="most_stale = 2: allowed is 0 to 1"):
        GuardSettings(most_stale=2.0)


@pytest.mark.parametrize("bad", [{"uplink_bps": math.nan}, {"uplink_bps": 0.0}, {"rtt_ms": math.nan}, {"rtt_ms": -1.0}])
def test_a_link_that_is_no_number_costs_that_device_alone(bad: dict[str, float]) -> None:
    def decided(**link: Any) -> Mapping[str, Choice]:
        guard = Guard("a2c", Pricing(MODEL), MODEL)
        guard.use(load_learned(MODEL))
        first, *others = alike(6, but(current=LIGHT_LOCAL))
        return guard.decide(fleet(dataclasses.replace(first, **link), *others), np.random.default_rng(1))

    seen = decided(**bad)
    assert seen["cam-0"].fallback and seen["cam-0"].plan.is_local
    worst = decided(uplink_bps=1e3, rtt_ms=60_000.0)
    for name in list(seen)[1:]:
        assert (seen[name].plan, seen[name].gain, seen[name].fallback) == (worst[name].plan, worst[name].gain, "")


def test_a_plan_that_is_held_does_not_ship_the_picture_that_must_not_leave() -> None:
    private = but(current=HEAVY_WEBP, hold=True, may_ship_input=False)
    guard = guarded(Told(same(HEAVY_WEBP)), most_stale=1.0)
    (choice,) = guard.decide(fleet(private), RNG).values()
    assert choice.plan.is_local
