"""The command ``splitfleet profile edge``: what every tail costs on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tools.output import console, print_table


def edge(
    models: Annotated[Path | None, typer.Option("--models", help="Store with the tails [the prepared store].")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Profile to write [edge.json of the profiles].")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements per tail and batch size.")] = 5,
) -> None:
    """Measure every tail at batch sizes 1 to 32 and write the edge profile that policies read.

    Example: splitfleet profile edge --out edge.json
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from edge_broker_side.profiling import BATCHES, profile_edge
    from tflite_models.catalog import load_catalog
    from tflite_models.profile import save_profile
    from tools.home import profiles_folder, store_folder

    catalog = load_catalog(models or store_folder())
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console()) as bar:
        task = bar.add_task("")
        profile = profile_edge(
            catalog,
            repeats=repeats,
            progress=lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
        )
    target = out or profiles_folder() / "edge.json"
    save_profile(profile, target)
    rows = [[t.version, t.cut, *(dict(t.batch_ms).get(size) for size in BATCHES)] for t in profile.tails]
    print_table("ms per batch", ["version", "cut", *map(str, BATCHES)], rows)
    console().print(f"{profile.runtime}, {profile.machine}: {profile.overhead_ms:.2f} ms per frame beside the tail")
    console().print(f"written to {target}")
