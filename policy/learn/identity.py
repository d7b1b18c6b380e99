"""A task that any learner must solve at once: say what you see."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.spaces import Box, MultiDiscrete
from numpy.typing import NDArray

NAME = "splitfleet/Identity-v0"

Observation = NDArray[np.float32]
Action = NDArray[np.int64]


class IdentityEnv(gymnasium.Env[Observation, Action]):
    """Shows a target per part, one-hot; the reward of a step is the share of parts that were named. It never ends."""

    def __init__(self, sizes: tuple[int, ...] = (4, 4)) -> None:
        self.sizes = np.array(sizes)
        self._starts = np.concatenate(([0], np.cumsum(self.sizes)[:-1]))
        self.observation_space = Box(0.0, 1.0, (int(self.sizes.sum()),), np.float32)
        self.action_space = MultiDiscrete(self.sizes)
        self._target = np.zeros(len(self.sizes), np.int64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Show a first target."""
        super().reset(seed=seed, options=options)
        return self._next(), {}

    def step(self, action: Action) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """Reward what was named and show the next target."""
        reward = float(np.mean(np.asarray(action) == self._target))
        return self._next(), reward, False, False, {}

    def _next(self) -> Observation:
        self._target = self.np_random.integers(self.sizes)
        shown = np.zeros(self.observation_space.shape or (), np.float32)
        shown[self._starts + self._target] = 1.0
        return shown


def register() -> str:
    """Make the task known to ``gymnasium.make``, in episodes of 100 steps; return its name."""
    if NAME not in gymnasium.registry:
        gymnasium.register(NAME, entry_point="policy.learn.identity:IdentityEnv", max_episode_steps=100)
    return NAME
