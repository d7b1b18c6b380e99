"""The process that holds TensorFlow: trains one version and exports it, telling its steps on standard output."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(name: str, frames: str, data: str, folder: str, epochs: str, threads: str) -> None:
    """Train (unless the weights lie there already) and write ``<name>.tflite`` and ``<name>-int8.tflite``."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import numpy as np

    from tflite_models.builder.export import export_float, export_int8
    from tflite_models.builder.frames import frame_labels, load_garments
    from tflite_models.builder.recipes import INT8, RECIPES
    from tflite_models.builder.training import train

    recipe, place = RECIPES[name], Path(folder)
    pictures = np.load(frames, mmap_mode="r")
    weights = place / f"{name}.weights.h5"
    if not weights.exists():
        labels = frame_labels(load_garments("train", Path(data)), len(pictures))
        train(recipe, pictures, labels, weights, epochs=float(epochs), threads=int(threads), progress=_tell)
    export_float(recipe, weights, place / f"{name}.tflite")
    export_int8(recipe, weights, place / f"{name}{INT8}.tflite", np.asarray(pictures[:1024]))


def _tell(done: int, steps: int, loss: float) -> None:
    print(f"step {done} {steps} {loss:.3f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
