"""Manifests: what is written is read again, what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tflite_models.catalog import (
    MANIFEST,
    MODEL,
    CatalogError,
    Cut,
    PlanFacts,
    Provenance,
    TensorSpec,
    Version,
    load_catalog,
    load_folder,
    sha256_of,
    version_from_json,
    version_to_json,
)
from wire.plan import Plan

PIXELS = TensorSpec("pixels", (1, 8, 8, 3), "uint8", 1 / 255, 0)
MIDDLE = TensorSpec("middle", (1, 4, 4, 2), "int8", 0.05, -128)
SCORES = TensorSpec("scores", (1, 3), "float32")


def version(name: str = "toy-light", sha256: str = "00") -> Version:
    cuts = (Cut("input", 0, (PIXELS,), 0, 90), Cut("s1", 2, (MIDDLE,), 60, 30), Cut("output", 3, (SCORES,), 90, 0))
    plans = (
        PlanFacts("output", "none", 0.0, 0.0, 0.9),
        PlanFacts("input", "webp50", 1200.5, 1400.0, 0.88),
        PlanFacts("s1", "q4", 17.0, 20.0, None, ((0.0, 6.3),)),
    )
    provenance = Provenance("make toy", "abc", "tflite-runtime 2.14.0", 100, "toys", 7)
    return Version(
        name, "toy", sha256, 5, "int8", (PIXELS,), (SCORES,), 90, 0.9, ("a", "b", "c"), "2.14", cuts, plans, provenance
    )


def test_a_manifest_is_read_as_it_was_written() -> None:
    text = version_to_json(version())
    assert version_from_json(text, "here") == version()
    assert version_to_json(version_from_json(text, "here")) == text


def _drop(raw: dict[str, Any]) -> None:
    del raw["cuts"]


def _mistype(raw: dict[str, Any]) -> None:
    raw["macs"] = "many"


def _age(raw: dict[str, Any]) -> None:
    raw["schema"] = 99


@pytest.mark.parametrize(("change", "words"), [(_drop, "cuts"), (_mistype, "macs"), (_age, "schema is 99")])
def test_a_wrong_manifest_is_named(change: Any, words: str) -> None:
    raw = json.loads(version_to_json(version()))
    change(raw)
    with pytest.raises(CatalogError, match=f"toy.json.*{words}"):
        version_from_json(json.dumps(raw), "toy.json")


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "3"])
def test_text_that_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(CatalogError, match="here"):
        version_from_json(text, "here")


def write_folder(root: Path, name: str, model: bytes = b"model") -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / MODEL).write_bytes(model)
    (folder / MANIFEST).write_text(version_to_json(version(name, sha256_of(folder / MODEL))))
    return folder


def test_a_catalog_holds_every_folder_by_name(tmp_path: Path) -> None:
    for name in ("toy-light", "toy-heavy"):
        write_folder(tmp_path, name)
    catalog = load_catalog(tmp_path, check_hash=True)
    assert [entry.name for entry in catalog] == ["toy-heavy", "toy-light"]
    assert catalog.facts(Plan("toy-light", "s1", "q4")).clips == ((0.0, 6.3),)
    assert sum(1 for _ in catalog.plans()) == 2 * len(version().plans)


def test_what_a_catalog_lacks_is_answered_with_what_it_has(tmp_path: Path) -> None:
    write_folder(tmp_path, "toy-light")
    catalog = load_catalog(tmp_path)
    with pytest.raises(CatalogError, match="there are: toy-light"):
        catalog.folder("toy-huge")
    with pytest.raises(CatalogError, match="it has input, s1, output"):
        catalog.folder("toy-light").version.cut("s9")
    with pytest.raises(CatalogError, match="no plan at cut 's1' with codec 'q2'"):
        catalog.facts(Plan("toy-light", "s1", "q2"))


def test_files_of_the_cuts_at_the_ends(tmp_path: Path) -> None:
    folder = load_folder(write_folder(tmp_path, "toy-light"))
    assert folder.head("output") == folder.tail("input") == folder.model
    with pytest.raises(CatalogError, match="has no head"):
        folder.head("input")
    with pytest.raises(CatalogError, match="has no tail"):
        folder.tail("output")


def test_broken_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no model folder"):
        load_catalog(tmp_path)
    folder = write_folder(tmp_path, "toy-light")
    (folder / MODEL).write_bytes(b"other")
    with pytest.raises(CatalogError, match="sha256 differs"):
        load_folder(folder, check_hash=True)
    (folder / MODEL).unlink()
    with pytest.raises(CatalogError, match=r"model\.tflite is missing"):
        load_folder(folder)
