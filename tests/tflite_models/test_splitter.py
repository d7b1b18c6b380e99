"""Cuts of hand-made graphs, bit-exact halves of random ones, refusals in words, damaged files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from tflite_models.catalog import load_catalog, shipped_zoo
from tflite_models.runtime import FAST, LIGHT, Submodel
from tflite_models.splitter import Graph, ModelFileError, SplitRefused, check_each, load_graph, split
from tflite_models.splitter.flatfile import pack_model, read_model
from tflite_models.synthetic import ModelWriter, conv_chain, int8_chain, random_dag

BOTH = pytest.mark.parametrize("runtime", [LIGHT, FAST])


def diamond(*, early_output: bool = False, late_input: bool = False) -> Graph:
    """x → a = x+x → b = a·a → c = b·a (· late input); outputs c, and a where asked."""
    writer = ModelWriter()
    x, a, b, c = (writer.tensor((1, 4)) for _ in range(4))
    late = writer.tensor((1, 4)) if late_input else a
    writer.operator("ADD", [x, x], [a])
    writer.operator("MUL", [a, a], [b])
    writer.operator("MUL", [b, late], [c])
    inputs = [x, late] if late_input else [x]
    return Graph(writer.file(inputs, [c, a] if early_output else [c]))


def names(graph: Graph, index: int) -> list[str]:
    return [graph.spec(tensor).name for tensor in graph.crossing(index)]


def test_what_crosses_is_what_both_sides_touch() -> None:
    graph = diamond()
    assert [names(graph, index) for index in (1, 2)] == [["t1"], ["t1", "t2"]]
    assert [cut.name for cut in graph.cuts()] == ["op1"]
    assert [cut.name for cut in graph.cuts(max_width=2)] == ["op1", "op2"]


def test_an_output_of_the_head_and_an_input_of_the_tail_cross_too() -> None:
    graph = diamond(early_output=True, late_input=True)
    assert [names(graph, index) for index in (1, 2)] == [["t4", "t1"], ["t4", "t1", "t2"]]


@BOTH
def test_passing_tensors_through_works_on_real_runtimes(runtime: str) -> None:
    graph = diamond(early_output=True, late_input=True)
    checks = list(check_each(graph, graph.cuts(max_width=3), runtime=runtime))
    assert [(check.index, check.tensors, check.max_abs_diff) for check in checks] == [(1, 2, 0.0), (2, 3, 0.0)]


def test_weights_stored_narrow_go_to_the_half_that_reads_them() -> None:
    writer = ModelWriter()
    x, y, z, wide, stored = (
        *(writer.tensor((1, 2)) for _ in range(4)),
        writer.tensor((1, 2), "float16", data=np.ones(2)),
    )
    writer.operator("DEQUANTIZE", [stored], [wide], schema.DequantizeOptionsT(), version=3)
    writer.operator("ADD", [x, x], [y])
    writer.operator("MUL", [y, wide], [z])
    graph = Graph(writer.file([x], [z]))
    assert [(cut.name, len(cut.tensors)) for cut in graph.cuts()] == [("op2", 1)]
    head, tail = (read_model(half, "half") for half in split(graph, 2))
    assert (len(head.subgraphs[0].operators), len(tail.subgraphs[0].operators)) == (1, 2)
    assert len(head.buffers) == 1, "no weights in the head"


@pytest.mark.parametrize("make", [lambda: conv_chain(3, 8, 8, 4), lambda: int8_chain(3, 8, 4)])
def test_halves_carry_only_their_own(make: Any) -> None:
    whole = make()
    graph = Graph(whole)
    for cut in graph.cuts():
        head, tail = split(graph, cut.index)
        assert (head, tail) == split(Graph(whole), cut.index), "the same bytes every time"
        for half in (head, tail):
            model = read_model(half, "half")
            main = model.subgraphs[0]
            used = {int(t) for op in main.operators for t in (*op.inputs, *op.outputs)} - {-1}
            assert used | set(main.inputs) | set(main.outputs) == set(range(len(main.tensors)))
            assert {tensor.buffer for tensor in main.tensors} | {0} == set(range(len(model.buffers)))
            assert {op.opcodeIndex for op in main.operators} == set(range(len(model.operatorCodes)))
            assert model.signatureDefs is None
            assert model.metadata is None
        kept = [len(read_model(half, "half").subgraphs[0].operators) for half in (head, tail)]
        assert kept == [cut.index, len(graph) - cut.index]


def test_weights_lie_on_sixteen_byte_boundaries() -> None:
    for half in split(Graph(conv_chain(3, 4, 4, 3)), 1):
        model = schema.Model.GetRootAs(half, 0)
        for index in range(model.BuffersLength()):
            buffer = model.Buffers(index)
            if not buffer.DataIsNone():
                start = buffer._tab.Vector(buffer._tab.Offset(4))
                assert start % 16 == 0


def test_work_is_counted_from_the_shapes() -> None:
    graph = Graph(conv_chain(4, 6, 5, 3))
    per_layer = 6 * 5 * 3 * (3 * 3 * 3)
    assert graph.macs == 4 * per_layer
    assert [(cut.head_macs, cut.tail_macs) for cut in graph.cuts()] == [
        (layers * per_layer, (4 - layers) * per_layer) for layers in (1, 2, 3)
    ]


def test_quantisation_travels_with_the_tensors() -> None:
    graph = Graph(int8_chain(2, 4, 3))
    cut = graph.cut(2)
    assert cut.tensors[0].dtype == "int8"
    assert cut.tensors[0].scale == pytest.approx(0.01)
    assert cut.tensors[0].zero_point == -128
    head, tail = split(graph, 2)
    assert Submodel(tail).inputs == cut.tensors == Submodel(head).outputs
    weights = read_model(tail, "tail").subgraphs[0].tensors
    assert any(t.quantization is not None and len(t.quantization.scale) == 3 for t in weights), "per channel"


@BOTH
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), operators=st.integers(2, 14))
def test_halves_of_random_graphs_compose_bit_for_bit(runtime: str, seed: int, operators: int) -> None:
    graph = Graph(random_dag(np.random.default_rng(seed), operators))
    for check in check_each(graph, graph.cuts(max_width=4), samples=1, runtime=runtime):
        assert check.max_abs_diff == 0.0


@BOTH
@pytest.mark.parametrize("make", [lambda: conv_chain(4, 9, 7, 5), lambda: int8_chain(3, 8, 4)])
def test_halves_of_chains_compose_bit_for_bit(runtime: str, make: Any) -> None:
    graph = Graph(make())
    checks = list(check_each(graph, graph.cuts(), runtime=runtime))
    assert [check.max_abs_diff for check in checks] == [0.0] * (len(graph) - 1)


def test_a_wrong_half_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, other = Graph(conv_chain(3, 4, 4, 2, seed=0)), Graph(conv_chain(3, 4, 4, 2, seed=1))
    monkeypatch.setattr("tflite_models.splitter.checks.split", lambda _graph, index: split(other, index))
    checks = list(check_each(graph, graph.cuts()))
    assert all(check.max_abs_diff > 0 for check in checks)


@BOTH
def test_shipped_versions_compose_bit_for_bit(runtime: str) -> None:
    for folder in load_catalog(shipped_zoo()).folders.values():
        graph = load_graph(folder.model)
        inner = [cut for cut in folder.version.cuts if cut.name not in ("input", "output")]
        for check in check_each(graph, inner, samples=1, runtime=runtime):
            assert check.max_abs_diff == 0.0, folder.version.name
        for cut in inner:
            assert graph.cut(cut.index).tensors == cut.tensors


def test_state_may_stay_on_the_device_but_not_on_the_edge() -> None:
    writer = ModelWriter()
    x, y, z, state = *(writer.tensor((1, 2)) for _ in range(3)), writer.tensor((1, 2), variable=True)
    writer.operator("ADD", [x, state], [y])
    writer.operator("MUL", [y, y], [z])
    assert [cut.name for cut in Graph(writer.file([x], [z])).cuts()] == ["op1"]
    writer.operator("ADD", [z, state], [last := writer.tensor((1, 2))])
    graph = Graph(writer.file([x], [last]))
    assert graph.cuts() == []
    with pytest.raises(SplitRefused, match="the tail would keep state"):
        split(graph, 1)


@pytest.mark.parametrize("index", [-1, 0, 3, 4])
def test_a_cut_lies_between_operators(index: int) -> None:
    with pytest.raises(SplitRefused, match="1 to 2"):
        split(diamond(), index)


def _two_graphs(model: Any) -> None:
    model.subgraphs.append(model.subgraphs[0])


def _control_flow(model: Any) -> None:
    for code in model.operatorCodes:
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.WHILE


def _far_options(model: Any) -> None:
    model.subgraphs[0].operators[0].largeCustomOptionsOffset = 4096


def _outside_weights(model: Any) -> None:
    model.buffers[1].offset = 4096


def _text(model: Any) -> None:
    for tensor in model.subgraphs[0].tensors:
        tensor.type = schema.TensorType.STRING


def _open_size(model: Any) -> None:
    for tensor in model.subgraphs[0].tensors:
        tensor.shapeSignature = [-1] * len(tensor.shape)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_two_graphs, "holds 2 graphs"),
        (_control_flow, "uses WHILE: control flow"),
        (_far_options, "options of a custom operator behind the model"),
        (_outside_weights, "weights outside the model"),
        (_text, "is string, which cannot be handed"),
        (_open_size, "only known at run time"),
    ],
)
def test_what_cannot_be_cut_is_refused_in_words(change: Any, words: str) -> None:
    model = read_model(conv_chain(2, 4, 4, 2), "chain")
    change(model)
    with pytest.raises(SplitRefused, match=words):
        split(Graph(pack_model(model)), 1)


def test_custom_operators_pass_untouched() -> None:
    model = read_model(conv_chain(2, 4, 4, 2), "chain")
    options = list(range(40))
    model.operatorCodes.append(
        schema.OperatorCodeT(builtinCode=schema.BuiltinOperator.CUSTOM, deprecatedBuiltinCode=32, customCode="Mine")
    )
    main = model.subgraphs[0]
    main.operators[1].opcodeIndex = 1
    main.operators[1].builtinOptionsType, main.operators[1].builtinOptions = 0, None
    main.operators[1].customOptions = options
    _, tail = split(Graph(pack_model(model)), 1)
    copied = read_model(tail, "tail")
    assert copied.operatorCodes[0].customCode == b"Mine"
    assert list(copied.subgraphs[0].operators[0].customOptions) == options


def test_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.tflite"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(ModelFileError, match=r"mine\.tflite is not a TensorFlow Lite model"):
        load_graph(path)
    with pytest.raises(ModelFileError, match="cannot read"):
        load_graph(tmp_path / "absent.tflite")


def _survives(data: bytes) -> None:
    """A damaged file is refused, or reads as some other model that can be cut or refused."""
    try:
        graph = Graph(data)
        for cut in graph.cuts(max_width=3)[:3]:
            split(graph, cut.index)
    except (ModelFileError, SplitRefused):
        pass


def test_every_truncation_is_survived() -> None:
    data = int8_chain(1, 2, 2)
    for length in range(len(data)):
        _survives(data[:length])
    with pytest.raises(ModelFileError, match="damaged or cut short"):
        Graph(data[: len(data) // 2])


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_noise_is_survived(data: st.DataObject) -> None:
    file = bytearray(random_dag(np.random.default_rng(3), 6))
    for _ in range(data.draw(st.integers(1, 8))):
        if data.draw(st.booleans()):
            file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
        else:
            word = data.draw(st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 1000]))
            struct.pack_into("<I", file, 4 * data.draw(st.integers(0, len(file) // 4 - 1)), word)
    _survives(bytes(file))


def test_a_list_longer_than_the_file_is_noticed_at_once() -> None:
    data = bytearray(conv_chain(2, 4, 4, 2))
    model = schema.Model.GetRootAs(data, 0)
    tensors = model.Subgraphs(0)._tab
    length_at = tensors.Vector(tensors.Offset(4)) - 4
    struct.pack_into("<I", data, length_at, 2**31)
    with pytest.raises(ModelFileError, match="a list is longer than the file allows"):
        Graph(bytes(data))
