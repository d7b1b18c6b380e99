"""Give a float32 picture model an input of plain uint8 pixels, as cameras and picture codecs make them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_models.splitter.flatfile import AlignedBuffer, pack_model
from tflite_models.splitter.graph import Graph, SplitRefused

_TYPE = schema.TensorType


def take_pixels(graph: Graph, low: float, high: float) -> bytes:
    """Return a model that takes uint8 and turns 0 to 255 into ``low`` to ``high`` before it does as the given one.

    Raises ``SplitRefused`` for a model that does not take exactly one float32 tensor.
    """
    if len(graph.graph_inputs) != 1 or graph.inputs[0].dtype != "float32":
        taken = ", ".join(spec.dtype for spec in graph.inputs)
        raise SplitRefused(f"{graph.origin} takes {taken}, not one float32 tensor of pixels")
    model, main = copy.copy(graph.model), copy.copy(graph.main)
    model.subgraphs, model.signatureDefs, model.metadata, model.metadataBuffer = [main], None, None, None
    model.buffers = [AlignedBuffer(data=buffer.data) for buffer in model.buffers]
    model.operatorCodes, main.tensors = list(model.operatorCodes), list(main.tensors)

    floats = graph.graph_inputs[0]
    steps: list[tuple[int, Any, float | None]] = [(schema.BuiltinOperator.CAST, _cast_options(), None)]
    if (scale := (high - low) / 255) != 1:
        steps.append((schema.BuiltinOperator.MUL, schema.MulOptionsT(), scale))
    if low:
        steps.append((schema.BuiltinOperator.ADD, schema.AddOptionsT(), low))
    pixels = source = _add_tensor(main, main.tensors[floats], "pixels", _TYPE.UINT8)
    operators = []
    for place, (kind, options, constant) in enumerate(steps):
        last = place == len(steps) - 1
        target = floats if last else _add_tensor(main, main.tensors[floats], f"pixels/{place}", _TYPE.FLOAT32)
        reads = [source] if constant is None else [source, _add_constant(model, main, constant)]
        operators.append(_operator(model, kind, options, reads, target))
        source = target
    main.inputs, main.operators = [pixels], operators + list(main.operators)
    return pack_model(model)


def _cast_options() -> Any:
    return schema.CastOptionsT(inDataType=_TYPE.UINT8, outDataType=_TYPE.FLOAT32)


def _add_tensor(main: Any, like: Any, name: str, kind: int) -> int:
    tensor = copy.copy(like)
    tensor.name, tensor.type, tensor.quantization, tensor.buffer = name, kind, None, 0
    main.tensors.append(tensor)
    return len(main.tensors) - 1


def _add_constant(model: Any, main: Any, value: float) -> int:
    payload = np.frombuffer(np.array(value, np.float32).tobytes(), np.uint8)
    model.buffers.append(AlignedBuffer(data=payload))
    main.tensors.append(
        schema.TensorT(shape=[], type=_TYPE.FLOAT32, buffer=len(model.buffers) - 1, name=f"pixels/{value:g}")
    )
    return len(main.tensors) - 1


def _operator(model: Any, kind: int, options: Any, reads: list[int], target: int) -> Any:
    model.operatorCodes.append(schema.OperatorCodeT(deprecatedBuiltinCode=kind, version=1, builtinCode=kind))
    name = type(options).__name__.removesuffix("T")
    return schema.OperatorT(
        opcodeIndex=len(model.operatorCodes) - 1,
        inputs=reads,
        outputs=[target],
        builtinOptionsType=getattr(schema.BuiltinOptions, name),
        builtinOptions=options,
    )
