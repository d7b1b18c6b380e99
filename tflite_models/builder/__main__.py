"""The command line of the builder: versions, the pack of frames, the contact sheet."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tflite_models.builder.build import Effort, build, build_pack, default_work_folder
from tflite_models.builder.frames import DATA_FOLDER, load_garments
from tflite_models.builder.recipes import RECIPES
from tflite_models.builder.sheet import write_sheet
from tflite_models.builder.table import markdown_tables
from tflite_models.catalog import ModelsError, load_catalog, shipped_zoo


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="splitfleet models build",
        description=__doc__,
        epilog="Example: splitfleet models build vgg-light --epochs 1 --out zoo",
    )
    parser.add_argument("name", nargs="*", default=list(RECIPES), help="versions to build; default: all that ship")
    parser.add_argument("--out", type=Path, help="folder for the model folders; each gets its int8 twin beside it")
    parser.add_argument("--pack", type=Path, help="write the pack of labelled test frames to this .npz file")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of frames to this .png file")
    parser.add_argument("--tables", action="store_true", help="print the tables of docs/models.md for the shipped zoo")
    parser.add_argument("--epochs", type=float, help="passes over the training frames; default: what the recipe says")
    parser.add_argument("--workers", type=int, default=2, help="processes and threads to use; default: 2")
    parser.add_argument("--data", type=Path, default=DATA_FOLDER, help="folder of the Fashion-MNIST .gz files")
    parser.add_argument(
        "--work", type=Path, default=default_work_folder(), help="keeps frames and weights for next time"
    )
    options = parser.parse_args(arguments)
    if not (options.out or options.pack or options.sheet or options.tables):
        parser.error("nothing to do: name --out, --pack, --sheet or --tables")
    effort = Effort(epochs=options.epochs, workers=options.workers, data=options.data)
    try:
        if options.tables:
            print(markdown_tables(load_catalog(shipped_zoo())), end="")
        if options.sheet:
            write_sheet(load_garments("test", options.data), options.sheet)
        if options.pack:
            build_pack(options.pack, effort=effort, work=options.work)
        if options.out:
            _build_versions(options.out, options.name, effort, options.work)
    except ModelsError as error:
        print(f"splitfleet: {error}", file=sys.stderr)
        return 2
    return 0


def _build_versions(out: Path, names: list[str], effort: Effort, work: Path) -> None:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as bars:
        bar = bars.add_task("")
        folders = build(
            out,
            names,
            effort=effort,
            work=work,
            progress=lambda what, done, all_: bars.update(bar, description=what, completed=done, total=all_),
        )
    for folder in folders:
        print(folder)


if __name__ == "__main__":
    sys.exit(main())
