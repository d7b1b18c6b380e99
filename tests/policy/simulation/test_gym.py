"""The Gymnasium environment: Gymnasium's own checks, seeds, masks, the same world as any other policy's."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

from policy.errors import PolicyError
from policy.features import PLAN_FEATURES, STATE
from policy.simulation.gym import ID, FleetEnv, make_fleet_env
from policy.simulation.scenario import load_scenario
from policy.simulation.world import World

SCENARIO = "contention_4"


def _first_allowed(info: dict[str, Any]) -> NDArray[np.int64]:
    return np.asarray(np.argmax(info["action_mask"], axis=1))


def _last_allowed(info: dict[str, Any]) -> NDArray[np.int64]:
    mask = info["action_mask"]
    return np.asarray(mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1))


@pytest.mark.parametrize("scenario", ["single_device", SCENARIO, "battery_day", "late_telemetry"])
def test_gymnasium_finds_nothing_wrong(scenario: str) -> None:
    check_env(gymnasium.make(ID, scenario=scenario).unwrapped)


def test_shapes_follow_the_scenario() -> None:
    env, scenario = FleetEnv(SCENARIO), load_scenario(SCENARIO)
    seen, info = env.reset(seed=1)
    assert info["action_mask"].shape == (scenario.devices, scenario.most_plans)
    assert len(seen) == scenario.devices * (len(STATE) + scenario.most_plans * len(PLAN_FEATURES))


def test_the_same_seed_gives_the_same_episode_and_another_one_another() -> None:
    def episode(seed: int) -> tuple[list[float], NDArray[np.float32]]:
        env = FleetEnv(SCENARIO)
        seen, info = env.reset(seed=seed)
        first, rewards, over = seen, [], False
        while not over:
            _, reward, _, over, info = env.step(_last_allowed(info))
            rewards.append(float(reward))
        return rewards, first

    (rewards, first), (again, first_again), (others, _) = episode(5), episode(5), episode(6)
    assert rewards == again
    assert np.array_equal(first, first_again)
    assert rewards != others


def test_a_factory_seed_fixes_all_episodes_and_they_differ() -> None:
    one, two = make_fleet_env(SCENARIO, 3), make_fleet_env(SCENARIO, 3)
    starts = [(one.reset()[0], two.reset()[0]) for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in starts)
    assert not np.array_equal(starts[0][0], starts[1][0])


def test_it_is_the_world_that_every_policy_plays() -> None:
    env, world = FleetEnv(SCENARIO), World(load_scenario(SCENARIO), 1, 8)
    _, info = env.reset(seed=8)
    for _ in range(3):
        action = _last_allowed(info)
        _, reward, _, _, info = env.step(action)
        assert reward == pytest.approx(world.step(action[None]).reward.mean())


def test_it_is_truncated_at_the_end_of_the_scenario_and_never_terminated() -> None:
    env, periods = FleetEnv(SCENARIO), load_scenario(SCENARIO).periods
    _, info = env.reset(seed=2)
    ends = []
    for _ in range(periods):
        seen, _, terminated, truncated, info = env.step(_first_allowed(info))
        assert not terminated
        assert env.observation_space.contains(seen)
        ends.append(truncated)
    assert ends == [False] * (periods - 1) + [True]


def test_actions_that_are_not_allowed_become_local_plans_and_are_counted() -> None:
    env = FleetEnv(SCENARIO)
    _, info = env.reset(seed=4)
    mask = info["action_mask"]
    action = _last_allowed(info)
    assert (mask[:, -1] == 0).all(), "the scenario leaves no room to pad: choose another"
    action[1:3] = mask.shape[1] - 1
    expected = action.copy()
    local = env.world.hardware.local[0] & env.world.hardware.allowed[0]
    expected[1:3] = [np.flatnonzero(local[i])[0] for i in (1, 2)]
    _, _, _, _, info = env.step(action)
    assert info["replaced"] == 2
    assert env.world.current[0].tolist() == expected.tolist()


def test_features_of_plans_that_are_not_allowed_are_zero() -> None:
    env = FleetEnv(SCENARIO)
    seen, info = env.reset(seed=4)
    features = seen.reshape(env.scenario.devices, -1)[:, len(STATE) :].reshape(*info["action_mask"].shape, -1)
    assert not features[info["action_mask"] == 0].any()
    assert features[info["action_mask"] == 1].any(axis=1).all()


def test_an_unknown_scenario_is_told() -> None:
    with pytest.raises(PolicyError, match="no scenario 'nowhere'"):
        FleetEnv("nowhere")
