"""Multiply-accumulates of one operator, from the shapes its file records."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

Shape = tuple[int, ...]


def operator_macs(kind: str, inputs: Sequence[Shape], output: Shape, options: Any) -> int:
    """Return the multiply-accumulates for batch size one; 0 for kinds that mostly move or compare numbers.

    ``inputs`` and ``output`` are shapes in the operator's own order; ``options`` is its options object.
    """
    try:
        match kind:
            case "CONV_2D":  # weights: out, height, width, in (per group)
                return prod(output) * prod(inputs[1][1:])
            case "DEPTHWISE_CONV_2D":  # weights: 1, height, width, out
                return prod(output) * prod(inputs[1][1:3])
            case "FULLY_CONNECTED":  # weights: out, in
                return prod(output) * inputs[1][-1]
            case "TRANSPOSE_CONV":  # inputs: output shape, weights (out, height, width, in), activations
                return prod(inputs[2]) * prod(inputs[1][:3])
            case "BATCH_MATMUL":
                return prod(output) * inputs[0][-2 if options is not None and options.adjX else -1]
            case "CONV_3D":  # weights: depth, height, width, in, out
                return prod(output) * prod(inputs[1][:4])
            case "CONV_3D_TRANSPOSE":  # weights: depth, height, width, out, in
                return prod(inputs[2]) * prod(inputs[1][:4])
    except IndexError:
        return 0  # a shape the file leaves out
    return 0
