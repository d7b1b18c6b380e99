"""The commands ``splitfleet models …``: look at models, cut them, prove the cuts, add one's own."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tools.models_publish import publish
from tools.output import print_json, print_table, progress_bar

if TYPE_CHECKING:
    from tflite_models.catalog import Cut, TensorSpec
    from tflite_models.splitter import Graph

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List, cut, split, verify, add, prepare and build models."
)

File = Annotated[Path, typer.Argument(help="A .tflite file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
LONGEST_NAME = 40
_WIDTHS = {"float16": 2, "int16": 2, "uint16": 2, "float32": 4, "int32": 4, "uint32": 4, "float64": 8, "int64": 8}

Width = Annotated[int, typer.Option("--max-width", min=1, help="Most tensors that may cross a cut.")]
Zoo = Annotated[
    Path | None,
    typer.Option("--zoo", help="Folder of your own versions [$SPLITFLEET_ZOO, else one in your data folder]."),
]


@app.command("list", short_help="List every version there is.")
def list_versions(zoo: Zoo = None, as_json: Json = False) -> None:
    """List every version there is: those that ship, and your own.

    Example: splitfleet models list
    """
    from tools.prepared import every_version
    from wire.plan import INPUT, OUTPUT

    rows: list[dict[str, Any]] = []
    for origin, folder in every_version(zoo).values():
        version = folder.version
        rows.append(
            {
                "version": version.name,
                "family": version.family,
                "origin": origin,
                "precision": version.precision,
                "accuracy": version.accuracy,
                "macs": version.macs,
                "size_bytes": version.size_bytes,
                "cuts": [cut.name for cut in version.cuts if cut.name not in (INPUT, OUTPUT)],
                "plans": len(version.plans),
            }
        )
    if as_json:
        print_json(rows)
        return
    print_table(
        "",
        ["version", "family", "origin", "precision", "accuracy", "MMAC", "KiB", "cuts", "plans"],
        [
            [
                row["version"],
                row["family"],
                row["origin"],
                row["precision"],
                "unknown" if row["accuracy"] is None else f"{100 * row['accuracy']:.1f} %",
                row["macs"] / 1e6,
                row["size_bytes"] // 1024,
                " ".join(row["cuts"]),
                row["plans"],
            ]
            for row in rows
        ],
    )


@app.command(short_help="Show where a model can be cut.")
def cuts(file: File, max_width: Width = 1, as_json: Json = False) -> None:
    """Show where a model can be cut, what would cross there and how much work lies before it.

    Example: splitfleet models cuts mine.tflite --max-width 2
    """
    from tflite_models.splitter import load_graph

    graph = load_graph(file)
    found = graph.cuts(max_width)
    if as_json:
        print_json([_cut_facts(graph, cut) for cut in found])
        return
    rows = [
        [
            cut.name,
            graph.operators[cut.index - 1].kind,
            "\n".join(_short(spec.name) for spec in cut.tensors),
            "\n".join(f"{spec.dtype} {'×'.join(map(str, spec.shape))}" for spec in cut.tensors),
            sum(_bytes(spec) for spec in cut.tensors),
            cut.head_macs / 1e6,
            cut.tail_macs / 1e6,
        ]
        for cut in found
    ]
    print_table("", ["cut", "after", "tensor", "shape", "bytes", "head MMAC", "tail MMAC"], rows)
    note = f"{len(graph)} operators, {graph.macs / 1e6:.1f} MMAC, {len(found)} cuts where at most {max_width} cross"
    print(note if found else f"{note}: try --max-width {max_width + 1}", file=sys.stderr)


@app.command(short_help="Write head and tail of a model at one cut.")
def split(
    file: File,
    cut: Annotated[str, typer.Option("--cut", help="Where, as `models cuts` names it: op5, or 5.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the two files.")],
) -> None:
    """Write head.tflite and tail.tflite of a model at one cut.

    Example: splitfleet models split mine.tflite --cut op12 --out halves/
    """
    from tflite_models.splitter import load_graph
    from tflite_models.splitter import split as split_graph

    graph = load_graph(file)
    index = _index(cut)
    head, tail = split_graph(graph, index)
    found = graph.cut(index)
    out.mkdir(parents=True, exist_ok=True)
    for side, data, macs in (("head", head, found.head_macs), ("tail", tail, found.tail_macs)):
        path = out / f"{side}.tflite"
        path.write_bytes(data)
        print(f"{path}  {len(data):,} bytes, {macs / 1e6:.1f} MMAC")


@app.command(short_help="Prove that head and tail equal the whole; exit 1 where they do not.")
def verify(
    file: File,
    chosen: Annotated[str, typer.Option("--cuts", help="all, or a list such as op1,op5,op9.")] = "all",
    max_width: Width = 1,
    runtime: Annotated[str | None, typer.Option(help="tflite-runtime or ai-edge-litert [the faster]")] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="Largest difference that passes.")] = 0.0,
    samples: Annotated[int, typer.Option(min=1, help="Random inputs per cut.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the random inputs.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the interpreter.")] = 1,
    as_json: Json = False,
) -> None:
    """Run head, then tail, at every cut and compare with the whole; exit 1 where they differ too much.

    Example: splitfleet models verify mine.tflite --max-width 4 --runtime tflite-runtime
    """
    from tflite_models.runtime import runtime_name
    from tflite_models.splitter import check_each, load_graph

    graph = load_graph(file)
    wanted = _wanted(graph, chosen, max_width)
    name = runtime_name(runtime, "fast")
    each = check_each(graph, wanted, samples=samples, seed=seed, runtime=runtime, threads=threads)
    checks = []
    with progress_bar() as show:
        for check in each:
            checks.append(check)
            show(f"op{check.index}", len(checks), len(wanted))
    worst = max((check.max_abs_diff for check in checks), default=0.0)
    if as_json:
        rows = [asdict(check) | {"max_abs_diff": _finite(check.max_abs_diff)} for check in checks]
        print_json({"runtime": name, "worst": _finite(worst), "cuts": rows})
    else:
        print_table(
            "",
            ["cut", "tensors", "largest difference", "head KiB", "tail KiB"],
            [[f"op{c.index}", c.tensors, c.max_abs_diff, c.head_bytes // 1024, c.tail_bytes // 1024] for c in checks],
        )
        print(f"{len(checks)} cuts on {name}: largest difference {worst:g}", file=sys.stderr)
    if worst > tolerance:
        raise typer.Exit(1)


@app.command(short_help="Add your own model to your zoo.")
def add(
    file: File,
    labels: Annotated[Path, typer.Option(help="Text file with one label per line, in the order of the outputs.")],
    name: Annotated[str, typer.Option(help="Name of the version: a-z, 0-9 and dashes [the file's].")] = "",
    family: Annotated[str, typer.Option(help="Versions of one family answer the same question [the name].")] = "",
    images: Annotated[
        Path | None, typer.Option(help="Labelled pictures, one sub-folder per label; without them accuracy is unknown.")
    ] = None,
    pixels: Annotated[
        str | None, typer.Option(help="Range a float32 model wants its pixels in: 0:1, -1:1 or 0:255.")
    ] = None,
    most_images: Annotated[int, typer.Option(min=10, help="Most pictures to measure on.")] = 1000,
    zoo: Zoo = None,
) -> None:
    """Add your own model to your zoo: cuts are chosen, checked and measured.

    With pictures every plan gets its accuracy and its bytes. Without, accuracy stays unknown, bytes come from invented
    pictures, and codecs have no calibrated range: they fit themselves to every frame.
    A float32 model is stored with its pixel range built in, so that it takes plain uint8 frames like the others.

    Example: splitfleet models add mine-light.tflite --family mine --labels labels.txt --images val --pixels 0:1
    """
    from tflite_models.adopt import Adoption, adopt
    from tflite_models.catalog import CatalogError, load_catalog, shipped_zoo
    from tools.home import zoo_folder

    name = name or re.sub("[^a-z0-9]+", "-", file.stem.lower()).strip("-")
    if name in load_catalog(shipped_zoo()).folders:
        raise CatalogError(f"a version '{name}' ships with splitfleet: choose another --name")
    request = Adoption(name, family or name, labels, images, pixels, most_images)
    command = f"splitfleet models add {file.name} --name {name}"
    folder = adopt(
        file, request, zoo or zoo_folder(), command=command, report=lambda line: print(line, file=sys.stderr)
    )
    version = folder.version
    inner = " ".join(cut.name for cut in version.cuts)
    accuracy = "unknown" if version.accuracy is None else f"{100 * version.accuracy:.1f} %"
    print(f"{folder.path}  accuracy {accuracy}, cuts {inner}, {len(version.plans)} plans")
    print(f"to run it: splitfleet models prepare {version.name} --out FOLDER", file=sys.stderr)


@app.command("prepare", short_help="Make the model folders that device, worker and policy service need.")
def prepare_folders(
    versions: Annotated[list[str] | None, typer.Argument(help="Versions, shipped or your own [all].")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the model folders [this machine's].")] = None,
    zoo: Zoo = None,
    heads: Annotated[bool, typer.Option("--heads/--no-heads", help="What devices run.")] = True,
    tails: Annotated[bool, typer.Option("--tails/--no-tails", help="What workers run.")] = True,
) -> None:
    """Cut versions into heads and tails and write the folder that `models = ...` of every settings file names.

    Copy the same folder to boards and edge machines, or leave out what one of them does not run.

    Example: splitfleet models prepare resnet-light resnet-heavy --out models --no-tails
    """
    from tools.home import store_folder
    from tools.prepared import prepare_versions

    root = out or store_folder()
    with progress_bar() as show:
        catalog = prepare_versions(root, versions or (), progress=show, heads=heads, tails=tails, zoo=zoo)
    for folder in catalog.folders.values():
        size = sum(file.stat().st_size for file in folder.path.iterdir() if file.is_file())
        print(f"{folder.path}  {len(folder.version.cuts)} cuts, {size:,} bytes")


@app.command(
    short_help="Train the versions that ship, and their frames (needs TensorFlow).",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def build(context: typer.Context) -> None:
    """Build the versions that ship, from data to manifest (needs TensorFlow; its own options: build --help).

    Example: splitfleet models build --help
    """
    # TensorFlow stays out of this process: no TensorFlow Lite runtime could be loaded after it.
    raise typer.Exit(subprocess.call([sys.executable, "-m", "tflite_models.builder", *context.args]))


app.command(short_help="Sign a version, so that devices take it over the air.")(publish)


def _cut_facts(graph: Graph, cut: Cut) -> dict[str, Any]:
    tensors = [asdict(spec) | {"bytes": _bytes(spec)} for spec in cut.tensors]
    return {
        "name": cut.name,
        "index": cut.index,
        "after": graph.operators[cut.index - 1].kind,
        "tensors": tensors,
        "bytes": sum(spec["bytes"] for spec in tensors),
        "head_macs": cut.head_macs,
        "tail_macs": cut.tail_macs,
    }


def _bytes(spec: TensorSpec) -> int:
    """Return the size of a tensor as it is in memory, before any codec."""
    return spec.elements * _WIDTHS.get(spec.dtype, 1)


def _short(name: str) -> str:
    """Return the telling part of a tensor's name: converters join those of all layers they fused."""
    first = name.partition(";")[0]
    return first if len(first) <= LONGEST_NAME else f"…{first[1 - LONGEST_NAME :]}"


def _index(cut: str) -> int:
    digits = cut.strip().removeprefix("op")
    if not digits.isdecimal():
        raise typer.BadParameter(f"'{cut}' is not a cut: write op5, or 5")
    return int(digits)


def _wanted(graph: Graph, chosen: str, max_width: int) -> list[Cut]:
    if chosen == "all":
        return graph.cuts(max_width)
    return [graph.cut(_index(cut)) for cut in chosen.split(",")]


def _finite(difference: float) -> float | str:
    return difference if difference != float("inf") else "inf"
