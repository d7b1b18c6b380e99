"""Advantages against the definition, summed the slow way, and where the two ends of lambda are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from policy.learn.advantage import gae

Case = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]


def case(seed: int, steps: int, envs: int) -> Case:
    rng = np.random.default_rng(seed)
    dones = rng.random((steps, envs)) < 0.3
    return rng.normal(size=(steps, envs)), rng.normal(size=(steps, envs)), rng.normal(size=envs), dones


def slow(given: Case, gamma: float, lam: float) -> NDArray[np.float64]:
    """The sum of the definition, one state after another, as far as its episode goes."""
    rewards, values, last, dones = given
    steps, envs = rewards.shape
    advantages = np.zeros((steps, envs))
    for b in range(envs):
        for t in range(steps):
            for k in range(t, steps):
                after = 0.0 if dones[k, b] else (values[k + 1, b] if k + 1 < steps else last[b])
                advantages[t, b] += (gamma * lam) ** (k - t) * (rewards[k, b] + gamma * after - values[k, b])
                if dones[k, b]:
                    break
    return advantages


@given(
    st.integers(0, 10_000), st.integers(1, 7), st.integers(1, 3), st.sampled_from([0.0, 0.9, 1.0]), st.floats(0.0, 1.0)
)
def test_it_is_the_sum_of_the_definition(seed: int, steps: int, envs: int, gamma: float, lam: float) -> None:
    one = case(seed, steps, envs)
    advantages, returns = gae(*one, gamma, lam)
    np.testing.assert_allclose(advantages, slow(one, gamma, lam), atol=1e-5)
    np.testing.assert_allclose(returns, advantages + one[1], atol=1e-5)


def test_lambda_1_gives_n_step_returns() -> None:
    rewards, values, last, dones = case(5, 6, 4)
    wanted, ahead = np.empty_like(rewards), last
    for t in reversed(range(6)):
        ahead = wanted[t] = rewards[t] + 0.9 * np.where(dones[t], 0.0, ahead)
    np.testing.assert_allclose(gae(rewards, values, last, dones, 0.9, 1.0)[1], wanted, atol=1e-5)


def test_nothing_leaks_over_the_end_of_an_episode() -> None:
    rewards, values, last, _ = case(7, 4, 1)
    dones = np.array([[False], [True], [False], [False]])
    before, _ = gae(rewards, values, last, dones, 0.99, 0.95)
    after, _ = gae(rewards + np.array([[0.0], [0.0], [5.0], [5.0]]), values, last + 9, dones, 0.99, 0.95)
    assert np.array_equal(before[:2], after[:2]) and before[2:] != pytest.approx(after[2:])
