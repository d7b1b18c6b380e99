"""Uniform levels and their packing into bytes: the arithmetic of q8, q4 and q2."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire.tensor.encoded import Clip

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

_LEAST_STEP = 1e-30
"""Levels nearer to each other than this are one: the inverse of the step would not fit into float32."""


def to_levels(values: NDArray[Any], clip: Clip, bits: int) -> Bytes:
    """Return the nearest of ``2**bits`` levels spread over the clip, for every value."""
    step = (clip.high - clip.low) / (2**bits - 1)
    if step < _LEAST_STEP:
        return np.zeros(values.shape, np.uint8)
    scaled: Floats = np.clip(values, clip.low, clip.high).astype(np.float32, copy=False)
    scaled -= np.float32(clip.low)
    scaled *= np.float32(1 / step)
    scaled += np.float32(0.5)
    return scaled.astype(np.uint8)


def from_levels(levels: Bytes, clip: Clip, bits: int) -> Floats:
    """Return the values of levels."""
    values = np.linspace(clip.low, clip.high, 2**bits, dtype=np.float32)
    return values[levels]


def pack(levels: Bytes, bits: int) -> bytes:
    """Pack levels of ``bits`` (2, 4, 8) into bytes, the first one highest; the last byte is filled with zeros."""
    flat = levels.reshape(-1)
    per_byte = 8 // bits
    if flat.size % per_byte:
        flat = np.concatenate([flat, np.zeros(-flat.size % per_byte, np.uint8)])
    packed = flat[::per_byte]
    for place in range(1, per_byte):
        packed = packed << np.uint8(bits) | flat[place::per_byte]
    return packed.tobytes()


def packed_size(count: int, bits: int) -> int:
    """Return how many bytes ``count`` levels take."""
    return -(-count * bits // 8)


def unpack(data: bytes, count: int, bits: int) -> Bytes:
    """Return the first ``count`` levels that ``pack`` wrote."""
    packed = np.frombuffer(data, np.uint8)
    per_byte = 8 // bits
    flat = np.empty((packed.size, per_byte), np.uint8)
    for place in range(per_byte):
        flat[:, place] = packed >> np.uint8(8 - bits * (place + 1)) & np.uint8(2**bits - 1)
    return flat.reshape(-1)[:count]
