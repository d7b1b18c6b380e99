"""Between the bytes of a ``.tflite`` file and the objects of its schema: careful reading, aligned writing."""

from __future__ import annotations

import struct
from typing import Any, Final

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from tflite_models.catalog import ModelsError

IDENTIFIER: Final = b"TFL3"
_BUFFER_ALIGNMENT: Final = 16
"""The schema's ``force_align`` of buffers: kernels read weights in place from the mapped file."""
_MOST_ITEMS: Final = 500_000
"""Tables and tensor numbers in one file; models of a thousand operators hold about ten thousand."""
_DAMAGE: Final = (
    struct.error,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    OverflowError,
    MemoryError,
)
"""What the flatbuffers library and the generated schema raise on a damaged file."""


class ModelFileError(ModelsError):
    """A file is not a TensorFlow Lite model, or is damaged."""


def read_model(data: bytes, origin: str) -> Any:
    """Return the schema's ``ModelT`` of a file's contents; raises ``ModelFileError`` that names ``origin``.

    Tensors' data are views into ``data``, not copies. A damaged file costs no more time and memory than a sound
    one of its size: every list is counted before it is walked.
    """
    if len(data) < 8 or data[4:8] != IDENTIFIER:
        raise ModelFileError(f"{origin} is not a TensorFlow Lite model (identifier TFL3 missing)")
    try:
        _survey(schema.Model.GetRootAs(data, 0), len(data))
        return schema.ModelT.InitFromPackedBuf(data, 0)
    except _DAMAGE as error:
        raise ModelFileError(f"{origin} is damaged or cut short ({error})") from error


def pack_model(model: Any) -> bytes:
    """Return the file of a ``ModelT``; the same model always gives the same bytes."""
    sizes = [0 if buffer.data is None else len(buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder(sum(sizes) + 32 * len(sizes) + 64 * 1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


class AlignedBuffer(schema.BufferT):  # type: ignore[misc]  # the generated schema carries no types
    """A buffer whose data starts on the boundary that TensorFlow Lite requires."""

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the generated schema's name
        """Write this buffer and return its offset."""
        data = None
        if self.data is not None:
            payload = bytes(self.data)
            builder.StartVector(1, len(payload), _BUFFER_ALIGNMENT)
            builder.head -= len(payload)
            builder.Bytes[builder.head : builder.head + len(payload)] = payload
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return int(schema.BufferEnd(builder))


class _Budget:
    """Counts what a file claims to hold, so that a damaged length is noticed before anything is made of it."""

    def __init__(self, file_bytes: int) -> None:
        self._items = min(_MOST_ITEMS, file_bytes)
        self._text_bytes = file_bytes

    def take(self, *items: int) -> None:
        self._items -= sum(items)
        if self._items < 0:
            raise ValueError("a list is longer than the file allows")

    def take_text(self, text: bytes | None) -> None:
        self._text_bytes -= len(text or b"")
        if self._text_bytes < 0:
            raise ValueError("its names are longer than the file")


def _survey(model: Any, file_bytes: int) -> None:
    budget = _Budget(file_bytes)
    budget.take(model.OperatorCodesLength(), model.SubgraphsLength(), model.BuffersLength())
    budget.take(model.MetadataLength(), model.SignatureDefsLength())
    budget.take(model.ExternalBufferGroupsLength(), model.ExternalBuffersLength())
    for index in range(model.OperatorCodesLength()):
        budget.take_text(model.OperatorCodes(index).CustomCode())
    for index in range(model.MetadataLength()):
        budget.take_text(model.Metadata(index).Name())
    for index in range(model.SignatureDefsLength()):
        signature = model.SignatureDefs(index)
        budget.take(signature.InputsLength(), signature.OutputsLength())
    for index in range(model.SubgraphsLength()):
        _survey_subgraph(model.Subgraphs(index), budget)


def _survey_subgraph(subgraph: Any, budget: _Budget) -> None:
    budget.take(subgraph.TensorsLength(), subgraph.OperatorsLength())
    budget.take(subgraph.InputsLength(), subgraph.OutputsLength())
    for index in range(subgraph.TensorsLength()):
        tensor = subgraph.Tensors(index)
        budget.take_text(tensor.Name())
        budget.take(tensor.ShapeLength(), tensor.ShapeSignatureLength(), tensor.VariantTensorsLength())
        if (sparsity := tensor.Sparsity()) is not None:
            budget.take(sparsity.DimMetadataLength())
    for index in range(subgraph.OperatorsLength()):
        operator = subgraph.Operators(index)
        budget.take(operator.InputsLength(), operator.OutputsLength(), operator.IntermediatesLength())
