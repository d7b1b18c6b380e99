"""The shipped versions: whole, loadable on a small board's runtime, cut as their manifests say, worth choosing from."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import pytest

from tflite_models.builder.recipes import INT8, RECIPES
from tflite_models.builder.table import markdown_tables
from tflite_models.catalog import Catalog, load_catalog, shipped_zoo
from tflite_models.pack import load_pack, shipped_pack
from tflite_models.runtime import LIGHT, Submodel
from tflite_models.splitter import load_graph, split
from wire.plan import INPUT, OUTPUT

NAMES = sorted(name + twin for name in RECIPES for twin in ("", INT8))
HEAVY = [name for name in NAMES if "heavy" in name]


@cache
def zoo() -> Catalog:
    return load_catalog(shipped_zoo(), check_hash=True)


def test_every_recipe_is_shipped_with_its_int8_twin() -> None:
    assert sorted(version.name for version in zoo()) == NAMES
    for version in zoo():
        assert version.precision == ("int8" if version.name.endswith(INT8) else "float32")


def test_the_zoo_stays_small() -> None:
    assert sum(path.stat().st_size for path in shipped_zoo().rglob("*") if path.is_file()) < 20_000_000


@pytest.mark.parametrize("name", NAMES)
def test_head_and_tail_are_the_files_the_manifest_names_and_load_on_the_light_runtime(name: str) -> None:
    folder = zoo().folder(name)
    graph = load_graph(folder.model)
    Submodel(folder.model, runtime=LIGHT).warm_up()
    for cut in folder.version.cuts:
        if cut.name not in (INPUT, OUTPUT):
            head, tail = split(graph, cut.index)
            assert (cut.head_sha256, cut.tail_sha256) == (
                hashlib.sha256(head).hexdigest(),
                hashlib.sha256(tail).hexdigest(),
            )
            assert Submodel(head, runtime=LIGHT).outputs[0].shape == cut.tensors[0].shape
            assert Submodel(tail, runtime=LIGHT).inputs[0].shape == cut.tensors[0].shape


@pytest.mark.parametrize("name", NAMES)
def test_accuracy_on_the_pack_agrees_with_the_manifest(name: str) -> None:
    frames, labels, _ = load_pack(shipped_pack())
    scores = Submodel(zoo().folder(name).model, prefer="fast").run(frames)[0]
    found, told = float((scores.argmax(1) == labels).mean()), zoo().folder(name).version.accuracy
    assert told is not None
    assert abs(found - told) < 4 * (told * (1 - told) / len(frames)) ** 0.5  # four standard errors
    assert scores.sum(axis=1) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", HEAVY)
def test_a_heavy_version_is_worth_its_weight(name: str) -> None:
    heavy, light = (zoo().folder(one).version for one in (name, name.replace("heavy", "light")))
    assert heavy.accuracy is not None and light.accuracy is not None
    assert heavy.accuracy > light.accuracy + 0.02
    assert heavy.macs > 4 * light.macs


@pytest.mark.parametrize("name", HEAVY)
def test_some_cut_beats_the_best_picture_codec_in_bytes_at_little_loss(name: str) -> None:
    version = zoo().folder(name).version
    best_picture = min(facts.bytes_mean for plan, facts in version.all_plans() if plan.ships_input)
    assert version.accuracy is not None
    assert any(
        facts.bytes_mean < best_picture and (facts.accuracy or 0) > version.accuracy - 0.01
        for plan, facts in version.all_plans()
        if plan.cut not in (INPUT, OUTPUT)
    )


def test_the_documented_tables_are_those_of_the_manifests() -> None:
    document = Path(__file__).parents[2] / "docs" / "models.md"
    assert markdown_tables(zoo()) in document.read_text(encoding="utf-8")
