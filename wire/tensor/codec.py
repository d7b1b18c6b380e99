"""Encode one tensor with a named codec, and decode what a stranger sent without trusting a word of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire.tensor.encoded import Clip, EncodedTensor, TensorError, elements_of
from wire.tensor.entropy import squeeze, unsqueeze
from wire.tensor.images import decode_image, encode_image
from wire.tensor.levels import from_levels, pack, packed_size, to_levels, unpack

TENSOR_CODECS = ("f32", "f16", "q8", "q4", "q2", "i8")
IMAGE_CODECS = ("raw8", "jpeg75", "webp75", "webp50", "png")

_BITS = {"q8": 8, "q4": 4, "q2": 2}
_FLOATS: dict[str, np.dtype[Any]] = {"f32": np.dtype("<f4"), "f16": np.dtype("<f2")}
_INTEGERS = ("int8", "uint8", "int16", "int32", "int64")

Array = NDArray[Any]


def encode(array: Array, codec: str, clip: Clip | None = None) -> EncodedTensor:
    """Encode one tensor, batch dimension included.

    f32, f16: floats, kept or rounded. q8, q4, q2: floats, clipped (``None``: to their own range) and
    rounded to 256, 16 or 4 levels. i8: integers, kept. raw8, jpeg75, webp75, webp50, png: one uint8 frame
    [1, height, width, 3]; raw8 any uint8 tensor. Raises ``TensorError`` for a tensor the codec cannot take.
    """
    elements_of(array.shape, array.size)
    if codec in IMAGE_CODECS:
        return _encode_frame(array, codec)
    low = high = 0.0
    if codec == "i8":
        if array.dtype.name not in _INTEGERS:
            raise TensorError(f"codec i8 takes integers, not {array.dtype.name}")
        parts = _planes(_channels_first(array).astype(array.dtype.newbyteorder("<")))
    elif codec in _FLOATS or codec in _BITS:
        if array.dtype.kind != "f":
            raise TensorError(f"codec {codec} takes floats, not {array.dtype.name}")
        smallest, largest = float(array.min()), float(array.max())
        if not (math.isfinite(smallest) and math.isfinite(largest)):
            raise TensorError("the tensor has values that are not finite")
        if codec in _BITS:
            clip = _checked(clip or Clip(smallest, largest))
            low, high = clip.low, clip.high
            parts = pack(to_levels(_channels_first(array), clip, _BITS[codec]), _BITS[codec])
        else:
            limit = float(np.finfo(_FLOATS[codec]).max)
            parts = _planes(_channels_first(array).clip(-limit, limit).astype(_FLOATS[codec]))
    else:
        raise TensorError(f"unknown codec '{codec}': there are {', '.join(TENSOR_CODECS + IMAGE_CODECS)}")
    return EncodedTensor(codec, array.shape, array.dtype.name, low, high, squeeze(parts))


def decode(encoded: EncodedTensor, *, max_elements: int) -> Array:
    """Return float32 for f* and q*, the integer type for i8, uint8 for frames, in the declared shape.

    Nothing is allocated before the declared shape has at most ``max_elements`` elements. Raises
    ``TensorError``, and nothing else, for whatever is not a tensor that ``encode`` could have made.
    """
    count = elements_of(encoded.shape, max_elements)
    codec = encoded.codec
    if codec in IMAGE_CODECS:
        return _decode_frame(encoded, count)
    if codec in _BITS:
        clip = _checked(Clip(encoded.low, encoded.high))
        bits = _BITS[codec]
        levels = unpack(unsqueeze(encoded.data, packed_size(count, bits)), count, bits)
        return from_levels(_channels_last(levels, encoded.shape), clip, bits)
    if codec in _FLOATS:
        kind = _FLOATS[codec]
    elif codec == "i8" and encoded.dtype in _INTEGERS:
        kind = np.dtype[Any](encoded.dtype).newbyteorder("<")
    else:
        raise TensorError(f"no codec '{codec}' for elements of type '{encoded.dtype}'")
    planes = np.frombuffer(unsqueeze(encoded.data, count * kind.itemsize), np.uint8)
    values = np.ascontiguousarray(planes.reshape(kind.itemsize, count).T).view(kind)
    if kind.kind == "f" and not np.isfinite(values).all():
        raise TensorError("the tensor has values that are not finite")
    out = _channels_last(values, encoded.shape)
    return np.ascontiguousarray(out, np.float32 if kind.kind == "f" else kind.newbyteorder("="))


def _encode_frame(array: Array, codec: str) -> EncodedTensor:
    if array.dtype != np.uint8:
        raise TensorError(f"codec {codec} takes uint8 frames, not {array.dtype.name}")
    if codec == "raw8":
        data = array.tobytes()
    else:
        _check_picture(array.shape, codec)
        data = encode_image(array[0], codec)
    return EncodedTensor(codec, array.shape, "uint8", 0.0, 0.0, data)


def _decode_frame(encoded: EncodedTensor, count: int) -> Array:
    shape = encoded.shape
    if encoded.codec == "raw8":
        if len(encoded.data) != count:
            raise TensorError(f"a raw frame of shape {shape} has {count} bytes, not {len(encoded.data)}")
        return np.frombuffer(encoded.data, np.uint8).reshape(shape)
    _check_picture(shape, encoded.codec)
    return decode_image(encoded.data, encoded.codec, shape[1], shape[2])[None]


def _check_picture(shape: tuple[int, ...], codec: str) -> None:
    if len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
        raise TensorError(f"codec {codec} takes one frame of shape (1, height, width, 3), not {shape}")


def _checked(clip: Clip) -> Clip:
    if not (math.isfinite(clip.low) and math.isfinite(clip.high) and clip.low <= clip.high):
        raise TensorError(f"a clip range from {clip.low} to {clip.high} is none")
    if abs(clip.low) > _WIDEST or abs(clip.high) > _WIDEST:
        raise TensorError(f"a clip range from {clip.low} to {clip.high} is beyond float32")
    return clip


_WIDEST = float(np.finfo(np.float32).max) / 4


def _planes(values: Array) -> bytes:
    """Return first all lowest bytes of the elements, then all second ones, …: alike bytes compress together."""
    width = values.dtype.itemsize
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(-1, width).T.tobytes()


def _channels_first(array: Array) -> Array:
    """Move the last axis behind the batch, since neighbours within one channel are alike."""
    return np.moveaxis(array, -1, 1) if array.ndim > 2 else array


def _channels_last(flat: Array, shape: tuple[int, ...]) -> Array:
    """Undo ``_channels_first`` on flat values of a tensor of the shape given."""
    if len(shape) <= 2:
        return flat.reshape(shape)
    return np.ascontiguousarray(np.moveaxis(flat.reshape(shape[0], shape[-1], *shape[1:-1]), 1, -1))
