"""Small stores of real tails, made without TensorFlow."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_models.catalog import MANIFEST, MODEL, Cut, Provenance, TensorSpec, Version, version_to_json
from tflite_models.runtime import Submodel
from tflite_models.synthetic import ModelWriter, conv_chain

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


def fixed_batch_tail() -> bytes:
    """Return a tail that reshapes to a fixed [1, 48]: it runs one frame at a time."""
    writer = ModelWriter()
    first = writer.tensor(EXTENT)
    target = writer.tensor((2,), "int32", data=np.array([1, 48]))
    last = writer.tensor((1, 48))
    writer.operator("RESHAPE", [first, target], [last], schema.ReshapeOptionsT(newShape=[1, 48]))
    return writer.file([first], [last])


def row_mixing_tail() -> bytes:
    """Return a tail that reshapes to [-1, 24]: two rows per frame, so a batch's rows are not its frames."""
    writer = ModelWriter()
    first = writer.tensor(EXTENT, open_batch=True)
    target = writer.tensor((2,), "int32", data=np.array([-1, 24]))
    last = writer.tensor((2, 24))
    writer.operator("RESHAPE", [first, target], [last], schema.ReshapeOptionsT(newShape=[-1, 24]))
    return writer.file([first], [last])


def lookup_tail() -> bytes:
    """Return a tail that looks rows up in a table of 8: an index beyond it makes the interpreter raise."""
    writer = ModelWriter()
    table = writer.tensor((8, 3), data=np.arange(24).reshape(8, 3))
    first = writer.tensor((1, 1), "int32", open_batch=True)
    last = writer.tensor((1, 1, 3), open_batch=True)
    writer.operator("GATHER", [table, first], [last], schema.GatherOptionsT(axis=0))
    return writer.file([first], [last])


def classifier_tail() -> bytes:
    """Return a tail whose 48 scores are its inputs."""
    writer = ModelWriter()
    first = writer.tensor((1, 48), open_batch=True)
    last = writer.tensor((1, 48), open_batch=True)
    writer.operator("RELU", [first], [last])
    return writer.file([first], [last])
