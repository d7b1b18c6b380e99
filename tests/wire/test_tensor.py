"""Tensor codecs: what comes back is what went in, within the promise of each codec."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.tensor import IMAGE_CODECS, TENSOR_CODECS, Clip, EncodedTensor, TensorError, decode, encode

LEVELS = {"q8": 256, "q4": 16, "q2": 4}

shapes = st.lists(st.integers(1, 7), min_size=1, max_size=4).map(lambda extents: (1, *extents))


def activation(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(scale=scale, size=shape).astype(np.float32)


@given(shapes, st.integers(0, 2**32), st.sampled_from(sorted(LEVELS)), st.floats(1e-6, 1e6))
def test_levels_err_by_at_most_half_a_level_inside_the_clip(
    shape: tuple[int, ...], seed: int, codec: str, scale: float
) -> None:
    array = activation(shape, seed, scale)
    clip = Clip(-0.7 * scale, 1.3 * scale)
    back = decode(encode(array, codec, clip), max_elements=array.size)
    half = (clip.high - clip.low) / (LEVELS[codec] - 1) / 2
    assert back.shape == array.shape and back.dtype == np.float32
    assert np.abs(back - array.clip(clip.low, clip.high)).max() <= half * (1 + 1e-3)


@given(shapes, st.integers(0, 2**32), st.sampled_from(sorted(LEVELS)))
def test_without_a_clip_levels_span_the_tensors_own_range(shape: tuple[int, ...], seed: int, codec: str) -> None:
    array = activation(shape, seed)
    encoded = encode(array, codec)
    assert (encoded.low, encoded.high) == (array.min(), array.max())
    back = decode(encoded, max_elements=array.size)
    np.testing.assert_allclose((back.min(), back.max()), (array.min(), array.max()), rtol=1e-6)


@given(shapes, st.integers(0, 2**32))
def test_floats_come_back_exactly_and_halves_rounded(shape: tuple[int, ...], seed: int) -> None:
    array = activation(shape, seed)
    np.testing.assert_array_equal(decode(encode(array, "f32"), max_elements=array.size), array)
    halves = decode(encode(array, "f16"), max_elements=array.size)
    np.testing.assert_array_equal(halves, array.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
def test_integers_come_back_exactly(dtype: str) -> None:
    octets = np.random.default_rng(5).integers(0, 256, 60 * np.dtype(dtype).itemsize, np.uint8)
    array = octets.view(dtype).reshape(1, 5, 3, 4)
    back = decode(encode(array, "i8"), max_elements=array.size)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_two_bits_cost_a_quarter_byte_per_element_at_most() -> None:
    array = activation((1, 24, 24, 32), 1)
    assert len(encode(array, "q2").data) <= array.size / 4 * 1.01
    mostly_off = np.maximum(array - 1, 0)
    assert len(encode(mostly_off, "q2", Clip(0, 1)).data) < array.size / 8


def test_packed_bits_are_laid_out_channel_first_highest_bits_first() -> None:
    # one row of two pixels with two channels: channel 0 holds levels 3, 2 and channel 1 levels 1, 0
    array = np.array([[[[3.0, 1.0], [2.0, 0.0]]]], np.float32)
    squeezed = encode(array, "q2", Clip(0.0, 3.0)).data
    assert zlib.decompress(squeezed, wbits=-15) == bytes([0b11_10_01_00])


@pytest.mark.parametrize("value", [0.0, -3.5, 1e-40, 3e37])
@pytest.mark.parametrize("codec", sorted(LEVELS))
def test_a_constant_tensor_comes_back_as_it_was(value: float, codec: str) -> None:
    array = np.full((1, 3, 3, 2), value, np.float32)
    np.testing.assert_array_equal(decode(encode(array, codec), max_elements=18), array)


def test_half_floats_saturate_instead_of_becoming_infinite() -> None:
    back = decode(encode(np.array([[1e6, -1e6]], np.float32), "f16"), max_elements=2)
    np.testing.assert_array_equal(back, [[65504.0, -65504.0]])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
@settings(max_examples=20)
def test_frames_come_back_in_their_size(height: int, width: int, seed: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    for codec in IMAGE_CODECS:
        back = decode(encode(frame, codec), max_elements=frame.size)
        assert back.shape == frame.shape and back.dtype == np.uint8
        if codec in ("raw8", "png"):
            np.testing.assert_array_equal(back, frame)


def test_a_smooth_frame_survives_lossy_codecs_nearly_unchanged() -> None:
    ramp = np.linspace(40, 200, 96, dtype=np.float32)
    frame = np.broadcast_to(ramp[:, None, None], (96, 96, 3)).astype(np.uint8)[None]
    for codec in ("jpeg75", "webp75", "webp50"):
        encoded = encode(frame, codec)
        back = decode(encoded, max_elements=frame.size)
        assert len(encoded.data) < frame.size / 10
        assert np.abs(back.astype(int) - frame).mean() < 4


@pytest.mark.parametrize(
    ("array", "codec", "complaint"),
    [
        (np.zeros((1, 2), np.int32), "q4", "takes floats"),
        (np.zeros((1, 2), np.float32), "i8", "takes integers"),
        (np.zeros((1, 4, 4, 3), np.float32), "webp75", "takes uint8"),
        (np.zeros((1, 4, 4, 1), np.uint8), "jpeg75", "one frame of shape"),
        (np.zeros((2, 4, 4, 3), np.uint8), "png", "one frame of shape"),
        (np.array([[np.nan]], np.float32), "f32", "not finite"),
        (np.array([[np.inf]], np.float32), "q2", "not finite"),
        (np.zeros((1, 0), np.float32), "f32", "not a shape"),
        (np.float32(1), "f32", "not a shape"),
        (np.zeros((1, 2), np.float32), "q3", "unknown codec"),
    ],
)
def test_what_a_codec_cannot_take_is_refused(array: np.ndarray[Any, Any], codec: str, complaint: str) -> None:
    with pytest.raises(TensorError, match=complaint):
        encode(np.asarray(array), codec)


@pytest.mark.parametrize("clip", [Clip(1, 0), Clip(float("nan"), 1), Clip(0, float("inf")), Clip(-1e300, 1e300)])
def test_impossible_clips_are_refused_both_ways(clip: Clip) -> None:
    with pytest.raises(TensorError):
        encode(np.zeros((1, 2), np.float32), "q4", clip)
    with pytest.raises(TensorError):
        decode(EncodedTensor("q4", (1, 2), "float32", clip.low, clip.high, b"\x03\x00"), max_elements=2)


def test_every_codec_is_listed_once() -> None:
    assert len({*TENSOR_CODECS, *IMAGE_CODECS}) == 11
