"""The proof that the learner learns: known tasks, several seeds, every one shown. TensorFlow lives in this process.

Standard output is one JSON object per line: ``{"progress": …}`` while it works, one ``{"result": …}`` per seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policy.errors import PolicyError
from policy.learn.runtime import prepare_tensorflow
from policy.learn.settings import A2CSettings

if TYPE_CHECKING:
    from policy.learn.gym_training import Status

EPISODES = 100
_PROGRESS_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be learned, with what, and how well; the score is the mean of 100 greedy episodes."""

    env: str
    steps: int
    target: float
    settings: A2CSettings


@dataclass(frozen=True, slots=True)
class Result:
    """How one seed did."""

    task: str
    seed: int
    score: float
    score_std: float
    target: float
    passed: bool
    steps: int
    """Of all environments together."""
    wall_s: float
    """Training alone, without judging."""
    steps_per_s: float


TASKS = {
    "cartpole": Task(
        "CartPole-v1",
        500_000,
        500.0,
        A2CSettings(
            gae_lambda=1.0, learning_rate=7e-4, learning_rate_end=1.0, optimiser="rmsprop", entropy_start=0.0,
            entropy_end=0.0, n_steps=5, n_envs=8,
        ),
    ),
    "identity": Task(
        "splitfleet/Identity-v0",
        1_200,
        90.0,
        A2CSettings(
            gamma=0.0, gae_lambda=0.0, learning_rate=1e-2, learning_rate_end=0.1, entropy_start=0.0, entropy_end=0.0,
            n_steps=2, n_envs=8,
        ),
    ),
}  # fmt: skip


def prove(
    name: str,
    seed: int,
    *,
    steps: int | None = None,
    log: Path | None = None,
    progress: Callable[[Status], None] = lambda _status: None,
) -> Result:
    """Train one task from one seed and judge what it learned."""
    import gymnasium

    from policy.learn.gym_training import evaluate_greedy, train_on_gym
    from policy.learn.identity import register

    register()
    task = TASKS[name]
    settings = replace(task.settings, seed=seed)

    def make_env() -> gymnasium.Env[Any, Any]:
        return gymnasium.make(task.env, disable_env_checker=True)

    reached: list[Status] = []

    def note(status: Status) -> None:
        reached[:] = [status]
        progress(status)

    started = time.perf_counter()
    learner, network = train_on_gym(make_env, settings, steps or task.steps, note, log=log)
    wall_s = time.perf_counter() - started
    sums = evaluate_greedy(make_env, network, learner.weights(), episodes=EPISODES, seed=seed)
    score, done = float(sums.mean()), reached[0].done
    return Result(name, seed, score, float(sums.std()), task.target, score >= task.target, done, wall_s, done / wall_s)


def main(arguments: list[str] | None = None) -> int:
    """Prove the chosen tasks; return 1 where a seed missed its target."""
    parser = argparse.ArgumentParser(
        prog="python -m policy.learn.prove", description=__doc__, epilog="Example: splitfleet policy prove --seeds 1"
    )
    parser.add_argument("--task", choices=[*TASKS, "all"], default="all")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on; default: 5")
    parser.add_argument("--log", type=Path, help="folder for TensorBoard, one folder below it per task and seed")
    options = parser.parse_args(arguments)
    prepare_tensorflow()
    passed = True
    try:
        for name in TASKS if options.task == "all" else [options.task]:
            for seed in range(options.seeds):
                log = options.log and options.log / f"{name}-{seed}"
                result = prove(name, seed, log=log, progress=_teller(name, seed))
                _tell("result", asdict(result))
                passed &= result.passed
    except PolicyError as error:
        print(f"splitfleet: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0 if passed else 1


def _teller(name: str, seed: int) -> Callable[[Status], None]:
    told_at = -_PROGRESS_EVERY_S

    def tell(status: Status) -> None:
        nonlocal told_at
        now = time.monotonic()
        if now - told_at >= _PROGRESS_EVERY_S or status.done >= status.total:
            told_at = now
            _tell("progress", {"what": f"{name}, seed {seed}", **asdict(status)})

    return tell


def _tell(kind: str, facts: dict[str, Any]) -> None:
    print(json.dumps({kind: facts}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
