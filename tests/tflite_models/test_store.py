"""Deployable folders: complete, checked, and left alone when they are right."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tflite_models import store
from tflite_models.catalog import (
    MANIFEST,
    MODEL,
    CatalogError,
    Cut,
    ModelFolder,
    Provenance,
    Version,
    load_folder,
    sha256_of,
    version_to_json,
)
from tflite_models.runtime import Submodel
from tflite_models.splitter import CutCheck, Graph
from tflite_models.store import prepare
from tflite_models.synthetic import conv_chain


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    data = conv_chain(4, 6, 6, 3)
    graph = Graph(data)
    place = tmp_path / "zoo" / "chain"
    place.mkdir(parents=True)
    (place / MODEL).write_bytes(data)
    cuts = (
        Cut("input", 0, graph.inputs, 0, graph.macs),
        dataclasses.replace(graph.cut(1), name="early"),
        dataclasses.replace(graph.cut(3), name="late"),
        Cut("output", len(graph), graph.outputs, graph.macs, 0),
    )
    version = Version(
        name="chain",
        family="chain",
        sha256=sha256_of(place / MODEL),
        size_bytes=len(data),
        precision="float32",
        inputs=graph.inputs,
        outputs=graph.outputs,
        macs=graph.macs,
        accuracy=None,
        labels=(),
        least_runtime="2.14",
        cuts=cuts,
        plans=(),
        provenance=Provenance("", "", "", 0),
    )
    (place / MANIFEST).write_text(version_to_json(version))
    return load_folder(place)


def state(path: Path) -> dict[str, tuple[int, bytes]]:
    return {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in path.iterdir()}


def test_every_inner_cut_gets_its_files(folder: ModelFolder, tmp_path: Path) -> None:
    out = prepare(folder, tmp_path / "site", heads=True, tails=True)
    halves = {f"{cut}.{side}.tflite" for cut in ("early", "late") for side in ("head", "tail")}
    assert {file.name for file in out.path.iterdir()} == {MANIFEST, MODEL, *halves}
    frame = np.random.default_rng(0).random((1, 6, 6, 3)).astype(np.float32)
    (whole,) = Submodel(out.model).run(frame)
    for cut in ("early", "late"):
        (parts,) = Submodel(out.tail(cut)).run(*Submodel(out.head(cut)).run(frame))
        np.testing.assert_array_equal(parts, whole)
        assert out.version.cut(cut).head_sha256 == sha256_of(out.head(cut))
        assert out.version.cut(cut).tail_sha256 == sha256_of(out.tail(cut))


def test_a_device_gets_no_tails_and_the_edge_no_heads(folder: ModelFolder, tmp_path: Path) -> None:
    device = prepare(folder, tmp_path / "device", heads=True, tails=False)
    edge = prepare(folder, tmp_path / "edge", heads=False, tails=True)
    assert not [file.name for file in device.path.iterdir() if "tail" in file.name]
    assert not [file.name for file in edge.path.iterdir() if "head" in file.name]


def test_a_second_time_touches_nothing(folder: ModelFolder, tmp_path: Path) -> None:
    out = prepare(folder, tmp_path / "site", heads=True, tails=True)
    before = state(out.path)
    assert prepare(folder, out.path, heads=True, tails=True) == out
    assert prepare(out, out.path, heads=True, tails=True) == out
    assert state(out.path) == before


def test_a_damaged_half_is_made_again(folder: ModelFolder, tmp_path: Path) -> None:
    out = prepare(folder, tmp_path / "site", heads=True, tails=True)
    good = out.head("early").read_bytes()
    out.head("early").write_bytes(good[:-1])
    prepare(out, out.path, heads=True, tails=True)
    assert out.head("early").read_bytes() == good


def test_halves_of_other_bytes_are_taken_only_when_they_compute_the_same(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = tuple(dataclasses.replace(cut, head_sha256="ab" * 32) for cut in folder.version.cuts)
    promised = ModelFolder(folder.path, dataclasses.replace(folder.version, cuts=cuts))
    taken = prepare(promised, tmp_path / "taken" / "chain", heads=True, tails=True)
    for cut in ("early", "late"):
        assert taken.version.cut(cut).head_sha256 == sha256_of(taken.head(cut))

    def wrong(graph: Graph, cuts: list[Cut], samples: int) -> list[CutCheck]:
        return [CutCheck(cut.index, 1, 0.5, 0, 0) for cut in cuts]

    monkeypatch.setattr(store, "check_each", wrong)
    with pytest.raises(CatalogError, match=r"head of chain at early .* differ from the whole by 0\.5"):
        prepare(promised, tmp_path / "refused" / "chain", heads=True, tails=True)


def test_another_model_file_is_an_error(folder: ModelFolder, tmp_path: Path) -> None:
    folder.model.write_bytes(conv_chain(4, 6, 6, 3, seed=9))
    with pytest.raises(CatalogError, match="sha256 differs"):
        prepare(folder, tmp_path / "site", heads=True, tails=True)


def test_a_cut_that_lies_elsewhere_is_an_error(folder: ModelFolder, tmp_path: Path) -> None:
    cuts = tuple(dataclasses.replace(cut, index=2) if cut.name == "late" else cut for cut in folder.version.cuts)
    moved = ModelFolder(folder.path, dataclasses.replace(folder.version, cuts=cuts))
    with pytest.raises(CatalogError, match="cut 'late' is not at operator 2"):
        prepare(moved, tmp_path / "site", heads=True, tails=True)
