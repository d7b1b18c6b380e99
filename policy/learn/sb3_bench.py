"""Stable-Baselines3's A2C on the simulated site: trained through Gymnasium, judged in the worlds of all policies."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from policy.actor import Actor, load_actor
from policy.errors import PolicyError
from policy.evaluation import runner
from policy.learn.recipe import FLEETS, PERIODS
from policy.memory import Memory
from policy.references.agent import Agent
from policy.references.learned import LearnedAgent
from policy.references.registry import REFERENCES
from policy.simulation.gym import FleetEnv, Observation, observe
from policy.simulation.scenario import Scenario, Suite, load_scenario
from policy.simulation.world import Outcome, Seen, World

TRAINING_SEED = 0
BESIDE = ("greedy", "sequential", "pricing")
"""References judged on the same seeds, beside those that scores need."""
PACKAGES = ("stable-baselines3", "torch", "gymnasium", "numpy")
REPORT_EVERY = 500
"""Steps."""
LEFT_OUT = ("regret", "plan_mix")
"""Of each policy's figures: long, and told by the evaluation."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much is, and of how much."""


@dataclass(frozen=True)
class Setting:
    """How Stable-Baselines3 is asked to learn."""

    name: str
    environments: int = 1
    """Stepped in turns in one process; steps are counted over all of them."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of its ``A2C``; what is not named stays at its defaults."""


OURS = "a2c_equal_steps"
"""The policy of this project, trained on this scenario alone, on as many decisions of devices."""
SETTINGS = (
    Setting("sb3_a2c_defaults"),
    # No discount: little is carried from period to period here. Longer batches from several sites at once, and a
    # network wide enough for thousands of inputs.
    Setting(
        "sb3_a2c_tuned",
        8,
        {
            "learning_rate": 3e-4,
            "n_steps": 16,
            "gamma": 0.0,
            "ent_coef": 0.001,
            "normalize_advantage": True,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
    ),
)


class Model(Protocol):
    """What is used of a trained Stable-Baselines3 model."""

    def predict(self, observation: Observation, *, deterministic: bool) -> tuple[NDArray[np.int64], Any]:
        """Return actions [F, N] for observations [F, …]."""
        ...


class FlatAgent:
    """Plays simulated worlds by a policy over the environment's flat observations."""

    def __init__(self, name: str, model: Model, most_plans: int) -> None:
        self.name = name
        self._model = model
        self._most_plans = most_plans

    def begin(self, world: World) -> None:
        """Forget the last episode."""
        self._memory = Memory((world.fleets, world.scenario.devices))

    def act(self, world: World, seen: Seen, rng: np.random.Generator) -> NDArray[np.int64]:  # noqa: ARG002
        """Return the likeliest plans [F, N]; those that are not allowed become local ones, as in training."""
        view = observe(seen, self._memory, self._most_plans)
        actions, _ = self._model.predict(view.flat, deterministic=True)
        return view.permitted(np.asarray(actions, np.int64))[0]

    def learn(self, outcome: Outcome) -> None:
        """Nothing: it has learned before."""


def bench(
    scenario_name: str,
    steps: int,
    seeds: int,
    beside: Mapping[str, Callable[[], Agent]],
    progress: Progress,
    settings: Sequence[Setting] = SETTINGS,
) -> dict[str, Any]:
    """Train Stable-Baselines3 with every setting, and this project's learner, for ``steps`` steps; judge all.

    One environment step decides for all devices of one site. Raises ``PolicyError`` for an unknown scenario,
    ``ModuleNotFoundError`` where the packages are not installed.
    """
    scenario = load_scenario(scenario_name)
    if steps < 1:
        raise PolicyError(f"{steps} steps are no training: ask for at least 1")
    trained: dict[str, FlatAgent] = {}
    training: dict[str, dict[str, Any]] = {}
    for setting in settings:
        model, seconds, done = _train(scenario, setting, steps, progress)
        trained[setting.name] = FlatAgent(setting.name, model, scenario.most_plans)
        training[setting.name] = {
            "seconds": round(seconds, 1),
            "env_steps": done,
            "device_decisions": done * scenario.devices,
            "device_decisions_per_s": round(done * scenario.devices / seconds),
            "environments": setting.environments,
            "settings": dict(setting.arguments),
        }
    ours, training[OURS] = _train_ours(scenario, steps, progress)
    agents: dict[str, Callable[[], Agent]] = {
        OURS: lambda: LearnedAgent(ours),
        **{name: REFERENCES[name] for name in BESIDE},
        **{name: lambda agent=agent: agent for name, agent in trained.items()},  # type: ignore[misc]
        **beside,
    }
    found = runner.evaluate(
        Suite(scenario.name, (scenario,)),
        agents,
        runner.evaluation_seeds(seeds),
        progress=lambda now: progress(f"judging {now.policy}", now.done, now.of),
    )
    rows = found["scenarios"][scenario.name]
    return {
        "modelled": True,
        "scenario": scenario.name,
        "scenario_version": scenario.version,
        "seeds": found["seeds"],
        "fleets": found["fleets"],
        "packages": {name: version(name) for name in PACKAGES},
        "training": training,
        "policies": {
            name: {key: value for key, value in row.items() if key not in LEFT_OUT}
            | {"device_decisions_per_s": round(1000 * scenario.devices / max(row["decide_ms"], 1e-6))}
            for name, row in rows.items()
        },
    }


def _train_ours(scenario: Scenario, steps: int, progress: Progress) -> tuple[Actor, dict[str, Any]]:
    """Return the actor that as many decisions of this project's learner make, and how long it took."""
    per_update = FLEETS * PERIODS
    updates = max(1, round(steps / per_update))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "weights.npz"
        # A process of its own: TensorFlow and torch need not get on.
        arguments = ["--lesson", scenario.name, "--updates", str(updates), "--seed", "1", "--out", str(out)]
        command = [sys.executable, "-m", "policy.learn", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                told = json.loads(line).get("progress")
                if told is not None:
                    progress(f"training {OURS}", told["done"] * per_update, updates * per_update)
        if child.returncode:
            raise PolicyError("the training of this project's own learner failed; its message is above")
        actor = load_actor(out)
    seconds, decisions = float(actor.about["seconds"]), int(actor.about["decisions"])
    return actor, {
        "seconds": round(seconds, 1),
        "env_steps": updates * per_update,
        "device_decisions": decisions,
        "device_decisions_per_s": round(decisions / seconds),
        "environments": FLEETS,
        "settings": {},
    }


def _train(scenario: Scenario, setting: Setting, steps: int, progress: Progress) -> tuple[Model, float, int]:
    """Return the trained model, the seconds it took and the steps it really made (whole batches)."""
    import torch
    from stable_baselines3 import A2C
    from stable_baselines3.common.vec_env import DummyVecEnv

    torch.set_num_threads(1)
    made = [lambda seed=i: FleetEnv(scenario, TRAINING_SEED + seed) for i in range(setting.environments)]
    # A copy: the model writes into its arguments.
    arguments = deepcopy(dict(setting.arguments))
    model = A2C("MlpPolicy", DummyVecEnv(made), seed=TRAINING_SEED, device="cpu", **arguments)

    def told(inside: dict[str, Any], _outside: dict[str, Any]) -> bool:
        done = int(inside["self"].num_timesteps)
        if done % REPORT_EVERY < setting.environments:
            progress(f"training {setting.name}", done, steps)
        return True

    began = time.perf_counter()
    model.learn(steps, callback=told)
    return model, time.perf_counter() - began, int(model.num_timesteps)
