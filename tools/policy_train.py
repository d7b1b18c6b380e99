"""The command ``splitfleet policy train``: the fleet's policy learned in simulation and on a site's own records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    out: Annotated[Path, typer.Option("--out", help="File of weights to write.")] = Path("a2c.npz"),
    suite: Annotated[str, typer.Option("--suite", help="What to learn; there is one: standard.")] = "standard",
    seed: Annotated[int, typer.Option("--seed", min=1, max=99, help="Seed of weights, sites and choices.")] = 1,
    updates: Annotated[int, typer.Option("--updates", min=1, help="Gradient steps.")] = 2400,
    families: Annotated[
        str | None, typer.Option("--families", help="Network families to learn on [resnet,vgg].")
    ] = None,
    begin: Annotated[Path | None, typer.Option("--from", help="Weights to train further.")] = None,
    site: Annotated[Path | None, typer.Option("--site", help="A site's records, from policy export.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Kept as training goes; gone on from where it exists.")
    ] = None,
    log: Annotated[Path | None, typer.Option("--log", help="Folder for TensorBoard.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a sentence.")] = False,
) -> None:
    """Train the a2c policy in simulation (needs TensorFlow; about ten minutes on one core).

    With --site it learns from a real site's links and loads as well, and with --from it goes on from weights that are
    there: a candidate for policy promote.

    Example: splitfleet policy train --seed 1 --out a2c.npz

    Example: splitfleet policy train --from a2c.npz --site site.npz --updates 300 --out candidate.npz
    """
    import json
    import subprocess

    from policy.errors import PolicyError
    from tools.output import check_writable, console, print_json
    from tools.training import run_training

    if suite != "standard":
        raise PolicyError(f"no suite '{suite}' to train on: there is standard")
    for path, what in ((begin, "weights"), (site, "records")):
        if path is not None and not path.is_file():
            raise PolicyError(f"there are no {what} at {path}")
    check_writable(out)
    found = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    command = f"splitfleet policy train --seed {seed} --updates {updates}" + (
        f" --families {families}" if families else ""
    )
    about = {"command": command, "commit": found.stdout.strip()}
    arguments = ["--out", str(out), "--seed", str(seed), "--updates", str(updates), "--about", json.dumps(about)]
    for name, value in (
        ("families", families),
        ("begin", begin),
        ("site", site),
        ("checkpoint", checkpoint),
        ("log", log),
    ):
        arguments += [f"--{name}", str(value)] if value else []
    results, status = run_training("policy.learn", arguments)
    if status:
        raise typer.Exit(status)
    if as_json:
        print_json(results[0])
    else:
        told = results[0]
        console().print(f"{told['updates']:,} updates on {told['decisions']:,} decisions: {told['weights']}")
