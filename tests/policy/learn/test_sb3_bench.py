"""Playing by a flat policy, as Stable-Baselines3's are; training one needs packages that tests do without."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from policy.errors import PolicyError
from policy.evaluation.episode import play
from policy.learn.sb3_bench import FlatAgent
from policy.simulation.gym import FleetEnv
from policy.simulation.scenario import load_scenario
from policy.simulation.world import World
from tools.policy_sb3 import sb3

SCENARIO = load_scenario("contention_4")


class Always:
    """Wants the same plan for every device, and keeps what it is shown."""

    def __init__(self, plan: int) -> None:
        self._plan = plan
        self.shown: list[NDArray[np.float32]] = []

    def predict(self, observation: NDArray[np.float32], *, deterministic: bool) -> tuple[NDArray[np.int64], Any]:
        assert deterministic
        self.shown.append(observation)
        return np.full((len(observation), SCENARIO.devices), self._plan), None


def test_a_flat_policy_sees_in_judging_what_it_saw_in_training() -> None:
    model, env = Always(0), FleetEnv(SCENARIO)
    played = play(World(SCENARIO, 1, 7), FlatAgent("flat", model, SCENARIO.most_plans), np.random.default_rng(0))
    first, _ = env.reset(seed=7)
    seen, rewards = [first], []
    for _ in range(SCENARIO.periods):
        observation, reward, *_ = env.step(np.zeros(SCENARIO.devices, np.int64))
        seen.append(observation)
        rewards.append(reward)
    assert np.array_equal(np.concatenate(model.shown), np.stack(seen[:-1]))
    assert played.reward.mean(axis=(1, 2)) == pytest.approx(rewards)


def test_plans_that_are_not_allowed_become_local_ones() -> None:
    world = World(SCENARIO, 3, 7)
    played = play(
        world, FlatAgent("flat", Always(SCENARIO.most_plans - 1), SCENARIO.most_plans), np.random.default_rng(0)
    )
    homes = np.argmax(world.hardware.allowed & world.hardware.local, axis=2)
    assert (played.plan == homes).all()


def test_a_machine_without_the_packages_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PolicyError, match="pip install"):
        sb3()
