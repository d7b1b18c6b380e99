"""``splitfleet models …`` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from PIL import Image

from tflite_models.catalog import load_catalog
from tflite_models.runtime import FAST, LIGHT, Submodel
from tflite_models.splitter import Graph, take_pixels
from tflite_models.synthetic import ModelWriter, conv_chain
from tools.cli import main

Run = Callable[..., tuple[int, str, str]]
COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["splitfleet", "models", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    path = tmp_path / "chain.tflite"
    path.write_bytes(conv_chain(3, 6, 6, 4))
    return path


def colour_judge() -> bytes:
    """Three convolutions that change nothing, then the mean of each channel: scores of red, green and blue."""
    writer = ModelWriter()
    first = last = writer.tensor((1, 8, 8, 3), open_batch=True)
    same = np.zeros((3, 3, 3, 3))
    for channel in range(3):
        same[channel, 1, 1, channel] = 1
    options = schema.Conv2DOptionsT(strideW=1, strideH=1, dilationWFactor=1, dilationHFactor=1)
    for _ in range(3):
        weights, bias = writer.tensor(same.shape, data=same), writer.tensor((3,), data=np.zeros(3))
        output = writer.tensor((1, 8, 8, 3), open_batch=True)
        writer.operator("CONV_2D", [last, weights, bias], [output], options)
        last = output
    axes = writer.tensor((2,), "int32", data=np.array([1, 2]))
    scores = writer.tensor((1, 3), open_batch=True)
    writer.operator("MEAN", [last, axes], [scores], schema.ReducerOptionsT())
    return writer.file([first], [scores])


@pytest.fixture
def judge(tmp_path: Path) -> Path:
    path = tmp_path / "judge.tflite"
    path.write_bytes(colour_judge())
    (tmp_path / "labels.txt").write_text("".join(f"{name}\n" for name in COLOURS))
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (tmp_path / "val" / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.clip(rng.normal(colour, 10, (12, 10, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "val" / name / f"{number}.png")
    return path


def test_cuts_lists_where_and_how_much(run: Run, chain: Path) -> None:
    code, out, err = run("cuts", chain)
    assert code == 0
    assert ["op1" in out, "op2" in out, "op3" in out] == [True, True, False]
    assert "3 operators" in err
    code, out, _ = run("cuts", chain, "--json")
    found = json.loads(out)
    layer = 6 * 6 * 4 * 36
    assert [(cut["index"], cut["head_macs"], cut["tail_macs"]) for cut in found] == [
        (1, layer, 2 * layer),
        (2, 2 * layer, layer),
    ]
    assert all(cut["bytes"] == 6 * 6 * 4 * 4 and cut["tensors"][0]["shape"] == [1, 6, 6, 4] for cut in found)


def test_split_writes_halves_that_compose(run: Run, chain: Path, tmp_path: Path) -> None:
    code, _, _ = run("split", chain, "--cut", "op2", "--out", tmp_path / "halves")
    assert code == 0
    head, tail = (Submodel(tmp_path / "halves" / f"{side}.tflite") for side in ("head", "tail"))
    frame = np.ones((1, 6, 6, 4), np.float32)
    np.testing.assert_array_equal(tail.run(*head.run(frame))[0], Submodel(chain).run(frame)[0])


@pytest.mark.parametrize("runtime", [LIGHT, FAST])
def test_verify_passes_sound_cuts_on_either_runtime(run: Run, chain: Path, runtime: str) -> None:
    code, out, _ = run("verify", chain, "--runtime", runtime, "--json")
    report = json.loads(out)
    assert (code, report["worst"]) == (0, 0.0)
    assert report["runtime"].startswith(runtime)
    assert [cut["index"] for cut in report["cuts"]] == [1, 2]
    assert run("verify", chain, "--cuts", "2,op1")[0] == 0


def test_verify_fails_where_halves_differ(run: Run, chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tflite_models.splitter import split

    other = Graph(conv_chain(3, 6, 6, 4, seed=5))
    monkeypatch.setattr("tflite_models.splitter.checks.split", lambda _graph, index: split(other, index))
    assert run("verify", chain)[0] == 1
    assert run("verify", chain, "--tolerance", "1e9")[0] == 0


def test_errors_are_one_line_and_exit_code_two(run: Run, chain: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.tflite").write_text("hello, world")
    for words, told in [
        (("cuts", tmp_path / "notes.tflite"), "is not a TensorFlow Lite model"),
        (("cuts", tmp_path / "absent.tflite"), "cannot read"),
        (("split", chain, "--cut", "op9", "--out", tmp_path), "1 to 2"),
        (("verify", chain, "--runtime", "torch"), "unknown runtime 'torch'"),
    ]:
        code, out, err = run(*words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert told in err


def test_add_measures_accuracy_on_labelled_pictures(run: Run, judge: Path, tmp_path: Path) -> None:
    words = ["--name", "judge", "--labels", tmp_path / "labels.txt", "--pixels", "0:1", "--zoo", tmp_path / "zoo"]
    code, out, err = run("add", judge, *words, "--images", tmp_path / "val")
    assert code == 0, err
    assert "accuracy 100.0 %" in out
    version = load_catalog(tmp_path / "zoo", check_hash=True).folder("judge").version
    assert version.inputs[0].dtype == "uint8"
    assert version.labels == tuple(COLOURS)
    assert version.provenance.frames == 24, "a fifth of 30 calibrates"
    inner = {cut.name for cut in version.cuts} - {"input", "output"}
    assert inner
    for cut in inner:
        assert version.facts(cut, "q8").accuracy == 1.0
        assert version.facts(cut, "q8").clips
    code, out, _ = run("list", "--zoo", tmp_path / "zoo", "--json")
    assert [row["accuracy"] for row in json.loads(out) if row["origin"] == "local"] == [1.0]
    code, _, err = run("add", judge, *words)
    assert (code, "exists already" in err) == (2, True)


def test_add_without_pictures_leaves_accuracy_unknown(run: Run, judge: Path, tmp_path: Path) -> None:
    words = ["--name", "judge", "--labels", tmp_path / "labels.txt", "--pixels", "0:1", "--zoo", tmp_path / "zoo"]
    code, out, err = run("add", judge, *words)
    assert code == 0, err
    assert "accuracy unknown" in out
    version = load_catalog(tmp_path / "zoo").folder("judge").version
    assert all(plan.accuracy is None and plan.clips == () for plan in version.plans)
    assert all(plan.bytes_mean > 0 for plan in version.plans if plan.cut != "output")


def test_add_says_what_is_missing(run: Run, judge: Path, chain: Path, tmp_path: Path) -> None:
    labels, zoo = tmp_path / "labels.txt", tmp_path / "zoo"
    (tmp_path / "two.txt").write_text("a\nb\n")
    (tmp_path / "strange" / "mauve").mkdir(parents=True)
    for words, told in [
        ((judge, "--name", "judge", "--labels", labels), "--pixels 0:1"),
        ((judge, "--name", "Judge!", "--labels", labels, "--pixels", "0:1"), "is not a name"),
        ((judge, "--name", "judge", "--labels", tmp_path / "two.txt", "--pixels", "0:1"), "2 labels"),
        ((judge, "--name", "judge", "--labels", labels, "--pixels", "wide"), "is not a range"),
        (
            (judge, "--name", "judge", "--labels", labels, "--pixels", "0:1", "--images", tmp_path / "strange"),
            "'mauve' is none of the labels",
        ),
        ((chain, "--name", "chain", "--labels", labels, "--pixels", "0:1"), "not colour pictures"),
    ]:
        code, _, err = run("add", *words, "--zoo", zoo)
        assert (code, told in err) == (2, True), err
    assert not zoo.exists()


@pytest.mark.parametrize("runtime", [LIGHT, FAST])
@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 255)])
def test_built_in_pixel_range_is_the_one_asked_for(runtime: str, low: float, high: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    wrapped = Submodel(take_pixels(Graph(colour_judge()), low, high), runtime=runtime)
    floats = (low + pixels.astype(np.float64) * (high - low) / 255).astype(np.float32)
    wanted = Submodel(colour_judge(), runtime=runtime).run(floats)
    np.testing.assert_allclose(wrapped.run(pixels)[0], wanted[0], rtol=1e-5, atol=1e-5)


def test_neither_tensorflow_nor_a_runtime_is_loaded_to_look_at_a_model(chain: Path) -> None:
    script = (
        "import sys\n"
        "from tools.models import app\n"
        f"app(['cuts', {str(chain)!r}], standalone_mode=False)\n"
        "bad = {'tensorflow', 'tflite_runtime', 'ai_edge_litert.interpreter'} & set(sys.modules)\n"
        "sys.exit(' '.join(bad) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
