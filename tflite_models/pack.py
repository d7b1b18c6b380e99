"""A pack: labelled frames in one file, what a camera plays where there is none."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tflite_models.catalog import ModelsError, shipped_zoo

Bytes = NDArray[np.uint8]


class PackError(ModelsError):
    """A file is not a pack of frames."""


def shipped_pack() -> Path:
    """Return the pack that ships with splitfleet: test frames, as many of each class."""
    return shipped_zoo() / "frames.npz"


def load_pack(path: Path) -> tuple[Bytes, Bytes, tuple[str, ...]]:
    """Return frames uint8 [n, height, width, 3], their labels uint8 [n] and the class names.

    Raises ``PackError``. Pillow is imported here, so a device without a pack does without it.
    """
    from PIL import Image

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            images, ends = stored["images"], stored["ends"]
            labels, names = stored["labels"], tuple(str(name) for name in stored["names"])
        frames = np.empty((0, 0, 0, 3), np.uint8)
        for place, (start, end) in enumerate(zip((0, *ends[:-1]), ends, strict=True)):
            with Image.open(io.BytesIO(images[start:end].tobytes()), formats=["PNG"]) as image:
                if not place:  # written in place: a device has no memory for all of them twice
                    frames = np.empty((len(ends), image.height, image.width, 3), np.uint8)
                frames[place] = image.convert("RGB")
        if not len(frames) == len(labels) > 0 or int(labels.max()) >= len(names):
            raise PackError(f"{path}: {len(frames)} frames, {len(labels)} labels of {len(names)} classes")
        return frames, labels.astype(np.uint8), names
    except (OSError, ValueError, KeyError, TypeError, SyntaxError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise PackError(f"{path} is not a pack of frames: {error}") from error


def write_pack(path: Path | io.BytesIO, frames: Bytes, labels: Bytes, names: Sequence[str]) -> None:
    """Write frames uint8 [n, height, width, 3] without loss; the same ones always give the same bytes of pictures."""
    from PIL import Image

    files = []
    for frame in frames:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "PNG", optimize=True)
        files.append(file.getvalue())
    np.savez(
        path,
        images=np.frombuffer(b"".join(files), np.uint8),
        ends=np.cumsum([len(data) for data in files]),
        labels=labels.astype(np.uint8),
        names=np.array(names),
    )


def balanced(labels: Bytes, per_class: int) -> NDArray[np.intp]:
    """Return, in order, the places of the first ``per_class`` frames of every class."""
    places = [np.flatnonzero(labels == label)[:per_class] for label in np.unique(labels)]
    return np.sort(np.concatenate(places))
