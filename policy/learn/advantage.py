"""Advantages of what was done, from rewards and the critic's values."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def gae(
    rewards: ArrayLike, values: ArrayLike, last_value: ArrayLike, dones: ArrayLike, gamma: float, lam: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return generalised advantages and the returns that the critic should have told, each [T, B].

    ``A_t = Σ_k (γλ)^k δ_{t+k}`` with ``δ_t = r_t + γ V(s_{t+1}) − V(s_t)``, cut where an episode ends
    (Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage Estimation", eq. 16);
    the returns are ``A + V``. ``rewards``, ``values`` and ``dones`` are [T, B], ``last_value`` [B] is the value of the
    state after the last step; ``dones`` tells whether step t ended its episode, for whichever reason. An episode that
    was cut short rather than finished has γ times the value of its last state in its last reward.
    """
    rewards, values = np.asarray(rewards, np.float64), np.asarray(values, np.float64)
    going_on = 1.0 - np.asarray(dones, np.float64)
    advantages = np.empty_like(rewards)
    next_value, ahead = np.asarray(last_value, np.float64), np.zeros(rewards.shape[1:])
    for t in range(len(rewards) - 1, -1, -1):
        delta = rewards[t] + gamma * going_on[t] * next_value - values[t]
        ahead = delta + gamma * lam * going_on[t] * ahead
        advantages[t] = ahead
        next_value = values[t]
    return advantages.astype(np.float32), (advantages + values).astype(np.float32)
