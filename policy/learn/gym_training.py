"""Training and judging on any Gymnasium environment with flat observations and discrete actions."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from policy.errors import PolicyError
from policy.learn.a2c import A2C, Batch, Metrics, Network
from policy.learn.advantage import gae
from policy.learn.masking import best, sample
from policy.learn.networks import MLPActorCritic
from policy.learn.scalar_log import ScalarLog
from policy.learn.settings import A2CSettings

MakeEnv = Callable[[], gymnasium.Env[Any, Any]]
RECENT_EPISODES = 100
"""Over how many of the last episodes the reward that is shown is averaged."""
EVALUATION_SEED = 1_000_000
"""Where the seeds of judging start, far from those of training."""


class ActingNetwork(Network, Protocol):
    """A network that can also act from a copy of its weights, without TensorFlow."""

    def numpy_logits(self, weights: Mapping[str, NDArray[np.float32]], inputs: Any) -> NDArray[np.float32]:
        """Return [B, H, A]."""

    def numpy_value(self, weights: Mapping[str, NDArray[np.float32]], inputs: Any) -> NDArray[np.float32]:
        """Return [B]."""


@dataclass(frozen=True, slots=True)
class Actions:
    """How an environment's actions are told as H parts of A actions each."""

    space: Discrete[Any] | MultiDiscrete
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, space: object) -> Actions:
        """Raise ``PolicyError`` for a space that is not discrete."""
        if isinstance(space, Discrete):
            return cls(space, (int(space.n),))
        if isinstance(space, MultiDiscrete) and space.nvec.ndim == 1:
            return cls(space, tuple(int(n) for n in space.nvec))
        raise PolicyError(f"actions of {space} cannot be learned: make them Discrete or a flat MultiDiscrete")

    def allowed(self, rows: int) -> NDArray[np.bool_]:
        """Return [rows, H, A]: what is beyond the size of a part is not allowed."""
        mask = np.arange(max(self.sizes)) < np.array(self.sizes)[:, None]
        return np.tile(mask, (rows, 1, 1))

    def told(self, chosen: NDArray[np.int32]) -> NDArray[Any]:
        """Return [B, H] choices as the environments want them."""
        shifted = chosen + self.space.start
        return shifted[:, 0] if isinstance(self.space, Discrete) else shifted


@dataclass(frozen=True, slots=True)
class Status:
    """How far a training is."""

    done: int
    """Steps, of all environments together."""
    total: int
    reward: float | None
    """Mean sum of rewards of the last episodes; ``None`` before the first has ended."""
    entropy: float
    """Nats, of the last update."""
    steps_per_s: float


