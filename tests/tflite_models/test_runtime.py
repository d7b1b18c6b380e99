"""One loader, two runtimes: selection, checks at the border, batches, ownership."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tflite_models.runtime import (
    ENVIRONMENT,
    FAST,
    LIGHT,
    Array,
    ModelError,
    RuntimeUnavailable,
    Submodel,
    runtime_name,
    select,
)
from tflite_models.synthetic import ModelWriter, conv_chain

BOTH = pytest.mark.parametrize("runtime", [LIGHT, FAST])


def affine() -> bytes:
    """(x + 3) · 2 and x · x, over rows of four."""
    writer = ModelWriter()
    x, total, doubled, square = (writer.tensor((1, 4), open_batch=True) for _ in range(4))
    three, two = writer.tensor((), data=np.array(3)), writer.tensor((), data=np.array(2))
    writer.operator("ADD", [x, three], [total])
    writer.operator("MUL", [total, two], [doubled])
    writer.operator("MUL", [x, x], [square])
    return writer.file([x], [square, doubled])


@BOTH
def test_outputs_come_in_the_order_of_the_file(runtime: str) -> None:
    x = np.array([[1, -2, 3, 0.5]], np.float32)
    model = Submodel(affine(), runtime=runtime)
    square, doubled = model.run(x)
    np.testing.assert_array_equal(square, x * x)
    np.testing.assert_array_equal(doubled, (x + 3) * 2)
    assert model.runtime.startswith(runtime)
    assert [spec.shape for spec in model.inputs] == [(1, 4)]


@BOTH
def test_a_batch_gives_what_its_frames_give_one_by_one(runtime: str) -> None:
    model = Submodel(affine(), runtime=runtime)
    model.warm_up(batch=3)
    batch = np.arange(20, dtype=np.float32).reshape(5, 4)
    together = model.run(batch)
    for row in range(5):
        alone = model.run(batch[row : row + 1])
        for many, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(many[row : row + 1], one)


@BOTH
def test_results_survive_the_next_run(runtime: str) -> None:
    model = Submodel(affine(), runtime=runtime)
    first, _ = model.run(np.full((1, 4), 2, np.float32))
    model.run(np.zeros((1, 4), np.float32))
    assert first.tolist() == [[4, 4, 4, 4]]


@BOTH
@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ([np.zeros((1, 4))], "is float32, not float64"),
        ([np.zeros((1, 5), np.float32)], r"has shape \(1, 4\), not \(1, 5\)"),
        ([np.zeros(4, np.float32)], r"has shape \(1, 4\), not \(4,\)"),
        ([np.zeros((0, 4), np.float32)], "has shape"),
        ([], "takes 1 tensors, not 0"),
    ],
)
def test_wrong_tensors_are_refused_in_words(runtime: str, arrays: list[Array], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Submodel(affine(), runtime=runtime).run(*arrays)


@BOTH
def test_a_failed_batch_leaves_the_submodel_usable(runtime: str) -> None:
    writer = ModelWriter()
    x, y = writer.tensor((1, 2, 2), open_batch=True), writer.tensor((1, 4))
    writer.operator("RESHAPE", [x, writer.tensor((2,), "int32", data=np.array([1, 4]))], [y])
    model = Submodel(writer.file([x], [y]), runtime=runtime)
    with pytest.raises(ModelError):
        model.run(np.zeros((3, 2, 2), np.float32))
    (y_value,) = model.run(np.arange(4, dtype=np.float32).reshape(1, 2, 2))
    assert y_value.tolist() == [[0, 1, 2, 3]]


def test_a_second_thread_is_refused() -> None:
    model = Submodel(affine())
    model.warm_up()  # may happen anywhere
    x = np.zeros((1, 4), np.float32)
    errors: list[str] = []

    def use() -> None:
        try:
            model.run(x)
        except ModelError as error:
            errors.append(str(error))

    first, second = threading.Thread(target=use), threading.Thread(target=use)
    first.start()
    second.start()  # both live at once, so they differ
    first.join()
    second.join()
    model_owned_elsewhere = pytest.raises(ModelError, match="belongs to another thread")
    with model_owned_elsewhere:
        model.run(x)


@BOTH
def test_files_that_are_no_models_are_named(runtime: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.tflite"
    path.write_text("not a model at all")
    with pytest.raises(ModelError, match=r"notes\.tflite is not a \.tflite file"):
        Submodel(path, runtime=runtime)
    with pytest.raises(ModelError, match="No such file"):
        Submodel(tmp_path / "absent.tflite", runtime=runtime)
    path.write_bytes(conv_chain(1, 2, 2, 1)[:100])
    with pytest.raises(ModelError, match="cannot load"):
        Submodel(path, runtime=runtime)


def test_argument_beats_environment_beats_preference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert select(prefer="light").name == LIGHT
    assert select(prefer="fast").name == FAST
    monkeypatch.setenv(ENVIRONMENT, FAST)
    assert select(prefer="light").name == FAST
    assert select(LIGHT, prefer="fast").name == LIGHT
    monkeypatch.setenv(ENVIRONMENT, "torch")
    with pytest.raises(RuntimeUnavailable, match="unknown runtime 'torch'"):
        runtime_name()


def test_numpy_2_takes_the_light_runtime_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setattr(np, "__version__", "2.1.0")
    assert select(prefer="light").name == FAST
    with pytest.raises(RuntimeUnavailable, match="pip install 'numpy<2'"):
        select(LIGHT)


def test_without_any_runtime_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    for module in ("tflite_runtime.interpreter", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RuntimeUnavailable, match=r"pip install tflite-runtime.*pip install ai-edge-litert"):
        select()


def test_a_process_with_tensorflow_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", sys)
    with pytest.raises(RuntimeUnavailable, match="cannot share a process with TensorFlow"):
        select(FAST)


def test_a_device_loads_no_splitter_and_one_runtime() -> None:
    script = (
        "import sys\n"
        "from tflite_models.runtime import Submodel, select\n"
        "select()\n"
        "bad = {'flatbuffers', 'tensorflow', 'typer', 'rich', 'ai_edge_litert', 'PIL'} & set(sys.modules)\n"
        "sys.exit(' '.join(sorted(bad)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
