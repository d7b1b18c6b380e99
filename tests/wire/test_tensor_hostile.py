"""Tensor codecs against damaged and malicious bytes: a refusal, never another exception, never a big allocation."""

from __future__ import annotations

import dataclasses
import io
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wire.tensor import IMAGE_CODECS, TENSOR_CODECS, EncodedTensor, TensorError, decode, encode

SHAPE = (1, 8, 9, 3)
ALL = TENSOR_CODECS + IMAGE_CODECS


def sample(codec: str) -> EncodedTensor:
    rng = np.random.default_rng(3)
    if codec in IMAGE_CODECS:
        return encode(rng.integers(0, 256, SHAPE, dtype=np.uint8), codec)
    if codec == "i8":
        return encode(rng.integers(-128, 128, SHAPE, dtype=np.int8), codec)
    return encode(rng.normal(size=SHAPE).astype(np.float32), codec)


SAMPLES = {codec: sample(codec) for codec in ALL}


def survives(encoded: EncodedTensor) -> bool:
    """Decode; True where it gave an array, which must then have the declared shape."""
    try:
        array = decode(encoded, max_elements=1000)
    except TensorError:
        return False
    assert array.shape == encoded.shape
    return True


@pytest.mark.parametrize("codec", ALL)
def test_every_truncation_is_refused(codec: str) -> None:
    data = SAMPLES[codec].data
    for length in range(len(data)):
        assert not survives(dataclasses.replace(SAMPLES[codec], data=data[:length])), length


@pytest.mark.parametrize("codec", ALL)
def test_bytes_behind_the_tensor_are_refused(codec: str) -> None:
    assert not survives(dataclasses.replace(SAMPLES[codec], data=SAMPLES[codec].data + b"\0"))


@pytest.mark.parametrize("codec", ALL)
@settings(max_examples=150)
@given(data=st.data())
def test_flipped_bits_are_refused_or_give_an_array_of_the_declared_shape(codec: str, data: st.DataObject) -> None:
    noisy = bytearray(SAMPLES[codec].data)
    for _ in range(data.draw(st.integers(1, 4))):
        bit = data.draw(st.integers(0, 8 * len(noisy) - 1))
        noisy[bit // 8] ^= 1 << bit % 8
    survives(dataclasses.replace(SAMPLES[codec], data=bytes(noisy)))


@settings(max_examples=200)
@given(
    st.sampled_from([*ALL, "none", "zip", ""]),
    st.lists(st.integers(-2, 2**40), max_size=10).map(tuple),
    st.sampled_from(["float32", "int8", "uint8", "object", "U9999999", "", "O", "int64"]),
    st.floats(),
    st.floats(),
    st.binary(max_size=80),
)
def test_arbitrary_fields_never_raise_anything_else(
    codec: str, shape: tuple[int, ...], dtype: str, low: float, high: float, data: bytes
) -> None:
    survives(EncodedTensor(codec, shape, dtype, low, high, data))


@pytest.mark.parametrize("shape", [(), (1, 0), (1, -3), (True, 2), (1.0, 2), (2**40, 2**40), (1,) * 9])
def test_impossible_shapes_are_refused(shape: tuple[int, ...]) -> None:
    for codec in ALL:
        assert not survives(dataclasses.replace(SAMPLES[codec], shape=shape))


def peak_of(encoded: EncodedTensor) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(TensorError):
            decode(encoded, max_elements=1000)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("codec", TENSOR_CODECS)
def test_a_deflate_bomb_is_refused_before_it_unfolds(codec: str) -> None:
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = coder.compress(bytes(50_000_000)) + coder.flush()
    assert len(bomb) < 100_000
    assert peak_of(dataclasses.replace(SAMPLES[codec], data=bomb)) < 1_000_000


@pytest.mark.parametrize("codec", ["png", "jpeg75", "webp75"])
def test_a_picture_larger_than_declared_is_refused_by_its_header(codec: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (3000, 3000)).save(file, {"png": "PNG", "jpeg75": "JPEG", "webp75": "WEBP"}[codec])
    assert peak_of(dataclasses.replace(SAMPLES[codec], data=file.getvalue())) < 2_000_000


def test_a_declared_size_above_the_limit_is_refused_before_anything_is_allocated() -> None:
    for codec in ALL:
        huge = dataclasses.replace(SAMPLES[codec], shape=(1, 100_000, 100_000, 3))
        assert peak_of(huge) < 100_000


def test_a_file_of_another_format_is_refused() -> None:
    swapped = {"jpeg75": "png", "png": "webp50", "webp50": "jpeg75"}
    for codec, other in swapped.items():
        assert not survives(dataclasses.replace(SAMPLES[codec], data=SAMPLES[other].data))


def test_a_picture_of_another_mode_is_refused() -> None:
    file = io.BytesIO()
    Image.new("L", (9, 8)).save(file, "PNG")
    assert not survives(dataclasses.replace(SAMPLES["png"], data=file.getvalue()))


def test_floats_that_are_not_finite_are_refused_on_arrival() -> None:
    coder = zlib.compressobj(wbits=-15)
    nan = np.full(4, np.nan, "<f4").view(np.uint8).reshape(4, 4).T.tobytes()
    assert not survives(EncodedTensor("f32", (1, 4), "float32", 0, 0, coder.compress(nan) + coder.flush()))
