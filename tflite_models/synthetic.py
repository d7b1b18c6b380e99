"""Small real model files written without TensorFlow: for property tests, and for tails of a chosen cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from tflite_models.splitter.flatfile import AlignedBuffer, pack_model

_TYPES = {
    name: getattr(schema.TensorType, name.upper())
    for name in ("float32", "float16", "int32", "int8", "uint8", "bool", "int64")
}


class ModelWriter:
    """Collects tensors and operators of one graph, then gives the file. Tensors are known by number."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[tuple[int, int], int] = {}
        self._buffers: list[Any] = [AlignedBuffer()]
        self.shapes: list[tuple[int, ...]] = []

    def tensor(
        self,
        shape: Sequence[int],
        dtype: str = "float32",
        *,
        data: NDArray[Any] | None = None,
        scales: Sequence[float] = (),
        zero_points: Sequence[int] = (),
        axis: int = 0,
        variable: bool = False,
        open_batch: bool = False,
    ) -> int:
        """Add a tensor; with ``data`` a constant, with ``scales`` a quantised one (per channel of ``axis``)."""
        number = len(self._tensors)
        buffer = 0
        if data is not None:
            payload = np.frombuffer(np.ascontiguousarray(data, dtype).tobytes(), np.uint8)
            buffer = len(self._buffers)
            self._buffers.append(AlignedBuffer(data=payload))
        quantization = None
        if scales:
            points = list(zero_points) or [0] * len(scales)
            quantization = schema.QuantizationParametersT(scale=list(scales), zeroPoint=points, quantizedDimension=axis)
        self._tensors.append(
            schema.TensorT(
                shape=list(shape),
                type=_TYPES[dtype],
                buffer=buffer,
                name=f"t{number}",
                quantization=quantization,
                isVariable=variable,
                shapeSignature=[-1, *shape[1:]] if open_batch else None,
                hasRank=True,
            )
        )
        self.shapes.append(tuple(shape))
        return number

    def operator(
        self,
        kind: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Any = None,
        *,
        version: int = 1,
    ) -> None:
        """Add a built-in operator; its options object names its own place in the schema's union."""
        number = getattr(schema.BuiltinOperator, kind)
        code = self._codes.setdefault((number, version), len(self._codes))
        name = type(options).__name__.removesuffix("T")
        self._operators.append(
            schema.OperatorT(
                opcodeIndex=code,
                inputs=list(inputs),
                outputs=list(outputs),
                builtinOptionsType=0 if options is None else getattr(schema.BuiltinOptions, name),
                builtinOptions=options,
            )
        )

    def file(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """Return the file's bytes."""
        codes = [
            schema.OperatorCodeT(deprecatedBuiltinCode=min(number, 127), version=version, builtinCode=number)
            for number, version in self._codes
        ]
        graph = schema.SubGraphT(
            tensors=self._tensors,
            inputs=list(inputs),
            outputs=list(outputs),
            operators=self._operators,
            name="main",
        )
        return pack_model(
            schema.ModelT(
                version=3,
                operatorCodes=codes,
                subgraphs=[graph],
                description="splitfleet synthetic",
                buffers=self._buffers,
            )
        )


_RELU = schema.ActivationFunctionType.RELU


def _conv_options(activation: int = _RELU, stride: int = 1) -> Any:
    return schema.Conv2DOptionsT(
        padding=schema.Padding.SAME,
        strideW=stride,
        strideH=stride,
        dilationWFactor=1,
        dilationHFactor=1,
        fusedActivationFunction=activation,
    )


def conv_chain(layers: int, height: int, width: int, channels: int, seed: int = 0, *, pooled: bool = False) -> bytes:
    """Return a float32 model of ``layers`` 3×3 convolutions with ReLU, all height × width × channels.

    It costs ``layers * height * width * 9 * channels**2`` multiply-accumulates. The batch is open. With ``pooled``
    the output is the mean over the picture, [1, channels]: scores, as a classifier has them.
    """
    rng = np.random.default_rng(seed)
    writer = ModelWriter()
    shape = (1, height, width, channels)
    first = last = writer.tensor(shape, open_batch=True)
    spread = (2.0 / (9 * channels)) ** 0.5
    for _ in range(layers):
        weights = rng.normal(0, spread, (channels, 3, 3, channels))
        inputs = [
            last,
            writer.tensor(weights.shape, data=weights),
            writer.tensor((channels,), data=rng.normal(0, 0.1, channels)),
        ]
        last = writer.tensor(shape, open_batch=True)
        writer.operator("CONV_2D", inputs, [last], _conv_options())
    if pooled:
        picture, axes = last, writer.tensor((2,), "int32", data=np.array([1, 2]))
        last = writer.tensor((1, channels), open_batch=True)
        writer.operator("MEAN", [picture, axes], [last], schema.ReducerOptionsT(keepDims=False))
    return writer.file([first], [last])


def dense_classifier(side: int, hidden: int, labels: int, seed: int = 0) -> bytes:
    """Return a classifier of uint8 pictures, side × side × 3, made of two dense layers: next to nothing to compute."""
    rng, writer = np.random.default_rng(seed), ModelWriter()
    pixels = side * side * 3
    first, floats = writer.tensor((1, side, side, 3), "uint8"), writer.tensor((1, side, side, 3))
    cast = schema.CastOptionsT(inDataType=schema.TensorType.UINT8, outDataType=schema.TensorType.FLOAT32)
    writer.operator("CAST", [first], [floats], cast)
    row, shape = writer.tensor((1, pixels)), writer.tensor((2,), "int32", data=np.array([1, pixels]))
    writer.operator("RESHAPE", [floats, shape], [row], schema.ReshapeOptionsT(newShape=[1, pixels]))
    last = row
    for rows, columns, spread in ((hidden, pixels, 0.001), (labels, hidden, 0.1)):
        weights = writer.tensor((rows, columns), data=rng.normal(0, spread, (rows, columns)))
        output = writer.tensor((1, rows))
        writer.operator("FULLY_CONNECTED", [last, weights, -1], [output], schema.FullyConnectedOptionsT())
        last = output
    return writer.file([first], [last])


def int8_chain(layers: int, size: int, channels: int, seed: int = 0) -> bytes:
    """Return an int8 model: uint8 in, per-channel quantised 3×3 convolutions, float32 out."""
    rng = np.random.default_rng(seed)
    writer = ModelWriter()
    shape = (1, size, size, channels)
    first = writer.tensor(shape, "uint8", scales=[1 / 255], zero_points=[0])
    last = writer.tensor(shape, "int8", scales=[1 / 255], zero_points=[-128])
    writer.operator("QUANTIZE", [first], [last], schema.QuantizeOptionsT())
    scale = 1 / 255
    for _ in range(layers):
        weight_scales = rng.uniform(0.002, 0.006, channels).astype(np.float32)
        weights = rng.integers(-127, 128, (channels, 3, 3, channels))
        inputs = [
            last,
            writer.tensor(weights.shape, "int8", data=weights, scales=[float(s) for s in weight_scales]),
            writer.tensor(
                (channels,),
                "int32",
                data=rng.integers(-500, 500, channels),
                scales=[float(s) * scale for s in weight_scales],
            ),
        ]
        scale = 0.01
        last = writer.tensor(shape, "int8", scales=[scale], zero_points=[-128])
        writer.operator("CONV_2D", inputs, [last], _conv_options(), version=3)
    final = writer.tensor(shape)
    writer.operator("DEQUANTIZE", [last], [final], schema.DequantizeOptionsT(), version=2)
    return writer.file([first], [final])


def random_dag(rng: np.random.Generator, operators: int = 12) -> bytes:
    """Return a random float32 graph: several tensors alive at once, one to three inputs and outputs.

    Convolutions, additions, products, concatenations, dense layers, reshapes, float16 weights, outputs that other
    operators read too, inputs read late.
    """
    writer = ModelWriter()
    side = int(rng.integers(2, 5))
    pictures = [writer.tensor((1, side, side, int(rng.integers(1, 5)))) for _ in range(rng.integers(1, 4))]
    inputs = list(pictures)
    rows: list[int] = []
    for _ in range(operators):
        if rows and rng.random() < 0.35:
            rows.append(_add_row_operator(writer, rows, rng))
        elif rng.random() < 0.2:
            rows.append(_add_reshape(writer, pictures, rng))
        else:
            pictures.append(_add_picture_operator(writer, pictures, rng))
    made = [tensor for tensor in (*pictures, *rows) if tensor not in inputs]
    count = min(len(made), int(rng.integers(1, 4)))
    outputs = [int(tensor) for tensor in rng.choice(made, size=count, replace=False)]
    return writer.file(inputs, [made[-1], *(tensor for tensor in outputs if tensor != made[-1])])


def _pick(tensors: list[int], rng: np.random.Generator) -> int:
    """Prefer late tensors, so that graphs are deep as well as wide."""
    return tensors[-1] if rng.random() < 0.5 else tensors[int(rng.integers(len(tensors)))]


def _weights(writer: ModelWriter, shape: tuple[int, ...], rng: np.random.Generator) -> int:
    values = rng.normal(0, 0.5, shape)
    if rng.random() < 0.7:
        return writer.tensor(shape, data=values)
    stored, wide = writer.tensor(shape, "float16", data=values), writer.tensor(shape)
    writer.operator("DEQUANTIZE", [stored], [wide], schema.DequantizeOptionsT(), version=3)
    return wide


def _add_picture_operator(writer: ModelWriter, pictures: list[int], rng: np.random.Generator) -> int:
    source = _pick(pictures, rng)
    shape = writer.shapes[source]
    alike = [tensor for tensor in pictures if writer.shapes[tensor] == shape]
    kind = str(rng.choice(["conv", "add", "mul", "concat"]))
    if kind in ("add", "mul"):
        output = writer.tensor(shape)
        options = schema.AddOptionsT() if kind == "add" else schema.MulOptionsT()
        writer.operator(kind.upper(), [source, _pick(alike, rng)], [output], options)
        return output
    if kind == "concat" and shape[3] < 12:
        other = _pick(pictures, rng)
        output = writer.tensor((*shape[:3], shape[3] + writer.shapes[other][3]))
        writer.operator("CONCATENATION", [source, other], [output], schema.ConcatenationOptionsT(axis=3))
        return output
    channels = int(rng.integers(1, 6))
    weights = _weights(writer, (channels, 3, 3, shape[3]), rng)
    bias = writer.tensor((channels,), data=rng.normal(0, 0.1, channels))
    output = writer.tensor((*shape[:3], channels))
    writer.operator("CONV_2D", [source, weights, bias], [output], _conv_options())
    return output


def _add_reshape(writer: ModelWriter, pictures: list[int], rng: np.random.Generator) -> int:
    source = _pick(pictures, rng)
    shape = (1, int(np.prod(writer.shapes[source])))
    target = writer.tensor((2,), "int32", data=np.array(shape))
    output = writer.tensor(shape)
    writer.operator("RESHAPE", [source, target], [output], schema.ReshapeOptionsT(newShape=list(shape)))
    return output


def _add_row_operator(writer: ModelWriter, rows: list[int], rng: np.random.Generator) -> int:
    source = _pick(rows, rng)
    units = int(rng.integers(1, 9))
    weights = _weights(writer, (units, writer.shapes[source][1]), rng)
    bias = writer.tensor((units,), data=rng.normal(0, 0.1, units)) if rng.random() < 0.5 else -1
    output = writer.tensor((1, units))
    options = schema.FullyConnectedOptionsT(fusedActivationFunction=int(rng.choice([0, _RELU])))
    writer.operator("FULLY_CONNECTED", [source, weights, bias], [output], options)
    return output
