"""Camera frames composed from Fashion-MNIST garments: numpy alone, the same bytes on any machine.

A frame is a 96×96×3 uint8 picture: a smooth coloured background, tinted fragments of other garments, the labelled
garment at a random place and size, fragments in front of it, uneven light and sensor noise. All randomness comes from
raw PCG64 output, whose stream numpy guarantees, and all arithmetic is elementwise float32, so nothing depends on
the numpy release, the CPU or a BLAS library.
"""

from __future__ import annotations

import gzip
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tflite_models.catalog import ModelsError

SIDE = 96
GARMENT_SIDE = 28
LABELS = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)
DATA_FOLDER = Path("/usr/share/datasets/fashion-mnist")
SPLITS = {"train": "train", "test": "t10k"}
CHUNK = 1000

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


class FrameError(ModelsError):
    """The garments that frames are composed from cannot be read."""


@dataclass(frozen=True, slots=True)
class Garments:
    """One split of Fashion-MNIST: ``images`` uint8 [n, 28, 28] and ``labels`` uint8 [n]."""

    split: str
    images: Bytes
    labels: Bytes


class _Dice:
    """Random draws taken from raw PCG64 words, in an order that is part of the frame format."""

    def __init__(self, split: str, index: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([list(SPLITS).index(split), index]))

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * ((int(self._bits.random_raw()) >> 11) / 2.0**53)

    def integer(self, low: int, high: int) -> int:
        """Draw from ``low`` to ``high``, both included."""
        return low + ((int(self._bits.random_raw()) >> 11) * (high - low + 1) >> 53)

    def octets(self, count: int) -> Bytes:
        words = self._bits.random_raw(-(-count // 8))
        return words.astype("<u8", copy=False).view(np.uint8)[:count]


def load_garments(split: str, folder: Path = DATA_FOLDER) -> Garments:
    """Read split ``train`` (60,000) or ``test`` (10,000); raises ``FrameError`` that says what to install."""
    arrays = []
    for kind, header in (("images-idx3", 16), ("labels-idx1", 8)):
        path = folder / f"{SPLITS[split]}-{kind}-ubyte.gz"
        try:
            with gzip.open(path) as file:
                arrays.append(np.frombuffer(file.read(), np.uint8, offset=header))
        except (OSError, EOFError) as error:
            raise FrameError(
                f"cannot read {path} ({error}): install Debian's package dataset-fashion-mnist, "
                "or name the folder that holds the four Fashion-MNIST .gz files"
            ) from error
    images, labels = arrays
    if images.size != labels.size * GARMENT_SIDE**2:
        raise FrameError(f"{folder}: the {split} images and labels do not belong together")
    return Garments(split, images.reshape(-1, GARMENT_SIDE, GARMENT_SIDE), labels)


def frame_labels(garments: Garments, count: int) -> Bytes:
    """Return the classes of frames ``[0, count)``."""
    return np.resize(garments.labels, count)


def compose_frame(garments: Garments, index: int) -> Bytes:
    """Return frame ``index`` as uint8 [96, 96, 3]; past the last garment the same ones come in other scenes."""
    dice = _Dice(garments.split, index)
    canvas = _background(dice)
    for _ in range(dice.integer(5, 9)):
        _paint(canvas, _fragment(garments, dice), dice)
    target = garments.images[index % len(garments.images)].astype(np.float32)
    side = round(GARMENT_SIDE * dice.uniform(1.6, 2.4))
    _paint(canvas, _resize(target, side, side), dice, inside=True)
    for _ in range(dice.integer(0, 2)):
        _paint(canvas, _fragment(garments, dice), dice)
    canvas *= np.float32(dice.uniform(0.75, 1.15))
    return _sensor(canvas, dice)


def _background(dice: _Dice) -> Floats:
    canvas = np.zeros((SIDE, SIDE, 3), np.float32)
    for cells, low, reach in ((4, 30.0, 130.0), (12, -25.0, 50.0)):
        grid = dice.octets(cells * cells * 3).reshape(cells, cells, 3).astype(np.float32)
        canvas += _resize(grid * np.float32(reach / 255) + np.float32(low), SIDE, SIDE)
    return canvas


def _fragment(garments: Garments, dice: _Dice) -> Floats:
    """Cut a piece out of any garment of the split and enlarge it."""
    image = garments.images[dice.integer(0, len(garments.images) - 1)]
    height, width = dice.integer(8, 18), dice.integer(8, 18)
    top, left = dice.integer(2, 26 - height), dice.integer(2, 26 - width)
    scale = dice.uniform(1.2, 2.2)
    piece = image[top : top + height, left : left + width].astype(np.float32)
    return _resize(piece, round(height * scale), round(width * scale))


def _paint(canvas: Floats, patch: Floats, dice: _Dice, inside: bool = False) -> None:
    """Blend a tinted grey patch into the canvas; dark pixels are clear, ``inside`` keeps all of it in view."""
    height, width = patch.shape
    over_rows, over_columns = (0, 0) if inside else (height // 2, width // 2)
    top = dice.integer(-over_rows, SIDE - height + over_rows)
    left = dice.integer(-over_columns, SIDE - width + over_columns)
    tint = np.array([dice.uniform(0.35, 1.0) for _ in range(3)], np.float32)
    rows = slice(max(top, 0), min(top + height, SIDE))
    columns = slice(max(left, 0), min(left + width, SIDE))
    patch = patch[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left, None]
    region = canvas[rows, columns]
    opacity = np.minimum(patch * np.float32(1 / 48), np.float32(1))
    region += opacity * (patch * tint - region)


def _resize(image: Floats, height: int, width: int) -> Floats:
    """Resize [h, w] or [h, w, c] bilinearly, sample centres aligned."""
    for axis, extent in enumerate((height, width)):
        have = image.shape[axis]
        place = (np.arange(extent, dtype=np.float32) + np.float32(0.5)) * np.float32(have / extent)
        place = np.clip(place - np.float32(0.5), 0, have - 1)
        low = place.astype(np.intp)
        weight = (place - low.astype(np.float32)).reshape((-1,) + (1,) * (image.ndim - 1 - axis))
        near, far = image.take(low, axis), image.take(np.minimum(low + 1, have - 1), axis)
        image = near + (far - near) * weight
    return image


def _sensor(canvas: Floats, dice: _Dice) -> Bytes:
    """Add noise of σ 3–8 (a sum of four octets is near enough a Gaussian) and round to uint8."""
    sigma = dice.uniform(3.0, 8.0)
    noise = dice.octets(4 * canvas.size).reshape(4, *canvas.shape).sum(axis=0, dtype=np.uint16)
    canvas += (noise.astype(np.float32) - np.float32(510)) * np.float32(sigma / 147.8)
    return np.rint(np.clip(canvas, 0, 255)).astype(np.uint8)


def _chunk(split: str, folder: Path, count: int, start: int) -> Bytes:
    garments = _garments_once(split, folder)
    return np.stack([compose_frame(garments, index) for index in range(start, min(start + CHUNK, count))])


_garments_once = lru_cache(maxsize=1)(load_garments)
"""Each worker process reads the garments once."""


def write_frames(
    split: str,
    count: int,
    path: Path,
    *,
    folder: Path = DATA_FOLDER,
    workers: int = 2,
    progress: Callable[[int, int], None],
) -> None:
    """Compose frames ``[0, count)`` into an ``.npy`` file [count, 96, 96, 3]; an existing whole file is kept."""
    if path.exists() and np.load(path, mmap_mode="r").shape[0] == count:
        return
    unfinished = path.with_suffix(".part")
    out: Any = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
        unfinished, "w+", np.uint8, (count, SIDE, SIDE, 3)
    )
    starts = range(0, count, CHUNK)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        chunks = pool.imap(partial(_chunk, split, folder, count), starts)
        for start, chunk in zip(starts, chunks, strict=True):
            out[start : start + len(chunk)] = chunk
            progress(start + len(chunk), count)
    out.flush()
    unfinished.rename(path)
