"""Small stores of real tails, made without TensorFlow."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tflite_models.catalog import MANIFEST, MODEL, Cut, Provenance, TensorSpec, Version, version_to_json
from tflite_models.runtime import Submodel
from tflite_models.synthetic import conv_chain

SIDE, CHANNELS = 4, 3
EXTENT = (1, SIDE, SIDE, CHANNELS)


def write_version(root: Path, name: str, tail: bytes, *, labels: tuple[str, ...] = (), family: str = "toy") -> Version:
    """Write a model folder whose one inner cut ``mid`` has the file given as its tail."""
    folder = root / name
    folder.mkdir(parents=True)
    submodel = Submodel(tail)
    (folder / MODEL).write_bytes(tail)
    (folder / "mid.tail.tflite").write_bytes(tail)
    inputs, outputs = submodel.inputs, submodel.outputs
    cuts = (
        Cut("input", 0, (TensorSpec("frame", EXTENT, "uint8"),), 0, 100),
        Cut("mid", 1, inputs, 50, 50),
        Cut("output", 2, outputs, 100, 0),
    )
    version = Version(
        name, family, hashlib.sha256(tail).hexdigest(), len(tail), "float32", inputs, outputs, 100, None, labels,
        "2.14", cuts, (), Provenance("test", "", "", 0),
    )  # fmt: skip
    (folder / MANIFEST).write_text(version_to_json(version))
    return version


def write_store(root: Path) -> Path:
    """Write a store with one version ``toy``, whose tail is a small chain of convolutions, raw outputs."""
    write_version(root, "toy", conv_chain(2, SIDE, SIDE, CHANNELS))
    return root
