"""Between the tensors of a cut and their encoded form: what device and worker must do alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tflite_models.catalog import Cut, PlanFacts, TensorSpec
from wire.plan import INPUT
from wire.tensor import IMAGE_CODECS, Clip, EncodedTensor, TensorError, decode, encode

Array = NDArray[Any]


def frame_to_input(spec: TensorSpec, frame: NDArray[np.uint8]) -> Array:
    """Return uint8 pixels [n, height, width, 3] as the model's input takes them: uint8 as they are, int8 less 128.

    Raises ``TensorError`` for any other type: versions take pixels, their range is built in when they are added.
    """
    if spec.dtype == "uint8":
        return frame
    if spec.dtype == "int8":
        return (frame ^ np.uint8(0x80)).view(np.int8)
    raise TensorError(f"'{spec.name}' takes {spec.dtype}, not pixels: add the model with its pixel range")


def encode_activation(cut: Cut, facts: PlanFacts, arrays: Sequence[Array]) -> tuple[EncodedTensor, ...]:
    """Encode one frame's tensors at the cut (at cut ``input`` the uint8 frame itself) with the plan's codec.

    Quantised integer tensors are turned into the floats they stand for where the codec has levels of its own;
    integers that stand for themselves always go unchanged. Raises ``TensorError``.
    """
    if cut.name == INPUT:
        return tuple(encode(array, facts.codec) for array in arrays)
    clips = facts.clips or ((None,) * len(arrays))
    encoded = []
    for spec, array, clip in zip(cut.tensors, arrays, clips, strict=True):
        bounds = Clip(*clip) if clip else None
        if array.dtype.kind == "f":
            encoded.append(encode(array, facts.codec, bounds))
        elif facts.codec == "i8" or not spec.scale:
            encoded.append(encode(array, "i8"))
        else:
            encoded.append(encode(to_floats(spec, array), facts.codec, bounds))
    return tuple(encoded)


def decode_activation(cut: Cut, encoded: Sequence[EncodedTensor]) -> tuple[Array, ...]:
    """Return what the tail takes, batch of one; raises ``TensorError`` for anything that does not fit the cut."""
    if len(encoded) != len(cut.tensors):
        raise TensorError(f"cut '{cut.name}' has {len(cut.tensors)} tensors, not {len(encoded)}")
    return tuple(_decode_one(cut, spec, one) for spec, one in zip(cut.tensors, encoded, strict=True))


def _decode_one(cut: Cut, spec: TensorSpec, encoded: EncodedTensor) -> Array:
    if encoded.shape != spec.shape:
        raise TensorError(f"cut '{cut.name}': '{spec.name}' has shape {spec.shape}, not {encoded.shape}")
    if (encoded.codec in IMAGE_CODECS) != (cut.name == INPUT):
        raise TensorError(f"codec {encoded.codec} does not belong to cut '{cut.name}'")
    array = decode(encoded, max_elements=spec.elements)
    if cut.name == INPUT:
        return frame_to_input(spec, array)
    if array.dtype.kind == "f" and np.dtype(spec.dtype).kind in "iu":
        array = to_integers(spec, array)
    if array.dtype.name != spec.dtype:
        raise TensorError(f"cut '{cut.name}': '{spec.name}' is {spec.dtype}, not {array.dtype.name}")
    return array


def to_floats(spec: TensorSpec, array: Array) -> NDArray[np.float32]:
    """Return the floats that a quantised tensor stands for."""
    values = array.astype(np.float32)
    values -= np.float32(spec.zero_point)
    values *= np.float32(spec.scale)
    return values


def to_integers(spec: TensorSpec, array: NDArray[np.float32]) -> Array:
    """Quantise floats to the scale, zero point and type of an integer tensor, clipping what lies outside."""
    if not spec.scale:
        raise TensorError(f"'{spec.name}' has no quantisation scale, so floats cannot stand for it")
    limits = np.iinfo(spec.dtype)
    steps = np.rint(array / np.float32(spec.scale)) + np.float32(spec.zero_point)
    integers: Array = np.clip(steps, limits.min, limits.max).astype(spec.dtype)
    return integers
