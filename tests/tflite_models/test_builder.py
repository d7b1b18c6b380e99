"""Building a version end to end: toy frames, a few training steps in a child process, two measured model folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tflite_models.garments import toy_garments, write_data_set
from tflite_models.builder.build import BuildError, Effort, build, default_work_folder
from tflite_models.builder.recipes import RECIPES
from tflite_models.catalog import load_catalog, shipped_zoo
from tflite_models.measure import named_cuts
from tflite_models.splitter import load_graph


@pytest.fixture
def effort(tmp_path: Path) -> Effort:
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "test"):
        write_data_set(data, toy_garments(split))
    return Effort(epochs=1, train_frames=256, test_frames=40, workers=1, data=data)


def test_a_version_is_built_from_garments_alone(tmp_path: Path, effort: Effort) -> None:
    told: list[str] = []
    build(
        tmp_path / "zoo",
        ["densenet-light"],
        effort=effort,
        work=tmp_path / "work",
        progress=lambda what, _done, _all: told.append(what),
    )
    catalog = load_catalog(tmp_path / "zoo", check_hash=True)
    assert sorted(catalog.folders) == ["densenet-light", "densenet-light-int8"]
    for version in catalog:
        assert [cut.name for cut in version.cuts] == ["input", *RECIPES["densenet-light"].cuts, "output"]
        assert version.provenance.frames == 40 and version.provenance.seed == RECIPES["densenet-light"].seed
        assert version.inputs[0].dtype == "uint8" and version.outputs[0].dtype == "float32"
    assert {what.split()[0] for what in told} == {"frames", "train", "measure"}

    told.clear()
    (effort.data / "train-labels-idx1-ubyte.gz").unlink()  # nothing is trained again, so nothing is missed
    build(
        tmp_path / "again",
        ["densenet-light"],
        effort=effort,
        work=tmp_path / "work",
        progress=lambda what, _done, _all: told.append(what),
    )
    assert {what.split()[0] for what in told} == {"measure"}
    for name, folder in load_catalog(tmp_path / "again").folders.items():
        assert folder.version == catalog.folder(name).version


def test_a_failed_training_tells_why(tmp_path: Path, effort: Effort) -> None:
    build(tmp_path / "zoo", [], effort=effort, work=tmp_path / "work")
    (effort.data / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(BuildError, match=r"training resnet-light failed(?s:.*)dataset-fashion-mnist"):
        build(tmp_path / "zoo", ["resnet-light"], effort=effort, work=tmp_path / "work")


def test_unknown_versions_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"no recipe for alexnet: there are resnet-light"):
        build(tmp_path / "zoo", ["alexnet"], work=tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_work_is_kept_below_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_work_folder() == tmp_path / "splitfleet" / "zoo-build"


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_cut_of_a_recipe_is_in_the_shipped_file(name: str) -> None:
    graph = load_graph(shipped_zoo() / name / "model.tflite")
    shares = [cut.head_macs / graph.macs for cut in named_cuts(graph, RECIPES[name].cuts)]
    assert shares == sorted(shares) and shares[-1] < 0.98
