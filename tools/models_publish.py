"""The command ``splitfleet models publish``: make a signed bundle of a version, for a roll-out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tools.site import Folder, Json

if TYPE_CHECKING:
    from tflite_models.activation import Array
    from tflite_models.catalog import ModelFolder

SAMPLES = 4
"""Golden samples where none are given: each runs once on every device."""


def publish(
    version: Annotated[str, typer.Argument(help="A version, shipped or your own.")],
    golden: Annotated[
        Path | None,
        typer.Option("--golden", help="Samples to prove it by: .npz with input-0, input-1, … [frames that ship]."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option("--tolerance", min=0, help="How far a device's answers may be off [0.01; integers 2 steps]."),
    ] = None,
    architecture: Annotated[
        list[str] | None, typer.Option("--architecture", help="Only for boards of this uname -m; again for more.")
    ] = None,
    zoo: Annotated[Path | None, typer.Option("--zoo", help="Folder of your own versions.", show_default=False)] = None,
    site: Annotated[str, typer.Option("--site", help="Name of the site [the only one there is].")] = "",
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Sign a version with its heads and golden samples into a bundle that devices of the site take over the air.

    Example: splitfleet models publish resnet-light --site plant-1
    """
    from edge_broker_side.identity.register import SiteRegister
    from edge_broker_side.identity.signing import Signer
    from edge_broker_side.rollout.bundles import make_bundle
    from edge_broker_side.rollout.server import RolloutSettings
    from tools.home import store_folder
    from tools.output import console, print_json, progress_bar
    from tools.prepared import prepare_versions
    from tools.rollout import settings_of
    from tools.site import found

    where = found(site, folder)
    SiteRegister(where).read()  # says how to make one where there is none
    settings: RolloutSettings = settings_of(where)
    with progress_bar() as show:
        made = prepare_versions(store_folder(), [version], progress=show, zoo=zoo).folder(version)
        show(f"signing {version}", 0, 1)
        path = make_bundle(
            made, _samples(made, golden), settings.bundle("").parent, Signer.of_site(where), int(time.time()),
            architectures=architecture or (), tolerance=tolerance,
        )  # fmt: skip
    size = path.stat().st_size
    if as_json:
        print_json({"bundle": path.stem, "version": version, "path": str(path), "bytes": size})
        return
    out = console()
    out.print(f"{path.stem} is signed: {size:,} bytes in {path}", soft_wrap=True)
    out.print(f"next: splitfleet rollout start {path.stem} --stages 5%,25%,100%", soft_wrap=True)


def _samples(made: ModelFolder, golden: Path | None) -> list[Array]:
    """Return an array per input: those of the file, else frames that ship where it takes pictures, else noise."""
    import numpy as np

    from edge_broker_side.rollout.bundles import BundleFileError
    from tflite_models.activation import frame_to_input
    from tflite_models.pack import load_pack, shipped_pack

    specs = made.version.inputs
    if golden is not None:
        try:
            with np.load(golden, allow_pickle=False) as stored:
                return [stored[f"input-{number}"] for number in range(len(specs))]
        except (OSError, ValueError, KeyError, EOFError) as error:
            wanted = ", ".join(f"input-{number}" for number in range(len(specs)))
            raise BundleFileError(f"{golden} is no .npz file with {wanted}: {error}") from error
    if len(specs) == 1 and specs[0].dtype in ("uint8", "int8") and specs[0].shape[-1] == 3:
        from device_client.camera import fit

        height, width = specs[0].shape[1:3]
        frames, _, _ = load_pack(shipped_pack())
        return [frame_to_input(specs[0], np.stack([fit(frame, height, width) for frame in frames[:SAMPLES]]))]
    rng = np.random.default_rng(0)
    return [(rng.random((SAMPLES, *spec.shape[1:])) * (1 if spec.dtype[0] == "f" else 100)).astype(spec.dtype)
            for spec in specs]  # fmt: skip
