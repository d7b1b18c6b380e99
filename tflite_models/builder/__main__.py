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
from tflite_models.catalog import ModelsError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tflite_models.builder", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA_FOLDER, help="folder of the Fashion-MNIST .gz files")
    parser.add_argument("--work", type=Path, default=default_work_folder(), help="where frames and weights are kept")
    commands = parser.add_subparsers(dest="command", required=True)
    versions = commands.add_parser("versions", help="train, export and measure versions")
    versions.add_argument("name", nargs="*", default=list(RECIPES), help="default: all")
    versions.add_argument("--out", type=Path, required=True, help="folder for the model folders")
    versions.add_argument("--epochs", type=float, help="default: what the recipe says")
    versions.add_argument("--workers", type=int, default=2, help="processes and threads to use")
    commands.add_parser("pack", help="write the pack of labelled test frames").add_argument("file", type=Path)
    commands.add_parser("sheet", help="write a contact sheet of frames").add_argument("file", type=Path)
    options = parser.parse_args(arguments)
    try:
        if options.command == "versions":
            _versions(options)
        elif options.command == "pack":
            build_pack(options.file, effort=Effort(data=options.data), work=options.work)
        else:
            write_sheet(load_garments("test", options.data), options.file)
    except ModelsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _versions(options: argparse.Namespace) -> None:
    effort = Effort(epochs=options.epochs, workers=options.workers, data=options.data)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as bars:
        bar = bars.add_task("")
        folders = build(
            options.out,
            options.name,
            effort=effort,
            work=options.work,
            progress=lambda what, done, all_: bars.update(bar, description=what, completed=done, total=all_),
        )
    for folder in folders:
        print(folder)


if __name__ == "__main__":
    sys.exit(main())
