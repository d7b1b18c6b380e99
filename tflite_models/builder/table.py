"""The measured tables of docs/models.md, written from the manifests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tflite_models.builder.recipes import INT8
from tflite_models.catalog import Catalog, Version
from wire.plan import INPUT, OUTPUT

_LEVELS = ("q8", "q4", "q2")
_PICTURES = ("jpeg75", "webp75", "webp50")


def markdown_tables(catalog: Catalog) -> str:
    """Return three tables: versions, plans that ship the picture, plans that ship an activation."""
    plain = [version for version in catalog if not version.name.endswith(INT8)]
    versions = [
        [one.name, f"{one.macs / 1e6:.1f} M", *_size_and_accuracy(one), *_size_and_accuracy(_twin(catalog, one))]
        for one in plain
    ]
    pictures = [[one.name, *(_cell(one, INPUT, codec) for codec in _PICTURES)] for one in plain]
    cuts = [
        [one.name, cut.name, "×".join(map(str, cut.tensors[0].shape[1:])), f"{100 * cut.head_macs / one.macs:.0f} %"]
        + [_cell(one, cut.name, codec) for codec in _LEVELS]
        for one in plain
        for cut in one.cuts
        if cut.name not in (INPUT, OUTPUT)
    ]
    return "\n".join(
        [
            *_table(("version", "MACs", "float32 file", "accuracy", "int8 file", "accuracy"), versions),
            "",
            *_table(("picture to the edge", *_PICTURES), pictures),
            "",
            *_table(("activation to the edge", "cut", "shape", "MACs in head", *_LEVELS), cuts),
            "",
        ]
    )


def _twin(catalog: Catalog, version: Version) -> Version:
    return catalog.folder(version.name + INT8).version


def _size_and_accuracy(version: Version) -> tuple[str, str]:
    return f"{version.size_bytes / 1024:.0f} KiB", _percent(version.accuracy)


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.2f} %"


def _cell(version: Version, cut: str, codec: str) -> str:
    facts = version.facts(cut, codec)
    if facts.accuracy is None or version.accuracy is None:
        return f"{facts.bytes_mean:,.0f} B"
    return f"{facts.bytes_mean:,.0f} B, {100 * (facts.accuracy - version.accuracy):+.2f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]
