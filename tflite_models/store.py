"""Make a model folder ready to deploy: manifest, whole model, and the submodels of every inner cut."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import tempfile
from pathlib import Path

from tflite_models.catalog import (
    MANIFEST,
    MODEL,
    CatalogError,
    Cut,
    ModelFolder,
    load_folder,
    sha256_of,
    version_to_json,
)
from tflite_models.splitter import Graph, check_each, load_graph, split
from wire.plan import INPUT, OUTPUT

log = logging.getLogger(__name__)


def prepare(folder: ModelFolder, out: Path, *, heads: bool, tails: bool) -> ModelFolder:
    """Make ``out`` a deployable copy of a model folder and return it.

    It then holds ``version.json`` (written last, with the hash of every submodel made), ``model.tflite`` and, as
    asked, ``<cut>.head.tflite`` and ``<cut>.tail.tflite`` of every inner cut. Files that are right already stay
    untouched; the others appear whole or not at all. Raises ``CatalogError`` where a file is not what the manifest
    says, ``SplitRefused`` and ``ModelFileError``.
    """
    version = folder.version
    out.mkdir(parents=True, exist_ok=True)
    if not _is(out / MODEL, version.sha256):
        if not _is(folder.model, version.sha256):
            raise CatalogError(f"{folder.model} is not the file that its manifest describes (sha256 differs)")
        _write(out / MODEL, folder.model.read_bytes())
    target = ModelFolder(out, version)
    graph: Graph | None = None
    cuts = []
    for cut in version.cuts:
        if cut.name in (INPUT, OUTPUT) or _complete(target, cut, heads=heads, tails=tails):
            cuts.append(cut)
            continue
        graph = graph or load_graph(target.model)
        cuts.append(_write_halves(target, graph, cut, heads=heads, tails=tails))
    prepared = dataclasses.replace(version, cuts=tuple(cuts))
    _write(out / MANIFEST, version_to_json(prepared).encode())
    return load_folder(out)


def _complete(target: ModelFolder, cut: Cut, *, heads: bool, tails: bool) -> bool:
    head = not heads or _is(target.head(cut.name), cut.head_sha256)
    return head and (not tails or _is(target.tail(cut.name), cut.tail_sha256))


def _write_halves(target: ModelFolder, graph: Graph, cut: Cut, *, heads: bool, tails: bool) -> Cut:
    head, tail = split(graph, cut.index)
    found = graph.cut(cut.index)
    if found.tensors != cut.tensors:
        raise CatalogError(f"{target.version.name}: cut '{cut.name}' is not at operator {cut.index} of {target.model}")
    promised = {"head": cut.head_sha256 if heads else "", "tail": cut.tail_sha256 if tails else ""}
    made = {"head": hashlib.sha256(head).hexdigest(), "tail": hashlib.sha256(tail).hexdigest()}
    differing = [half for half, sha256 in promised.items() if sha256 and sha256 != made[half]]
    if differing:
        _prove_equal(target, graph, cut, differing)
    if heads:
        _write(target.head(cut.name), head)
    if tails:
        _write(target.tail(cut.name), tail)
    return dataclasses.replace(
        cut,
        head_sha256=made["head"] if heads else cut.head_sha256,
        tail_sha256=made["tail"] if tails else cut.tail_sha256,
    )


def _prove_equal(target: ModelFolder, graph: Graph, cut: Cut, differing: list[str]) -> None:
    """Accept halves of other bytes than promised if they compute the same: a flatbuffers release may lay them out anew.

    The whole network is known to be the promised one, and both halves were just made from it.
    """
    (check,) = check_each(graph, [cut], samples=1)
    if check.max_abs_diff != 0:
        raise CatalogError(
            f"{' and '.join(differing)} of {target.version.name} at {cut.name} are not what the manifest promises, and "
            f"differ from the whole by {check.max_abs_diff:g}: install the packages of constraints.txt"
        )
    log.warning(
        "%s of %s at %s have other bytes than promised, and compute the same", differing, target.version.name, cut.name
    )


def _is(path: Path, sha256: str) -> bool:
    return bool(sha256) and path.is_file() and sha256_of(path) == sha256


def _write(path: Path, data: bytes) -> None:
    """Replace a file whole, unless it holds these bytes already."""
    if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
        return
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
