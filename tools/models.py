"""The commands ``splitfleet models …``: look at models, cut them, prove the cuts, add one's own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tools.output import print_json, print_table

if TYPE_CHECKING:
    from tflite_models.catalog import Cut
    from tflite_models.splitter import Graph

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at models, cut them, add your own.")

File = Annotated[Path, typer.Argument(help="A .tflite file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Width = Annotated[int, typer.Option("--max-width", min=1, help="Most tensors that may cross a cut.")]
Zoo = Annotated[Path | None, typer.Option("--zoo", help="Folder of your own versions [$SPLITFLEET_ZOO].")]


@app.command("list")
def list_versions(zoo: Zoo = None, as_json: Json = False) -> None:
    """List every version there is: those that ship, and your own.

    Example: splitfleet models list
    """
    from tflite_models.catalog import MANIFEST, load_catalog, local_zoo, shipped_zoo
    from wire.plan import INPUT, OUTPUT

    rows: list[dict[str, Any]] = []
    for origin, root in (("shipped", shipped_zoo()), ("local", zoo or local_zoo())):
        if not any(root.glob(f"*/{MANIFEST}")):
            continue
        for version in load_catalog(root):
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


@app.command()
def cuts(file: File, max_width: Width = 1, as_json: Json = False) -> None:
    """Show where a model can be cut, what would cross there and how much work lies before it.

    Example: splitfleet models cuts mine.tflite --max-width 2
    """
    from tflite_models.splitter import load_graph

    graph = load_graph(file)
    found = graph.cuts(max_width)
    if as_json:
        print_json([asdict(cut) for cut in found])
        return
    rows = []
    for cut in found:
        share = f"{100 * cut.head_macs / graph.macs:.1f} %" if graph.macs else "–"
        crossing = " + ".join(f"{spec.dtype} {'×'.join(map(str, spec.shape))}" for spec in cut.tensors)
        elements = sum(spec.elements for spec in cut.tensors)
        rows.append([cut.name, graph.operators[cut.index - 1].kind, crossing, elements, cut.head_macs / 1e6, share])
    print_table("", ["cut", "after", "crosses", "elements", "head MMAC", "share"], rows)
    note = f"{len(graph)} operators, {graph.macs / 1e6:.1f} MMAC, {len(found)} cuts where at most {max_width} cross"
    print(note if found else f"{note}: try --max-width {max_width + 1}", file=sys.stderr)


@app.command()
def split(
    file: File,
    cut: Annotated[str, typer.Option("--cut", help="Where, as `models cuts` names it: op5, or 5.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the two files.")],
) -> None:
    """Write head and tail of a model at one cut.

    Example: splitfleet models split mine.tflite --cut op12 --out halves/
    """
    from tflite_models.splitter import load_graph
    from tflite_models.splitter import split as split_graph

    graph = load_graph(file)
    index = _index(cut)
    head, tail = split_graph(graph, index)
    for side, data in (("head", head), ("tail", tail)):
        path = out / f"{file.stem}.op{index}.{side}.tflite"
        try:
            out.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise typer.BadParameter(f"cannot write {path}: {error.strerror}") from error
        print(f"{path}  {len(data)} bytes")


@app.command()
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
    from rich.console import Console
    from rich.progress import track

    from tflite_models.runtime import runtime_name
    from tflite_models.splitter import check_each, load_graph

    graph = load_graph(file)
    wanted = _wanted(graph, chosen, max_width)
    name = runtime_name(runtime, "fast")
    each = check_each(graph, wanted, samples=samples, seed=seed, runtime=runtime, threads=threads)
    progress = track(each, "cuts", len(wanted), console=Console(stderr=True), transient=True)
    checks = list(progress)
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


@app.command()
def add(
    file: File,
    name: Annotated[str, typer.Option(help="Name of the version: a-z, 0-9 and dashes.")],
    labels: Annotated[Path, typer.Option(help="Text file with one label per line, in the order of the outputs.")],
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

    Example: splitfleet models add mine.tflite --name mine --labels labels.txt --images val --pixels 0:1
    """
    from tflite_models.adopt import Adoption, adopt
    from tflite_models.catalog import local_zoo

    request = Adoption(name, family or name, labels, images, pixels, most_images)
    command = f"splitfleet models add {file.name} --name {name}"
    root = zoo or local_zoo()
    folder = adopt(file, request, root, command=command, report=lambda line: print(line, file=sys.stderr))
    version = folder.version
    inner = " ".join(cut.name for cut in version.cuts)
    accuracy = "unknown" if version.accuracy is None else f"{100 * version.accuracy:.1f} %"
    print(f"{folder.path}  accuracy {accuracy}, cuts {inner}, {len(version.plans)} plans")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def build(context: typer.Context) -> None:
    """Build the versions that ship, from data to manifest (needs TensorFlow; its own options: build --help).

    Example: splitfleet models build --help
    """
    # TensorFlow stays out of this process: no TensorFlow Lite runtime could be loaded after it.
    raise typer.Exit(subprocess.call([sys.executable, "-m", "tflite_models.builder", *context.args]))


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
