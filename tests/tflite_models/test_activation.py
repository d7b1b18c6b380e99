"""Activations between a cut's tensors and their encoded form, the same on device and worker."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tflite_models.activation import (
    decode_activation,
    encode_activation,
    frame_to_input,
    to_floats,
    to_integers,
)
from tflite_models.calibration import through_codec
from tflite_models.catalog import Cut, PlanFacts, TensorSpec
from wire.tensor import IMAGE_CODECS, Clip, EncodedTensor, TensorError

FLOAT = TensorSpec("a", (1, 4, 5, 6), "float32")
INT8 = TensorSpec("b", (1, 4, 5, 6), "int8", scale=0.05, zero_point=-128)
INDEX = TensorSpec("c", (1, 3), "int32")
PIXELS = TensorSpec("pixels", (1, 8, 8, 3), "uint8")


def cut_of(*specs: TensorSpec, name: str = "s1") -> Cut:
    return Cut(name, 3, specs, 10, 20)


def floats(seed: int, count: int = 1) -> NDArray[Any]:
    return np.random.default_rng(seed).normal(2, 2, (count, 4, 5, 6)).astype(np.float32)


def integers(seed: int, count: int = 1) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(-128, 128, (count, 4, 5, 6), dtype=np.int8)


@pytest.mark.parametrize("codec", ["f32", "f16", "q8", "q4", "q2"])
def test_calibration_sees_what_the_wire_makes_of_floats(codec: str) -> None:
    clips = ((0.0, 5.0),) if codec.startswith("q") else ()
    batch = floats(1, 7)
    cut, facts = cut_of(FLOAT), PlanFacts("s1", codec, 0, 0, None, clips)
    alike = through_codec(cut.tensors, [batch], codec, [Clip(*clip) for clip in clips])[0]
    for place in range(len(batch)):
        encoded = encode_activation(cut, facts, [batch[place : place + 1]])
        np.testing.assert_array_equal(decode_activation(cut, encoded)[0][0], alike[place])


@pytest.mark.parametrize("codec", ["i8", "q4", "q2"])
def test_calibration_sees_what_the_wire_makes_of_integers(codec: str) -> None:
    clips = ((0.0, 7.0),) if codec.startswith("q") else ()
    batch = integers(2, 7)
    cut, facts = cut_of(INT8), PlanFacts("s1", codec, 0, 0, None, clips)
    alike = through_codec(cut.tensors, [batch], codec, [Clip(*clip) for clip in clips])[0]
    for place in range(len(batch)):
        encoded = encode_activation(cut, facts, [batch[place : place + 1]])
        back = decode_activation(cut, encoded)[0]
        assert back.dtype == np.int8
        np.testing.assert_array_equal(back[0], alike[place])
    if codec == "i8":
        np.testing.assert_array_equal(alike, batch)


@given(st.integers(0, 2**32))
def test_quantised_integers_survive_the_way_through_floats(seed: int) -> None:
    array = integers(seed)
    np.testing.assert_array_equal(to_integers(INT8, to_floats(INT8, array)), array)


def test_floats_outside_the_integer_range_are_clipped() -> None:
    back = to_integers(INT8, np.array([-1e9, -0.01, 0.05, 1e9], np.float32))
    np.testing.assert_array_equal(back, [-128, -128, -127, 127])


def test_several_tensors_cross_each_in_its_way() -> None:
    cut = cut_of(FLOAT, INDEX)
    arrays = [floats(4), np.array([[1, -(2**31), 7]], np.int32)]
    encoded = encode_activation(cut, PlanFacts("s1", "q8", 0, 0, None, ((-8.0, 8.0), (0.0, 0.0))), arrays)
    assert [one.codec for one in encoded] == ["q8", "i8"]
    back = decode_activation(cut, encoded)
    assert np.abs(back[0] - arrays[0].clip(-8, 8)).max() < 16 / 255
    np.testing.assert_array_equal(back[1], arrays[1])


@pytest.mark.parametrize("codec", IMAGE_CODECS)
def test_a_frame_crosses_at_cut_input(codec: str) -> None:
    frame = np.full((1, 8, 8, 3), 90, np.uint8)
    cut = cut_of(PIXELS, name="input")
    back = decode_activation(cut, encode_activation(cut, PlanFacts("input", codec, 0, 0, None), [frame]))[0]
    assert back.dtype == np.uint8 and np.abs(back.astype(int) - 90).max() <= 3


def test_pixels_become_what_the_model_takes() -> None:
    frame = np.array([[[[0, 128, 255]]]], np.uint8)
    assert frame_to_input(PIXELS, frame) is frame
    signed = frame_to_input(TensorSpec("p", (1, 1, 1, 3), "int8", 1.0, -128), frame)
    np.testing.assert_array_equal(signed, [[[[-128, 0, 127]]]])
    with pytest.raises(TensorError, match="takes float32, not pixels"):
        frame_to_input(TensorSpec("p", (1, 1, 1, 3), "float32"), frame)


def refused(cut: Cut, *encoded: EncodedTensor) -> str:
    with pytest.raises(TensorError) as caught:
        decode_activation(cut, encoded)
    return str(caught.value)


def test_what_does_not_fit_the_cut_is_refused() -> None:
    cut = cut_of(FLOAT)
    good = encode_activation(cut, PlanFacts("s1", "f32", 0, 0, None), [floats(1)])[0]
    frame = EncodedTensor("raw8", FLOAT.shape, "uint8", 0, 0, bytes(FLOAT.elements))
    assert "has 1 tensors, not 2" in refused(cut, good, good)
    assert "has shape" in refused(cut, dataclasses.replace(good, shape=(1, 5, 4, 6)))
    assert "does not belong to cut 's1'" in refused(cut, frame)
    assert "does not belong to cut 'input'" in refused(cut_of(FLOAT, name="input"), good)
    small = encode_activation(cut_of(INDEX), PlanFacts("s1", "i8", 0, 0, None), [np.zeros((1, 3), np.int8)])[0]
    assert "is int32, not int8" in refused(cut_of(INDEX), small)
    as_floats = encode_activation(cut_of(INDEX), PlanFacts("s1", "f32", 0, 0, None), [np.zeros((1, 3), np.float32)])[0]
    assert "has no quantisation scale" in refused(cut_of(INDEX), as_floats)
