"""The command ``splitfleet profile edge``: what every tail costs on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from tools.output import check_writable, console, print_json, print_table, progress_bar


def edge(
    models: Annotated[
        Path | None, typer.Option("--models", help="Folder of model folders with tails [every version].")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Profile to write [edge.json of the profiles].")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements per tail and batch size.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the profile as JSON instead of a table.")] = False,
) -> None:
    """Measure every tail at batch sizes 1 to 32 on this machine and write the edge profile that policies read.

    Example: splitfleet profile edge --out edge.json
    """
    from edge_broker_side.profiling import BATCHES, profile_edge
    from tflite_models.catalog import load_catalog
    from tflite_models.profile import save_profile
    from tools.home import profiles_folder
    from tools.prepared import prepared_store

    target = out or profiles_folder() / "edge.json"
    check_writable(target)
    with progress_bar() as show:
        catalog = load_catalog(models) if models else prepared_store(show)
        profile = profile_edge(catalog, repeats=repeats, progress=show)
    save_profile(profile, target)
    if as_json:
        print_json(dataclasses.asdict(profile))
        return
    rows = [[t.version, t.cut, *(dict(t.batch_ms).get(size) for size in BATCHES)] for t in profile.tails]
    print_table("ms per batch", ["version", "cut", *map(str, BATCHES)], rows)
    console().print(f"{profile.runtime}, {profile.machine}: {profile.overhead_ms:.2f} ms per frame beside the tail")
    console().print(f"written to {target}")