class Rollouts:
    """Steps several environments side by side and turns what happened into batches."""

    def __init__(self, make_env: MakeEnv, settings: A2CSettings) -> None:
        self.settings = settings
        # With the reset in the same step every row is a real step; the observation an episode ended with comes apart.
        self._envs = SyncVectorEnv([make_env] * settings.n_envs, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
        self.features = _features(self._envs.single_observation_space)
        self.actions = Actions.of(self._envs.single_action_space)
        self._allowed = self.actions.allowed(settings.n_envs)
        self._now = np.array(self._envs.reset(seed=settings.seed)[0], np.float32)
        self._sums = np.zeros(settings.n_envs)
        self.finished: deque[float] = deque(maxlen=RECENT_EPISODES)
        """Sums of rewards of the last episodes."""

    def collect(
        self, network: ActingNetwork, weights: Mapping[str, NDArray[np.float32]], rng: np.random.Generator
    ) -> Batch:
        """Act for ``n_steps`` in every environment; advantages are those of the given weights."""
        steps, envs, gamma = self.settings.n_steps, self.settings.n_envs, self.settings.gamma
        seen = np.empty((steps + 1, envs, self.features), np.float32)
        taken = np.empty((steps, envs, len(self.actions.sizes)), np.int32)
        rewards, dones = np.empty((steps, envs), np.float32), np.empty((steps, envs), np.bool_)
        for t in range(steps):
            seen[t] = self._now
            taken[t] = sample(network.numpy_logits(weights, seen[t]), self._allowed, rng)
            self._now, reward, finished, cut, info = self._envs.step(self.actions.told(taken[t]))
            rewards[t], dones[t] = reward, finished | cut
            self._sums += reward
            if dones[t].any():
                self.finished.extend(self._sums[dones[t]].tolist())
                self._sums[dones[t]] = 0.0
                if (rows := cut & ~finished).any():
                    last = np.stack(info["final_obs"][rows]).astype(np.float32)
                    rewards[t, rows] += gamma * network.numpy_value(weights, last)
        seen[steps] = self._now
        values = network.numpy_value(weights, seen.reshape(-1, self.features)).reshape(steps + 1, envs)
        advantages, returns = gae(rewards, values[:-1], values[-1], dones, gamma, self.settings.gae_lambda)
        return Batch(
            seen[:-1].reshape(-1, self.features),
            taken.reshape(steps * envs, -1),
            np.tile(self._allowed, (steps, 1, 1)),
            advantages.ravel(),
            returns.ravel(),
        )

    def close(self) -> None:
        """Close the environments."""
        self._envs.close()


def train_on_gym(
    make_env: MakeEnv,
    settings: A2CSettings,
    steps: int,
    progress: Callable[[Status], None] = lambda _status: None,
    *,
    log: Path | None = None,
    log_every: int = 50,
) -> tuple[A2C, MLPActorCritic]:
    """Train an MLP actor-critic for ``steps`` steps of all environments together (rounded up to whole updates).

    ``log`` is a folder for TensorBoard, written every ``log_every`` updates.
    """
    rollouts, scalars = Rollouts(make_env, settings), ScalarLog(log)
    parts = rollouts.actions.sizes
    network = MLPActorCritic(rollouts.features, len(parts), max(parts), seed=settings.seed)
    learner = A2C(network, settings)
    per_update = settings.n_steps * settings.n_envs
    updates, started = -(-steps // per_update), time.perf_counter()
    try:
        for number in range(updates):
            batch = rollouts.collect(network, learner.weights(), learner.rng)
            metrics = learner.update(batch, number / updates)
            done = (number + 1) * per_update
            reward = float(np.mean(rollouts.finished)) if rollouts.finished else None
            progress(
                Status(done, updates * per_update, reward, metrics.entropy, done / (time.perf_counter() - started))
            )
            if number % log_every == 0:
                scalars.write(done, _figures(metrics, reward))
    finally:
        scalars.close()
        rollouts.close()
    return learner, network


def evaluate_greedy(
    make_env: MakeEnv,
    network: ActingNetwork,
    weights: Mapping[str, NDArray[np.float32]],
    *,
    episodes: int = 100,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return the sum of rewards of each of so many episodes in which the likeliest action is always taken."""
    envs = SyncVectorEnv([make_env] * episodes, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
    actions = Actions.of(envs.single_action_space)
    allowed = actions.allowed(episodes)
    try:
        now, _ = envs.reset(seed=EVALUATION_SEED + seed * episodes)
        sums, running = np.zeros(episodes), np.ones(episodes, np.bool_)
        while running.any():
            chosen = best(network.numpy_logits(weights, np.asarray(now, np.float32)), allowed)
            now, reward, finished, cut, _ = envs.step(actions.told(chosen))
            sums += np.where(running, reward, 0.0)
            running &= ~(finished | cut)
    finally:
        envs.close()
    return sums


def _features(space: object) -> int:
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise PolicyError(f"observations of {space} cannot be learned: wrap the environment in FlattenObservation")
    return int(space.shape[0])


def _figures(metrics: Metrics, reward: float | None) -> dict[str, float]:
    return asdict(metrics) | ({} if reward is None else {"reward": reward})
