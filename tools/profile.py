"""The command ``splitfleet profile device``: what every plan's head and codec cost on this machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tools.output import check_writable, console, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from tflite_models.profile import DeviceProfile


def device(
    models: Annotated[
        Path | None, typer.Option("--models", help="Folder of model folders with heads [every version].")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Profile to write [<class>.json of the profiles].")] = None,
    device_class: Annotated[str, typer.Option("--class", help="Name of this kind of board.")] = "this-machine",
    runs: Annotated[int, typer.Option(min=1, help="Runs of every head.")] = 30,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the interpreter.")] = 1,
    runtime: Annotated[str | None, typer.Option(help="tflite-runtime or ai-edge-litert [the light one]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the profile as JSON instead of a table.")] = False,
) -> None:
    """Run every head and codec of the models on this machine and write its profile.

    Energy is measured where there is a power meter (INA sensor, RAPL), else modelled; the profile says which.
    On a board without this command: python -m device_client.profiling --help

    Example: splitfleet profile device --class pi4 --out pi4.json
    """
    from device_client.meters import find_power_meter
    from device_client.profiling import profile_device, sample_frames
    from tflite_models.catalog import load_catalog
    from tflite_models.profile import save_profile
    from tools.home import profiles_folder
    from tools.prepared import prepared_store
    from wire.channels import check_name

    check_name(device_class, "class")
    target = out or profiles_folder() / f"{device_class}.json"
    check_writable(target)
    with progress_bar() as show:
        catalog = load_catalog(models) if models else prepared_store(show)
        profile = profile_device(
            catalog, sample_frames(None, runs), device_class=device_class, runs=runs, threads=threads,
            runtime=runtime, meter=find_power_meter(), progress=show,
        )  # fmt: skip
    save_profile(profile, target)
    if as_json:
        print_json(dataclasses.asdict(profile))
        return
    print_table(
        f"{profile.device_class}: {profile.board}, {profile.runtime}, energy {profile.energy_source}",
        ["version", "cut", "head ms", "p95", "mJ", "codec: ms"],
        [_row(profile, version, cut) for version, cut in _places(profile)],
    )
    console().print(f"written to {target}")


def _places(profile: DeviceProfile) -> list[tuple[str, str]]:
    """Return every (version, cut), in the order they were measured: shipping the picture first."""
    costs = [(codec.version, codec.cut) for codec in profile.codecs] + [(h.version, h.cut) for h in profile.heads]
    versions = list(dict.fromkeys(version for version, _ in costs))
    return sorted(dict.fromkeys(costs), key=lambda place: versions.index(place[0]))


def _row(profile: DeviceProfile, version: str, cut: str) -> list[object]:
    head = profile.head(version, cut)
    codecs = [f"{c.codec} {c.encode_ms_p50:.2f}" for c in profile.codecs if (c.version, c.cut) == (version, cut)]
    times: list[object] = [head.head_ms_p50, head.head_ms_p95, head.energy_mj] if cut != "input" else [None] * 3
    return [version, cut, *times, "  ".join(codecs) or None]
