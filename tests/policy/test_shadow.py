"""A policy that only watches: what is compared, and that it harms nobody."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest

from policy.baselines import Greedy, Local, Remote
from policy.interface import Choice, FleetObservation
from policy.shadow import Comparison, ShadowPolicy
from policy.telling import MOST_DEVICES, shadow_messages
from tests.policy.builders import DEVICE, HEAVY_LOCAL, LIGHT_LOCAL, alike, fleet, small_model
from wire import channels
from wire.codec import encode
from wire.plan import Plan

MODEL = small_model()
RNG = np.random.default_rng(0)


class Odd:
    name = "odd"

    def __init__(self, choices: Mapping[str, Choice] | Exception) -> None:
        self._choices = choices

    def decide(self, fleet: FleetObservation, rng: np.random.Generator) -> Mapping[str, Choice]:
        if isinstance(self._choices, Exception):
            raise self._choices
        return self._choices


def test_each_reward_holds_with_everybody_following_that_policy() -> None:
    seen = fleet(*alike(6))
    acting, other = Remote(MODEL).decide(seen, RNG), Local(MODEL).decide(seen, RNG)
    shadow = ShadowPolicy(MODEL, Local(MODEL), seed=0)
    shadow.watch(seen, acting)
    rows = shadow.rows()
    assert [row.device for row in rows] == [f"cam-{i}" for i in range(6)]
    for row in rows:
        one, two = acting[row.device].predicted, other[row.device].predicted
        assert one is not None and two is not None
        assert (row.acting_plan, row.shadow_plan) == (acting[row.device].plan, other[row.device].plan)
        assert row.acting_reward == pytest.approx(one.reward)
        assert row.shadow_reward == pytest.approx(two.reward)
    assert shadow.rows() == [], "told once"


def test_a_device_without_profile_has_no_predicted_reward() -> None:
    seen = fleet(DEVICE, dataclasses.replace(DEVICE, name="stranger", profile=None))
    shadow = ShadowPolicy(MODEL, Greedy(MODEL), seed=0)
    shadow.watch(seen, Greedy(MODEL).decide(seen, RNG))
    known, stranger = shadow.rows()
    assert known.acting_reward == known.shadow_reward is not None
    assert (stranger.acting_plan, stranger.acting_reward, stranger.shadow_reward) == (LIGHT_LOCAL, None, None)


@pytest.mark.parametrize(
    "choices",
    [RuntimeError("no"), {}, {"cam-1": Choice(Plan("heavy", "s9", "q2"), "", 1.0)}],
    ids=["raises", "forgets", "invents"],
)
def test_a_shadow_that_fails_is_counted_and_gives_no_rows(choices: Mapping[str, Choice] | Exception) -> None:
    seen = fleet(DEVICE)
    acting = {"cam-1": Choice(HEAVY_LOCAL, "", 1.0)}
    shadow = ShadowPolicy(MODEL, Odd(choices), seed=0)
    shadow.watch(seen, acting)
    assert shadow.rows() == []
    assert shadow.counters == {"shadow_errors": 1}
    shadow.policy = None
    shadow.watch(seen, acting)
    assert shadow.rows() == [] and shadow.counters == {"shadow_errors": 1}
    shadow.policy = Local(MODEL)
    shadow.watch(seen, acting)
    assert len(shadow.rows()) == 1


def test_large_sites_take_several_messages_and_none_is_too_large() -> None:
    plans = [Plan(f"{'v' * 60}-{i}", "c" * 60, "webp50") for i in range(400)]
    rows = [
        Comparison(f"{i:064d}", plans[i % 400], plans[(i + 7) % 400], 0.5, None if i % 2 else float("nan"))
        for i in range(2 * MOST_DEVICES + 1)
    ]
    messages = list(shadow_messages(rows, "a2c", "pricing", 5))
    assert [len(message.devices) for message in messages] == [MOST_DEVICES, MOST_DEVICES, 1]
    told = [
        (one.device, message.plans[one.acting_plan], message.plans[one.shadow_plan])
        for message in messages
        for one in message.devices
    ]
    assert told == [(row.device, row.acting_plan, row.shadow_plan) for row in rows]
    assert all(encode(channels.SHADOW, message) for message in messages)
