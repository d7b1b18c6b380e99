"""Chooses, per cut and codec of few levels, the range its levels are spread over: on training frames alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tflite_models.activation import to_floats, to_integers
from tflite_models.catalog import Cut, TensorSpec
from wire.tensor import Clip
from wire.tensor.levels import from_levels, to_levels

Array = NDArray[Any]
Tail = Callable[[Sequence[Array]], Array]
"""Runs the tail on a batch and returns its first output, one row per frame."""

BITS = {"q8": 8, "q4": 4, "q2": 2}
PERCENTILES = (100.0, 99.99, 99.9, 99.5, 99.0, 98.0, 96.0)


def through_codec(
    specs: Sequence[TensorSpec], arrays: Sequence[Array], codec: str, clips: Sequence[Clip]
) -> list[Array]:
    """Return what a batch of activations becomes on its way through encoder and decoder, entropy coding left out."""
    return [
        _one_through(spec, array, codec, clips[place] if clips else None)
        for place, (spec, array) in enumerate(zip(specs, arrays, strict=True))
    ]


def _one_through(spec: TensorSpec, array: Array, codec: str, clip: Clip | None) -> Array:
    if codec == "f16" and array.dtype.kind == "f":
        limit = float(np.finfo(np.float16).max)
        return array.clip(-limit, limit).astype(np.float16).astype(np.float32)
    if codec not in BITS or clip is None or not (spec.scale or array.dtype.kind == "f"):
        return array
    values = array if array.dtype.kind == "f" else to_floats(spec, array)
    values = from_levels(to_levels(values, clip, BITS[codec]), clip, BITS[codec])
    return values if array.dtype.kind == "f" else to_integers(spec, values)


def choose_clips(cut: Cut, arrays: Sequence[Array], codec: str, tail: Tail, wanted: Array) -> tuple[Clip, ...]:
    """Return one clip per tensor: of all candidate percentiles, the one that moves the tail's output least.

    ``arrays`` are the activations of the calibration frames, ``wanted`` what the tail answers to them unchanged.
    """
    if codec not in BITS:
        return ()
    candidates = [
        tuple(_clip(spec, array, percentile) for spec, array in zip(cut.tensors, arrays, strict=True))
        for percentile in PERCENTILES
    ]
    moved = [
        float(np.abs(tail(through_codec(cut.tensors, arrays, codec, clips)) - wanted).mean()) for clips in candidates
    ]
    return candidates[int(np.argmin(moved))]


def _clip(spec: TensorSpec, array: Array, percentile: float) -> Clip:
    """Return the range that holds ``percentile`` of the values; where none is negative it starts at 0's side whole."""
    values = array if array.dtype.kind == "f" else to_floats(spec, array)
    low = float(values.min())
    if low < 0:
        low = float(np.percentile(values, 100 - percentile))
    return Clip(low, max(low, float(np.percentile(values, percentile))))
