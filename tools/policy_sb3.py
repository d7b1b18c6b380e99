"""The command ``splitfleet policy sb3``: Stable-Baselines3's A2C on the same simulated site, for comparison."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Annotated, Any

import typer


def sb3(
    scenario: Annotated[str, typer.Option("--scenario", help="The scenario to learn.")] = "contention_8",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Environment steps; each decides for a site.")] = 20_000,
    seeds: Annotated[int, typer.Option("--seeds", min=2, help="Seeds to judge on, none of them trained on.")] = 5,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Weights of a2c to judge beside it [those shipped, if any].")
    ] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write every figure to this file.")] = None,
) -> None:
    """Train Stable-Baselines3's A2C through the Gymnasium environment and judge it beside the others.

    Rewards and scores are modelled, speeds measured on this machine. Needs: pip install 'splitfleet[edge,bench]'.

    Example: splitfleet policy sb3 --steps 20000 --json sb3.json
    """
    from policy.errors import PolicyError
    from policy.learn.sb3_bench import bench
    from policy.learned import WEIGHTS
    from tools.output import check_writable, progress_bar
    from tools.policy_evaluate import make_agents

    if importlib.util.find_spec("stable_baselines3") is None:
        raise PolicyError("stable_baselines3 is not installed: pip install 'splitfleet[edge,bench]'")
    check_writable(as_json)
    beside = make_agents("a2c", weights) if weights is not None or WEIGHTS.is_file() else {}
    with progress_bar() as bar:
        found = bench(scenario, steps, seeds, beside, bar)
    if as_json:
        as_json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print_comparison(found)


def print_comparison(found: dict[str, Any]) -> None:
    """Print a table of what ``bench`` found, the best first."""
    from policy.evaluation.verdicts import half_width, label
    from tools.output import print_table

    training = found["training"]
    print_table(
        f"{found['scenario']}: score and reward modelled, decisions of devices per second measured",
        ["policy", "score", "reward", "p50 ms", "mJ", "accuracy", "trained on", "training/s", "acting/s"],
        [
            [
                label(name), f"{row['score']:.3f} ± {half_width(row):.3f}", f"{row['reward']:.3f}",
                row["latency_ms_p50"], row["energy_mj"], f"{100 * row['accuracy']:.1f} %",
                training.get(name, {}).get("device_decisions"),
                training.get(name, {}).get("device_decisions_per_s"), row["device_decisions_per_s"],
            ]
            for name, row in sorted(found["policies"].items(), key=lambda item: -item[1]["score"])
        ],
    )  # fmt: skip
