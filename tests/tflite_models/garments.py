"""A toy data set in Fashion-MNIST's format: white discs of twenty sizes."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from tflite_models.builder.frames import SPLITS, Garments


def toy_garments(split: str = "train") -> Garments:
    """Return twenty discs, labelled by size."""
    rows, columns = np.mgrid[:28, :28] - 13.5
    radii = np.arange(3, 13, 0.5)
    images = np.stack([np.where(rows**2 + columns**2 < radius**2, 255, 0) for radius in radii])
    return Garments(split, images.astype(np.uint8), np.arange(len(radii)).astype(np.uint8) % np.uint8(10))


def write_data_set(folder: Path, garments: Garments) -> None:
    """Write the two files of a split as Fashion-MNIST has them."""
    for kind, header, data in (("images-idx3", 16, garments.images), ("labels-idx1", 8, garments.labels)):
        with gzip.open(folder / f"{SPLITS[garments.split]}-{kind}-ubyte.gz", "wb") as file:
            file.write(bytes(header) + data.tobytes())
