"""A small store of real, split models and a folder of real pictures, made without TensorFlow in milliseconds."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from PIL import Image

from tflite_models.catalog import (
    MANIFEST,
    MODEL,
    Cut,
    PlanFacts,
    Provenance,
    Version,
    load_folder,
    version_to_json,
)
from tflite_models.runtime import Submodel
from tflite_models.splitter import Graph
from tflite_models.store import prepare
from tflite_models.synthetic import ModelWriter
from wire.plan import Plan

SIDE = 24
LABELS = ("ant", "bee", "cat", "dog", "elk")
CUT = "conv"
SPLIT = Plan("tiny", CUT, "f32")
LOCAL = Plan("tiny", "output", "none")
SHIP = Plan("tiny", "input", "raw8")
BIG = Plan("big", CUT, "q8")


def classifier(channels: int, seed: int, *, side: int = SIDE, scores: float = 1.0) -> bytes:
    """Return a classifier of pictures: a cast, a strided convolution, another one, and a dense layer of five scores."""
    rng = np.random.default_rng(seed)
    writer = ModelWriter()
    relu = schema.ActivationFunctionType.RELU
    first = writer.tensor((1, side, side, 3), "uint8")
    last = writer.tensor((1, side, side, 3))
    options = schema.CastOptionsT(inDataType=schema.TensorType.UINT8, outDataType=schema.TensorType.FLOAT32)
    writer.operator("CAST", [first], [last], options)
    extent, depth = side, 3
    for _ in range(2):
        extent = -(-extent // 2)
        weights = writer.tensor((channels, 3, 3, depth), data=rng.normal(0, 0.05, (channels, 3, 3, depth)))
        bias = writer.tensor((channels,), data=np.zeros(channels))
        output = writer.tensor((1, extent, extent, channels))
        options = schema.Conv2DOptionsT(
            padding=schema.Padding.SAME, strideW=2, strideH=2, dilationWFactor=1, dilationHFactor=1,
            fusedActivationFunction=relu,
        )  # fmt: skip
        writer.operator("CONV_2D", [last, weights, bias], [output], options)
        last, depth = output, channels
    flat = extent * extent * channels
    row = writer.tensor((1, flat))
    target = writer.tensor((2,), "int32", data=np.array([1, flat]))
    writer.operator("RESHAPE", [last, target], [row], schema.ReshapeOptionsT(newShape=[1, flat]))
    dense = writer.tensor((len(LABELS), flat), data=rng.normal(0, 0.2, (len(LABELS), flat)) * scores)
    answer = writer.tensor((1, len(LABELS)))
    writer.operator("FULLY_CONNECTED", [row, dense, -1], [answer], schema.FullyConnectedOptionsT())
    return writer.file([first], [answer])


def write_version(root: Path, name: str, data: bytes, *, labels: tuple[str, ...] = LABELS, heads: bool = True) -> None:
    """Put a model, its halves at ``conv`` and its manifest into ``root/name``."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / MODEL).write_bytes(data)
    graph, submodel = Graph(data), Submodel(data)
    macs = graph.macs
    cut = dataclasses.replace(graph.cut(2), name=CUT)
    version = Version(
        name, "tiny", hashlib.sha256(data).hexdigest(), len(data), "float32", submodel.inputs, submodel.outputs, macs,
        None, labels, "2.14",
        (Cut("input", 0, submodel.inputs, 0, macs), cut, Cut("output", len(graph), submodel.outputs, macs, 0)),
        tuple(
            PlanFacts(where, codec, 100.0, 100.0, None)
            for where, codec in (
                ("input", "raw8"), ("input", "jpeg75"), (CUT, "f32"), (CUT, "q8"), (CUT, "q4"), ("output", "none"),
            )
        ),
        Provenance("tests", "", "", 0),
    )  # fmt: skip
    (folder / MANIFEST).write_text(version_to_json(version))
    if heads:
        prepare(load_folder(folder), folder, heads=True, tails=True)


def write_store(root: Path) -> Path:
    """Write the versions ``tiny`` and ``big``, heads and tails."""
    write_version(root, "tiny", classifier(4, seed=1))
    write_version(root, "big", classifier(8, seed=2))
    return root


def picture(number: int, side: int = SIDE) -> NDArray[np.uint8]:
    """Return random blocks, always the same for a number."""
    blocks = np.random.default_rng(number).integers(0, 256, (side // 4, side // 4, 3), np.uint8)
    return blocks.repeat(4, 0).repeat(4, 1)


def write_pictures(folder: Path, count: int, *, first: int = 0, side: int = SIDE) -> Path:
    """Write PNG files of random blocks, named by their order; each appears whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        unfinished = folder / "unfinished"
        Image.fromarray(picture(number, side)).save(unfinished, "PNG")
        unfinished.rename(folder / f"{number:04d}.png")
    return folder
