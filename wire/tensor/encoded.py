"""The encoded tensor as it crosses the wire, and what can be wrong with one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wire.errors import WireError

MAX_RANK = 8


class TensorError(WireError):
    """A tensor cannot be encoded as asked, or bytes are not the tensor they claim to be."""


@dataclass(frozen=True, slots=True)
class Clip:
    """The range that a codec of few bits spreads its levels over; what lies outside becomes its edge."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class EncodedTensor:
    """One tensor of one frame; ``shape`` includes the batch dimension."""

    codec: str
    shape: tuple[int, ...]
    dtype: str
    """Element type before encoding: what ``decode`` gives back, save that f16 and q* give float32."""
    low: float
    """Value of the lowest level; 0 where the codec has no levels."""
    high: float
    """Value of the highest level."""
    data: bytes


def elements_of(shape: tuple[int, ...], max_elements: int) -> int:
    """Return the number of elements; raises ``TensorError`` unless every extent is positive and all fit."""
    if not 1 <= len(shape) <= MAX_RANK or not all(type(extent) is int and extent > 0 for extent in shape):
        raise TensorError(f"{shape} is not a shape of 1 to {MAX_RANK} positive extents")
    count = math.prod(shape)
    if count > max_elements:
        raise TensorError(f"shape {shape} has {count} elements, at most {max_elements} are expected")
    return count
