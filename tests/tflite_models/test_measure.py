"""Measuring: the facts in a manifest are those that head, codec and tail really give."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tflite_models.activation import decode_activation, encode_activation
from tflite_models.calibration import choose_clips
from tflite_models.catalog import Cut, Provenance, TensorSpec, Version, load_folder, shipped_zoo
from tflite_models.measure import MeasureError, Sample, measure_version, named_cuts, write_version
from tflite_models.pack import load_pack, shipped_pack
from tflite_models.runtime import Submodel
from tflite_models.splitter import load_graph, split
from wire.plan import INPUT, OUTPUT

NAMES = ("resnet-light", "resnet-light-int8")
FRAMES = 60


def model_of(name: str) -> Path:
    return shipped_zoo() / name / "model.tflite"


@cache
def sample() -> Sample:
    frames, labels, _ = load_pack(shipped_pack())
    return Sample(frames[300:332], frames[:FRAMES], labels[:FRAMES])


@cache
def measured(name: str, labelled: bool = True) -> Version:
    model = model_of(name)
    return measure_version(
        model,
        named_cuts(load_graph(model), ["s2"]),
        sample() if labelled else dataclasses.replace(sample(), truth=None),
        name=name,
        family="resnet",
        labels=["a", "b"],
        provenance=Provenance("a test", "", "", 0),
    )


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_what_the_real_path_of_a_frame_gives(name: str) -> None:
    version, truth = measured(name), sample().truth
    assert truth is not None
    cut = version.cut("s2")
    head, tail = (Submodel(half, prefer="fast") for half in split(load_graph(model_of(name)), cut.index))
    for codec in ("q4", "q2", *(("i8",) if name.endswith("int8") else ("f32", "f16", "q8"))):
        facts = version.facts("s2", codec)
        right, sizes = 0, []
        for frame, label in zip(sample().frames, truth, strict=True):
            encoded = encode_activation(cut, facts, head.run(frame[None]))
            sizes.append(len(encoded[0].data))
            right += int(tail.run(*decode_activation(cut, encoded))[0].argmax()) == label
        assert facts.accuracy == pytest.approx(right / FRAMES, abs=1.01 / FRAMES)  # batches may round otherwise
        assert facts.bytes_mean == np.mean(sizes[::5])


def test_the_whole_network_and_the_picture_are_plans_too() -> None:
    version, truth = measured("resnet-light"), sample().truth
    scores = Submodel(model_of("resnet-light"), prefer="fast").run(sample().frames)[0]
    accuracy = float((scores.argmax(1) == truth).mean())
    assert version.accuracy == version.facts(OUTPUT, "none").accuracy == accuracy
    assert version.facts(OUTPUT, "none").bytes_mean == 0
    assert version.facts(INPUT, "raw8").bytes_mean == 96 * 96 * 3
    assert version.facts(INPUT, "png").accuracy == accuracy
    assert version.facts(INPUT, "webp50").bytes_mean < version.facts(INPUT, "jpeg75").bytes_mean


def test_multiplications_are_shared_out_between_head_and_tail() -> None:
    version = measured("resnet-light")
    assert [cut.name for cut in version.cuts] == [INPUT, "s2", OUTPUT]
    assert {cut.head_macs + cut.tail_macs for cut in version.cuts} == {version.macs}
    assert 0 == version.cut(INPUT).head_macs < version.cut("s2").head_macs < version.macs


def test_fewer_bits_are_fewer_bytes() -> None:
    sizes = [measured("resnet-light").facts("s2", codec).bytes_mean for codec in ("f32", "f16", "q8", "q4", "q2")]
    assert sizes == sorted(sizes, reverse=True)


def test_precision_and_runtime_are_told() -> None:
    assert [measured(name).precision for name in NAMES] == ["float32", "int8"]
    assert {measured(name).least_runtime for name in NAMES} == {"2.14"}


def test_without_labels_bytes_are_known_and_accuracy_is_not() -> None:
    known, unknown = measured("resnet-light"), measured("resnet-light", labelled=False)
    assert {facts.accuracy for _, facts in unknown.all_plans()} == {None} and unknown.accuracy is None
    assert unknown.provenance.frames == 0
    for plan, facts in known.all_plans():
        other = unknown.facts(plan.cut, plan.codec)
        assert (other.bytes_mean, other.clips) == (facts.bytes_mean, facts.clips)


def test_a_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    version = measured("resnet-light-int8")
    place = write_version(version, model_of("resnet-light-int8"), tmp_path)
    assert load_folder(place, check_hash=True).version == version


def test_cuts_are_found_by_layer_name() -> None:
    graph = load_graph(model_of("resnet-light"))
    first, second = named_cuts(graph, ["s1", "s2"])
    assert (first.name, first.tensors[0].shape) == ("s1", (1, 24, 24, 12))
    assert (second.name, second.tensors[0].shape) == ("s2", (1, 12, 12, 24))
    with pytest.raises(MeasureError, match="no cut behind a layer 's'"):
        named_cuts(graph, ["s"])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"frames": np.zeros((4, 32, 32, 3), np.uint8)}, "takes pictures of shape"),
        ({"calibration": np.zeros((4, 96, 96, 3), np.float32)}, "takes pictures of shape"),
        ({"calibration": np.zeros((0, 96, 96, 3), np.uint8)}, "takes pictures of shape"),
        ({"truth": np.zeros(3, np.uint8)}, "60 frames have 3 labels"),
    ],
)
def test_frames_that_do_not_fit_are_refused(change: dict[str, Any], complaint: str) -> None:
    bad = dataclasses.replace(sample(), **change)
    with pytest.raises(MeasureError, match=complaint):
        measure_version(
            model_of("resnet-light"), [], bad, name="x", family="x", labels=[], provenance=Provenance("", "", "", 0)
        )


def test_calibration_gives_up_outliers_for_finer_levels() -> None:
    values = np.random.default_rng(1).uniform(0, 1, (50, 20, 20, 1)).astype(np.float32)
    values[0, 0, 0, 0] = 100.0
    cut = Cut("c", 1, (TensorSpec("t", (1, 20, 20, 1), "float32"),), 0, 0)

    def tail(arrays: Any) -> NDArray[Any]:
        rows: NDArray[Any] = np.minimum(arrays[0], 1).reshape(50, -1)
        return rows

    (clip,) = choose_clips(cut, [values], "q2", tail, tail([values]))
    assert 0 <= clip.low < 0.01 and 0.9 < clip.high < 1.1
    assert choose_clips(cut, [values], "f16", tail, tail([values])) == ()
