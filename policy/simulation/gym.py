"""The simulated site as a Gymnasium environment: one fleet, flat observations, one plan per device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.spaces import Box, MultiDiscrete
from gymnasium.utils import seeding
from numpy.typing import NDArray

from policy.coordination import look_at, price
from policy.features import FACTORS, PLAN_FEATURES, STATE, plan_features, states
from policy.memory import Memory
from policy.simulation.scenario import Scenario, load_scenario
from policy.simulation.world import Seen, World

ID = "splitfleet/Fleet-v0"
BOUND = 5.0
"""Of every entry of an observation."""

Observation = NDArray[np.float32]
Actions = NDArray[np.int64]


@dataclass(frozen=True)
class View:
    """One period of F fleets as a flat policy sees it."""

    flat: Observation
    """[F, …]: as ``FleetEnv`` describes."""
    mask: NDArray[np.int8]
    """[F, N, P]: 1 where a plan is allowed."""
    home: Actions
    """[F, N]: the first allowed local plan."""

    def permitted(self, actions: Actions) -> tuple[Actions, int]:
        """Return actions [F, N] with those that are not allowed replaced by local plans, and how many were."""
        wrong = np.take_along_axis(self.mask, actions[..., None], axis=2)[..., 0] == 0
        return np.where(wrong, self.home, actions), int(wrong.sum())


class FleetEnv(gymnasium.Env[Observation, Actions]):
    """One site of N devices with room for P plans each; a step is a decision period, an episode the scenario.

    The observation holds, device after device, its state (``policy.features.STATE``) and then, plan after plan, what
    the plan would bring where everybody else does as pricing says (``PLAN_FEATURES``; zeros where a plan is not
    allowed). ``info["action_mask"]`` [N, P] tells the plans that are allowed (1); any other action counts as the
    device's first allowed local plan, and ``info["replaced"]`` says how many were. The reward is the mean of the
    devices' rewards. ``reset(seed=s)`` begins in the world ``World(scenario, 1, s)``.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  the parent class declares it so

    def __init__(self, scenario: str | Scenario = "contention_8", seed: int | None = None) -> None:
        self.scenario = load_scenario(scenario) if isinstance(scenario, str) else scenario
        devices, plans = self.scenario.devices, self.scenario.most_plans
        self.action_space = MultiDiscrete([plans] * devices)
        entries = devices * (len(STATE) + plans * len(PLAN_FEATURES))
        self.observation_space = Box(-BOUND, BOUND, (entries,), np.float32)
        if seed is not None:
            self._np_random, self._np_random_seed = seeding.np_random(seed)

    def reset(
        self,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002  part of Gymnasium's signature
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode at another site; the same one for the same seed."""
        super().reset(seed=seed)
        self.world = World(self.scenario, 1, int(self.np_random.integers(2**31)) if seed is None else seed)
        self._memory = Memory((1, self.scenario.devices))
        self._view = observe(self.world.seen(), self._memory, self.scenario.most_plans)
        return self._view.flat[0], self._info(replaced=0)

    def step(self, action: Actions) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """Let a period pass."""
        chosen, replaced = self._view.permitted(np.asarray(action, np.int64)[None])
        outcome = self.world.step(chosen)
        # Nothing is decided after the last period: what was seen last stands.
        if not self.world.over:
            self._view = observe(self.world.seen(), self._memory, self.scenario.most_plans)
        return self._view.flat[0], float(outcome.reward.mean()), False, self.world.over, self._info(replaced)

    def _info(self, replaced: int) -> dict[str, Any]:
        return {"action_mask": self._view.mask[0].copy(), "replaced": replaced}


def observe(seen: Seen, memory: Memory, most_plans: int) -> View:
    """Return what F fleets look like to a flat policy, and take what is seen into its memory."""
    seen.now.remember(memory)
    priced = price(seen.batch, seen.now.budget_mj_per_s().astype(np.float32))
    fleets, devices, plans = seen.batch.shape
    everybody = np.tile(np.arange(devices), (fleets, 1))
    turn = look_at(seen.batch, priced.assignment, everybody, FACTORS)
    allowed = seen.batch.allowed
    features = np.zeros((fleets, devices, most_plans, len(PLAN_FEATURES)), np.float32)
    features[:, :, :plans] = plan_features(turn, seen.now.current, priced, seen.batch.interpreters)
    features[:, :, :plans][~allowed] = 0
    mask = np.zeros(features.shape[:3], np.int8)
    mask[:, :, :plans] = allowed
    state = states(seen.now, memory, seen.batch, priced)
    flat = np.concatenate([state, features.reshape(fleets, devices, -1)], axis=2).reshape(fleets, -1)
    home = np.argmax(allowed & seen.batch.local, axis=2)
    return View(np.clip(flat, -BOUND, BOUND).astype(np.float32), mask, home)


def make_fleet_env(scenario_name: str, seed: int) -> gymnasium.Env[Observation, Actions]:
    """Return the environment of a scenario; ``seed`` fixes the sites of all episodes that are begun without one."""
    return gymnasium.make(ID, scenario=scenario_name, seed=seed)


if ID not in gymnasium.registry:
    gymnasium.register(ID, entry_point="policy.simulation.gym:FleetEnv")
