"""The operators and tensors of one model file, and the places where it can be cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ai_edge_litert import schema_py_generated as schema

from tflite_models.catalog import Cut, ModelsError, TensorSpec
from tflite_models.splitter.flatfile import ModelFileError, read_model
from tflite_models.splitter.macs import operator_macs

_KINDS: Final = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
_TYPES: Final = {code: name.lower() for name, code in vars(schema.TensorType).items() if name.isupper()}
_CROSSING_TYPES: Final = frozenset(
    ["float16", "float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
)
"""Types whose values can be taken out of one interpreter and put into another."""
_STATE_KINDS: Final = frozenset(["VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"])
_OTHER_GRAPH_KINDS: Final = frozenset(["IF", "WHILE", "CALL", "CALL_ONCE", "STABLEHLO_COMPOSITE", "STABLEHLO_WHILE"])
_NEVER_CONSTANT: Final = frozenset(
    ["RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL", "STABLEHLO_RNG_BIT_GENERATOR", "CUSTOM"]
)


class SplitRefused(ModelsError):
    """A model cannot be cut there, or at all; the message says why."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator: what it is called, what it reads and writes (tensor numbers, absent inputs left out)."""

    kind: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    macs: int


class Graph:
    """One model file, its operators in execution order.

    A cut at ``index`` makes operators ``[0, index)`` the head. Operators that compute on constants alone (weights
    stored in another type) belong to no side: each half carries those it needs.
    """

    def __init__(self, data: bytes, origin: str = "the model") -> None:
        """Read a file's contents; raises ``ModelFileError`` or ``SplitRefused``."""
        self.origin = origin
        self.data = data
        self.model = read_model(data, origin)
        try:
            self.main = self._only_subgraph()
            self.graph_inputs = tuple(int(tensor) for tensor in _listed(self.main.inputs))
            self.graph_outputs = tuple(int(tensor) for tensor in _listed(self.main.outputs))
            self._check_numbers()
            self.operators = tuple(self._operator(operator) for operator in _listed(self.main.operators))
        except (AttributeError, TypeError, IndexError, ValueError, OverflowError) as error:
            raise ModelFileError(f"{origin} is damaged ({error})") from error
        self._refuse_what_cannot_be_cut()

    def __len__(self) -> int:
        return len(self.operators)

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the whole network takes."""
        return tuple(self.spec(tensor) for tensor in self.graph_inputs)

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the whole network gives."""
        return tuple(self.spec(tensor) for tensor in self.graph_outputs)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of the whole network for one frame."""
        return sum(operator.macs for operator in self.operators)

    @cached_property
    def constant(self) -> tuple[bool, ...]:
        """Which operators compute on constants alone."""
        made = set(self.graph_inputs)  # what depends on the frame, or on state
        made |= {number for number, tensor in enumerate(self.main.tensors) if tensor.isVariable}
        flags = []
        for operator in self.operators:
            flag = (
                bool(operator.reads)
                and made.isdisjoint(operator.reads)
                and operator.kind not in _NEVER_CONSTANT | _STATE_KINDS
                and not operator.kind.startswith(("custom ", "HASHTABLE"))
            )
            flags.append(flag)
            if not flag:
                made.update(operator.writes)
        return tuple(flags)

    @cached_property
    def _birth(self) -> dict[int, int]:
        """Return the position after which each tensor exists (0: a graph input), in order of birth."""
        birth = dict.fromkeys(self.graph_inputs, 0)
        for index, operator in enumerate(self.operators):
            if not self.constant[index]:
                for tensor in operator.writes:
                    birth.setdefault(tensor, index + 1)
        return birth

    @cached_property
    def _last_use(self) -> dict[int, int]:
        """Return the largest index whose tail still needs each tensor."""
        last: dict[int, int] = {}
        for index, operator in enumerate(self.operators):
            for tensor in operator.reads:
                last[tensor] = index
        for tensor in self.graph_outputs:
            last[tensor] = len(self.operators)
        return last

    def crossing(self, index: int) -> tuple[int, ...]:
        """Return the tensors that must cross a cut, in order of birth."""
        return tuple(
            tensor for tensor, birth in self._birth.items() if birth <= index <= self._last_use.get(tensor, -1)
        )

    def spec(self, tensor: int) -> TensorSpec:
        """Return one tensor as a submodel sees it."""
        raw = self.main.tensors[tensor]
        scale, zero_point = 0.0, 0
        quantization = raw.quantization
        if quantization is not None and quantization.scale is not None and len(quantization.scale) == 1:
            scale = float(quantization.scale[0])
            points = quantization.zeroPoint
            zero_point = int(points[0]) if points is not None and len(points) else 0
        return TensorSpec(
            name=_text(raw.name),
            shape=_shape(raw),
            dtype=_TYPES[raw.type],
            scale=scale,
            zero_point=zero_point,
        )

    def refusal(self, index: int) -> str | None:
        """Return why the file cannot be cut at an index, or ``None`` where it can."""
        if not 0 < index < len(self):
            return f"a cut lies between two operators: 1 to {len(self) - 1}"
        for tensor in self.crossing(index):
            spec, raw = self.spec(tensor), self.main.tensors[tensor]
            if raw.isVariable or spec.dtype in ("resource", "variant"):
                return f"state ('{spec.name}') would have to cross"
            if spec.dtype not in _CROSSING_TYPES:
                return f"'{spec.name}' is {spec.dtype}, which cannot be handed from one interpreter to another"
            if raw.shapeSignature is not None and any(int(extent) < 0 for extent in raw.shapeSignature[1:]):
                return f"the size of '{spec.name}' is only known at run time: convert with a fixed input shape"
        state = self._state_in(index)
        if state:
            return f"the tail would keep state ({state}) between frames, yet it serves many devices"
        if all(self.constant[:index]) or all(self.constant[index:]):
            return "one side would be empty"
        return None

    def cuts(self, max_width: int = 1) -> list[Cut]:
        """Return every place where at most ``max_width`` tensors cross and nothing speaks against cutting."""
        return [
            self.cut(index)
            for index in range(1, len(self))
            if not self.constant[index - 1]
            and 0 < len(self.crossing(index)) <= max_width
            and self.refusal(index) is None
        ]

    def cut(self, index: int) -> Cut:
        """Return the cut at an index; raises ``SplitRefused``."""
        reason = self.refusal(index)
        if reason is not None:
            raise SplitRefused(f"{self.origin} cannot be cut at {index}: {reason}")
        head_macs = sum(operator.macs for operator in self.operators[:index])
        tensors = tuple(self.spec(tensor) for tensor in self.crossing(index))
        return Cut(f"op{index}", index, tensors, head_macs, self.macs - head_macs)

    def sides(self, index: int) -> tuple[list[int], list[int]]:
        """Return the operator numbers of head and tail, constant ones in every side that needs them."""
        head = [number for number in range(index) if not self.constant[number]]
        tail = [number for number in range(index, len(self)) if not self.constant[number]]
        return self._with_constants(head, self.crossing(index)), self._with_constants(tail, self.graph_outputs)

    def _with_constants(self, numbers: Sequence[int], results: Sequence[int]) -> list[int]:
        chosen = set(numbers)
        needed = {tensor for number in numbers for tensor in self.operators[number].reads} | set(results)
        for number in reversed(range(len(self))):
            operator = self.operators[number]
            if self.constant[number] and not needed.isdisjoint(operator.writes):
                chosen.add(number)
                needed.update(operator.reads)
        return sorted(chosen)

    def _state_in(self, index: int) -> str:
        for operator in self.operators[index:]:
            if operator.kind in _STATE_KINDS:
                return operator.kind
            if any(self.main.tensors[tensor].isVariable for tensor in operator.reads):
                return f"a variable of {operator.kind}"
        return ""

    def _only_subgraph(self) -> Any:
        subgraphs = _listed(self.model.subgraphs)
        if not subgraphs:
            raise ModelFileError(f"{self.origin} holds no graph")
        if len(subgraphs) > 1:
            raise SplitRefused(
                f"{self.origin} holds {len(subgraphs)} graphs (branches, loops or several signatures): "
                "only models with one graph can be cut"
            )
        return subgraphs[0]

    def _check_numbers(self) -> None:
        tensors, buffers = len(_listed(self.main.tensors)), len(_listed(self.model.buffers))
        codes = len(_listed(self.model.operatorCodes))
        for number, tensor in enumerate(_listed(self.main.tensors)):
            if not 0 <= tensor.buffer < max(buffers, 1) or tensor.type not in _TYPES:
                raise ValueError(f"tensor {number} has no such buffer or type")
        for tensor in (*self.graph_inputs, *self.graph_outputs):
            if not 0 <= tensor < tensors:
                raise ValueError(f"tensor {tensor} does not exist")
        for number, operator in enumerate(_listed(self.main.operators)):
            if not 0 <= operator.opcodeIndex < codes:
                raise ValueError(f"operator {number} has no such code")
            for tensor in _tensor_numbers(operator):
                if not -1 <= tensor < tensors:
                    raise ValueError(f"operator {number} uses tensor {tensor}, which does not exist")

    def _operator(self, raw: Any) -> Operator:
        code = self.model.operatorCodes[raw.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        kind = _KINDS.get(number, f"operator {number}")
        if kind == "CUSTOM":
            kind = f"custom {_text(code.customCode)}"
        reads = [int(tensor) for tensor in _listed(raw.inputs)]
        writes = tuple(int(tensor) for tensor in _listed(raw.outputs) if tensor >= 0)
        shapes = [() if tensor < 0 else _shape(self.main.tensors[tensor]) for tensor in reads]
        output = _shape(self.main.tensors[writes[0]]) if writes else ()
        macs = operator_macs(kind, shapes, output, raw.builtinOptions)
        return Operator(kind, tuple(tensor for tensor in reads if tensor >= 0), writes, macs)

    def _refuse_what_cannot_be_cut(self) -> None:
        for operator in self.operators:
            if operator.kind in _OTHER_GRAPH_KINDS:
                raise SplitRefused(f"{self.origin} uses {operator.kind}: control flow cannot be cut")
        if any(raw.largeCustomOptionsOffset for raw in _listed(self.main.operators)):
            raise SplitRefused(f"{self.origin} keeps options of a custom operator behind the model")
        outside = any(buffer.offset > 1 for buffer in _listed(self.model.buffers))
        if outside or any(tensor.externalBuffer for tensor in _listed(self.main.tensors)):
            raise SplitRefused(f"{self.origin} keeps its weights outside the model (files above 2 GB do)")


def load_graph(path: Path) -> Graph:
    """Read a model file; raises ``ModelFileError`` (not a model) or ``SplitRefused`` (cannot be cut at all)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    return Graph(data, str(path))


def _listed(values: Any) -> Any:
    return () if values is None else values


def _tensor_numbers(operator: Any) -> Iterator[int]:
    for numbers in (operator.inputs, operator.outputs, operator.intermediates):
        yield from (int(number) for number in _listed(numbers))


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(extent) for extent in _listed(tensor.shape))


def _text(name: bytes | str | None) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name or ""
