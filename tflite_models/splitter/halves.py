"""Write the two halves of a graph as model files of their own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tflite_models.splitter.flatfile import AlignedBuffer, pack_model
from tflite_models.splitter.graph import Graph


def split(graph: Graph, index: int) -> tuple[bytes, bytes]:
    """Return the files of head and tail; raises ``SplitRefused``.

    The head takes what the whole takes and gives the tensors of ``graph.cut(index)``; the tail takes those, in
    that order, and gives what the whole gives. The same graph and index always give the same bytes.
    """
    graph.cut(index)
    head, tail = graph.sides(index)
    crossing = graph.crossing(index)
    return (
        _half(graph, head, graph.graph_inputs, crossing),
        _half(graph, tail, crossing, graph.graph_outputs),
    )


def _half(graph: Graph, numbers: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
    operators = [graph.main.operators[number] for number in numbers]
    used = {*inputs, *outputs}
    for operator in operators:
        for listed in (operator.inputs, operator.outputs, operator.intermediates):
            used.update(int(tensor) for tensor in (() if listed is None else listed))
    used.discard(-1)
    tensor_at = {old: new for new, old in enumerate(sorted(used))}
    tensor_at[-1] = -1  # an optional input left out
    code_at = {old: new for new, old in enumerate(sorted({op.opcodeIndex for op in operators}))}
    # Buffer 0 is the empty one by the format's convention.
    needed = {graph.main.tensors[tensor].buffer for tensor in used} - {0}
    buffer_at = {old: new for new, old in enumerate([0, *sorted(needed)])}

    subgraph = schema.SubGraphT(
        tensors=[_tensor(graph.main.tensors[old], buffer_at) for old in sorted(used)],
        inputs=[tensor_at[tensor] for tensor in inputs],
        outputs=[tensor_at[tensor] for tensor in outputs],
        operators=[_operator(operator, tensor_at, code_at) for operator in operators],
        name=graph.main.name,
    )
    model = schema.ModelT(
        version=graph.model.version,
        operatorCodes=[graph.model.operatorCodes[old] for old in code_at],
        subgraphs=[subgraph],
        description=graph.model.description,
        buffers=[AlignedBuffer(data=graph.model.buffers[old].data if old else None) for old in buffer_at],
    )
    return pack_model(model)


def _tensor(original: Any, buffer_at: dict[int, int]) -> Any:
    tensor = copy.copy(original)
    tensor.buffer = buffer_at[original.buffer]
    return tensor


def _operator(original: Any, tensor_at: dict[int, int], code_at: dict[int, int]) -> Any:
    operator = copy.copy(original)
    operator.opcodeIndex = code_at[original.opcodeIndex]
    for attribute in ("inputs", "outputs", "intermediates"):
        listed = getattr(original, attribute)
        if listed is not None:
            setattr(operator, attribute, [tensor_at[int(tensor)] for tensor in listed])
    operator.debugMetadataIndex = -1  # metadata stays behind
    return operator
