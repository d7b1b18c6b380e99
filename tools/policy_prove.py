"""The command ``splitfleet policy prove``: known tasks, learned anew on this machine, every seed shown."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Task(StrEnum):
    """What can be proved."""

    CARTPOLE = "cartpole"
    IDENTITY = "identity"
    ALL = "all"


def prove(
    task: Annotated[Task, typer.Option("--task", help="What to learn.")] = Task.ALL,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many seeds, from 0 on.")] = 5,
    log: Annotated[Path | None, typer.Option("--log", help="Folder for TensorBoard, one below it per seed.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Prove that the learner learns; exit 1 where a seed misses its target (needs TensorFlow).

    CartPole-v1 after 500,000 steps must balance for all of 500 steps, the identity task after 1,200 must score 90 of
    100; the score is the mean of 100 episodes with the likeliest action. A few minutes for all five seeds.

    Example: splitfleet policy prove --task identity --seeds 2
    """
    from tools.output import print_json, print_table
    from tools.training import run_training

    chosen = ["--task", task.value, "--seeds", str(seeds), *(["--log", str(log)] if log else [])]
    results, status = run_training("policy.learn.prove", chosen)
    if as_json:
        print_json({"measured": True, "results": results})
    elif results:
        columns = ["task", "seed", "score", "deviation", "target", "passed", "steps", "seconds", "steps/s"]
        print_table("100 greedy episodes per seed, measured", columns, [_row(result) for result in results])
    if status:
        raise typer.Exit(status)


def _row(result: dict[str, Any]) -> list[object]:
    score, spread = f"{result['score']:.1f}", f"{result['score_std']:.1f}"
    return [
        result["task"], result["seed"], score, spread, result["target"], result["passed"], result["steps"],
        round(result["wall_s"], 1), round(result["steps_per_s"]),
    ]  # fmt: skip
