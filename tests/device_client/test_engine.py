"""The engine on real models: what it answers, what it refuses, and what it keeps loaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from device_client.engine import LOADED_MAX, Engine
from tests.device_client.stores import BIG, CUT, LABELS, LOCAL, SHIP, SPLIT, classifier, picture, write_version
from tflite_models.activation import decode_activation
from tflite_models.catalog import ModelsError, load_catalog, load_folder, shipped_zoo
from tflite_models.pack import load_pack, shipped_pack
from tflite_models.runtime import Submodel
from tflite_models.store import prepare
from wire.plan import Plan


@pytest.mark.parametrize("plan", [SPLIT, SHIP])
def test_a_head_and_the_edges_tail_make_the_whole(models: Path, plan: Plan) -> None:
    catalog = load_catalog(models)
    engine = Engine(catalog)
    folder = catalog.folder(plan.version)
    tail = Submodel(folder.tail(plan.cut))
    for number in range(10):
        encoded = engine.run_head(plan, picture(number))
        scores = tail.run(*decode_activation(folder.version.cut(plan.cut), encoded.tensors))[0]
        answer = engine.run_whole(plan.version, picture(number))
        assert answer.best is not None
        assert answer.best.label == int(np.argmax(scores))
        assert answer.best.score == pytest.approx(float(scores.max()), abs=0)
        assert encoded.head_ms >= 0
        assert encoded.encode_ms >= 0


def test_a_picture_of_another_size_is_fitted(models: Path) -> None:
    engine = Engine(load_catalog(models))
    assert engine.run_whole("tiny", picture(3, side=64)).best is not None
    assert engine.run_head(SHIP, picture(3, side=64)).tensors[0].shape == (1, 24, 24, 3)


def test_plans_that_cannot_be_followed_are_refused_with_the_reason(models: Path, tmp_path: Path) -> None:
    write_version(tmp_path, "tiny", classifier(4, seed=1), heads=False)
    for store, plan, word in (
        (models, Plan("other", CUT, "f32"), "other"),
        (models, Plan("tiny", "op99", "f32"), "op99"),
        (models, Plan("tiny", CUT, "q2"), "q2"),
        (models, Plan("tiny", "output", "f32"), "f32"),
        (tmp_path, SPLIT, "head"),
    ):
        problem = Engine(load_catalog(store)).check(plan)
        assert problem is not None
        assert word in problem
    for plan in (SPLIT, SHIP, LOCAL, BIG):
        assert Engine(load_catalog(models)).check(plan) is None


def test_a_model_of_something_else_than_pictures_is_refused(tmp_path: Path, models: Path) -> None:
    catalog = load_catalog(models)
    folder = catalog.folders["tiny"]
    spec = dataclasses.replace(folder.version.inputs[0], shape=(1, 24))
    odd = dataclasses.replace(folder, version=dataclasses.replace(folder.version, inputs=(spec,)))
    problem = Engine(dataclasses.replace(catalog, folders={"tiny": odd})).check(LOCAL)
    assert problem is not None
    assert "picture" in problem


def test_a_file_that_is_not_what_the_manifest_says_is_not_loaded(tmp_path: Path) -> None:
    write_version(tmp_path, "tiny", classifier(4, seed=1))
    for path, plan in ((tmp_path / "tiny" / f"{CUT}.head.tflite", SPLIT), (tmp_path / "tiny" / "model.tflite", LOCAL)):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(ModelsError, match=path.name):
            Engine(load_catalog(tmp_path)).prepare(plan)


def test_a_score_that_is_no_number_is_a_failure_not_an_answer(tmp_path: Path) -> None:
    write_version(tmp_path, "tiny", classifier(4, seed=1, scores=float("nan")))
    with pytest.raises(ModelsError, match="not a number"):
        Engine(load_catalog(tmp_path)).run_whole("tiny", picture(1))


def test_without_labels_the_raw_outputs_are_the_answer(tmp_path: Path) -> None:
    write_version(tmp_path, "tiny", classifier(4, seed=1), labels=())
    answer = Engine(load_catalog(tmp_path)).run_whole("tiny", picture(1))
    assert answer.best is None
    assert [tensor.shape for tensor in answer.outputs] == [(1, len(LABELS))]


def test_an_emulated_board_takes_its_time(models: Path) -> None:
    slept: list[float] = []
    engine = Engine(load_catalog(models), slowdown=5.0, sleep=slept.append)
    engine.prepare(SPLIT)
    slept.clear()
    encoded = engine.run_head(SPLIT, picture(1))
    real_ms = (encoded.head_ms + encoded.encode_ms) / 5
    assert sum(slept) * 1000 == pytest.approx(4 * real_ms)


def test_few_submodels_stay_loaded_and_any_can_come_back(tmp_path: Path) -> None:
    for number in range(4):
        write_version(tmp_path, f"v{number}", classifier(4, seed=number))
    engine = Engine(load_catalog(tmp_path))
    for _ in range(2):
        for number in range(4):
            engine.prepare(Plan(f"v{number}", CUT, "f32"))
            assert len(engine._loaded) <= LOADED_MAX
    first = engine.run_whole("v0", picture(1)).best
    assert first == Engine(load_catalog(tmp_path)).run_whole("v0", picture(1)).best


def test_the_shipped_versions_answer_the_shipped_frames(tmp_path: Path) -> None:
    """Every shipped version, cut at its first inner cut with its first codec, on the labelled pack."""
    images, labels, names = load_pack(shipped_pack())
    for folder in load_catalog(shipped_zoo()).folders.values():
        prepare(folder, tmp_path / folder.version.name, heads=True, tails=False)
        assert folder.version.labels == names
        assert load_folder(tmp_path / folder.version.name).version.name == folder.version.name
    catalog = load_catalog(tmp_path)
    for version in catalog:
        engine = Engine(catalog)
        plans = [plan for plan, _ in version.all_plans() if plan.cut not in ("input", "output")]
        assert engine.check(plans[0]) is None
        engine.prepare(plans[0])
        answers = [engine.run_whole(version.name, image).best for image in images[:40]]
        right = sum(best is not None and best.label == label for best, label in zip(answers, labels, strict=False))
        assert right >= 40 * 0.5
