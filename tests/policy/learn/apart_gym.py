"""Training on Gymnasium environments: what ends an episode, seeds, spaces, and the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

from policy.errors import PolicyError
from policy.learn.a2c import A2C
from policy.learn.gym_training import Actions, Rollouts, Status, evaluate_greedy, train_on_gym
from policy.learn.identity import IdentityEnv, register
from policy.learn.networks import MLPActorCritic
from policy.learn.settings import A2CSettings

SETTINGS = A2CSettings(gamma=0.5, gae_lambda=0.0, learning_rate=1e-2, n_envs=2, n_steps=7)


class Clock(gymnasium.Env[Any, Any]):
    """Shows the time; every step's reward is 1; ends by itself at ``end``."""

    def __init__(self, end: int) -> None:
        self.end, self.now = end, 0
        self.observation_space, self.action_space = Box(0, 100, (1,), np.float32), Discrete(3, start=4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.now = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.now += 1
        return np.full(1, self.now, np.float32), 1.0, self.now >= self.end, False, {}


class Hundreds(MLPActorCritic):
    """Its value of a state is a hundred times what it sees."""

    def numpy_value(self, weights: Mapping[str, NDArray[np.float32]], inputs: Any) -> NDArray[np.float32]:
        return np.asarray(100 * inputs[:, 0], np.float32)


@pytest.mark.parametrize("ends_by_itself", [True, False])
def test_an_episode_cut_short_still_has_a_future_and_a_finished_one_none(ends_by_itself: bool) -> None:
    def make_env() -> gymnasium.Env[Any, Any]:
        return Clock(end=3) if ends_by_itself else TimeLimit(Clock(end=99), 3)

    rollouts = Rollouts(make_env, SETTINGS)
    network = Hundreds(1, 1, 3)
    found = rollouts.collect(network, A2C(network, SETTINGS).weights(), np.random.default_rng(0))
    rollouts.close()
    # Every row is a real step: the time runs 0, 1, 2 and starts again; the state at 3 is nowhere acted in.
    assert found.inputs[::2, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    last = 1.0 if ends_by_itself else 1 + 0.5 * 300
    one_step = [1 + 0.5 * 100, 1 + 0.5 * 200, last] * 2 + [1 + 0.5 * 100]
    assert found.returns[1::2].tolist() == one_step
    assert (found.advantages + 100 * found.inputs[:, 0]).tolist() == found.returns.tolist()
    assert list(rollouts.finished) == [3.0] * 4


def test_the_same_seed_gives_the_same_weights() -> None:
    def weights(seed: int) -> dict[str, NDArray[np.float32]]:
        told: list[Status] = []
        learner, _ = train_on_gym(IdentityEnv, replace(SETTINGS, seed=seed), 100, told.append)
        assert told[-1].done == told[-1].total == 112 and len(told) == 8
        return learner.weights()

    first, second, other = weights(1), weights(1), weights(2)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["actor/0/kernel"], other["actor/0/kernel"])


def test_parts_of_unequal_size_are_masked_and_learned() -> None:
    def make_env() -> gymnasium.Env[Any, Any]:
        return TimeLimit(IdentityEnv((2, 5)), 20)

    settings = replace(SETTINGS, gamma=0.0, entropy_start=0.0, entropy_end=0.0, n_envs=8, n_steps=2)
    learner, network = train_on_gym(make_env, settings, 3000)
    sums = evaluate_greedy(make_env, network, learner.weights(), episodes=10)
    assert sums.shape == (10,) and sums.min() >= 18


def test_spaces() -> None:
    actions = Actions.of(MultiDiscrete([2, 3], start=[0, 5]))
    assert actions.allowed(1).tolist() == [[[True, True, False], [True, True, True]]]
    assert actions.told(np.array([[1, 2]], np.int32)).tolist() == [[1, 7]]
    with pytest.raises(PolicyError, match="make them Discrete"):
        Actions.of(Box(0, 1, (2,)))


def test_the_registered_task_passes_gymnasiums_own_check() -> None:
    from gymnasium.utils.env_checker import check_env

    register()
    check_env(gymnasium.make(register()).unwrapped, skip_render_check=True)


def test_the_log_holds_what_happened(tmp_path: Path) -> None:
    def make_env() -> gymnasium.Env[Any, Any]:
        return TimeLimit(IdentityEnv(), 7)

    train_on_gym(make_env, SETTINGS, 60, log=tmp_path / "log", log_every=2)
    [file] = (tmp_path / "log").iterdir()
    found: dict[str, list[int]] = {}
    for record in tf.data.TFRecordDataset(str(file)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            found.setdefault(value.tag, []).append(event.step)
    assert found["entropy"] == found["reward"] == found["grad_norm"] == [14, 42, 70]
