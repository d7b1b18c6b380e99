"""A contact sheet of frames, for the documentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tflite_models.builder.frames import SIDE, Garments, compose_frame

ROWS, COLUMNS = 3, 8


def write_sheet(garments: Garments, path: Path) -> None:
    """Write the first frames of a split as one picture."""
    frames = np.stack([compose_frame(garments, index) for index in range(ROWS * COLUMNS)])
    tiles = frames.reshape(ROWS, COLUMNS, SIDE, SIDE, 3).swapaxes(1, 2)
    Image.fromarray(np.ascontiguousarray(tiles).reshape(ROWS * SIDE, COLUMNS * SIDE, 3)).save(path, optimize=True)
