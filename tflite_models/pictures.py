"""Frames through every picture codec, once for all versions that look at the same frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wire.tensor import IMAGE_CODECS, decode, encode

Bytes = NDArray[np.uint8]
LOSSY = ("jpeg75", "webp75", "webp50")


@dataclass(frozen=True, slots=True)
class Trip:
    """What a codec makes of frames: encoded ``sizes`` int32 [n], and the ``frames`` as the edge sees them."""

    sizes: NDArray[np.int32]
    frames: Bytes


def picture_codecs(frames: Bytes) -> tuple[str, ...]:
    """Return the codecs that can carry frames [n, ...]: all where they are colour pictures, else the raw bytes."""
    return IMAGE_CODECS if frames.ndim == 4 and frames.shape[3] == 3 else ("raw8",)


def through_pictures(frames: Bytes, cache: Path | None = None) -> Mapping[str, Trip]:
    """Encode and decode every frame with every codec; ``cache`` is a folder that keeps the outcome."""
    return {codec: _trip(frames, codec, cache) for codec in picture_codecs(frames)}


def _trip(frames: Bytes, codec: str, cache: Path | None) -> Trip:
    kept = cache / f"{codec}-{len(frames)}.npz" if cache else None
    if kept and kept.exists():
        with np.load(kept) as stored:
            return Trip(stored["sizes"], stored["frames"] if codec in LOSSY else frames)
    sizes = np.empty(len(frames), np.int32)
    decoded = np.empty_like(frames) if codec in LOSSY else frames
    for place, frame in enumerate(frames):
        encoded = encode(frame[None], codec)
        sizes[place] = len(encoded.data)
        if codec in LOSSY:
            decoded[place] = decode(encoded, max_elements=frame.size)[0]
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, sizes=sizes, **({"frames": decoded} if codec in LOSSY else {}))
    return Trip(sizes, decoded)
