"""The language that says which devices are meant: agrees with its meaning written apart, and refuses in words."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_broker_side.selection import KEYS, MAX_DEPTH, Facts, SelectionError, facts_of, parse
from tests.wire.examples import EXAMPLES

FACTS = facts_of("cam-01", "ready", EXAMPLES["capabilities"])


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", True),
        ("  ", True),
        ("name=cam-01", True),
        ("name=cam-1", False),
        ("tag=hall-3", True),
        ("tag=belt and tag=hall-3", True),
        ("tag!=belt", False),
        ("tag!=line-3", True),
        ("runtime=tflite-runtime and state=ready", True),
        ("runtime = ai-edge-litert or cores >= 4", True),
        ("cores>4", False),
        ("cores<=4 and memory<4000", True),
        ("cores=4", True),
        ("name~cam-*", True),
        ("name~cam-?", False),
        ('board="Raspberry Pi 4 Model B"', True),
        ("board~'Raspberry Pi 4*'", True),
        ("not tag=belt", False),
        ("not (tag=belt and state=lost)", True),
        ("state=lost or tag=belt and cores=4", True),
        ("(state=lost or tag=belt) and cores=5", False),
        ("version=resnet-heavy", True),
        ("client~0.*", True),
        ("name>3", False),
        ("class=pi4", True),
    ],
)
def test_an_expression_means_what_it_says(text: str, meant: bool) -> None:
    assert parse(text).matches(FACTS) is meant


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour=red", "'colour' at character 1 is no key: there are name, state, tag"),
        ("tag", "a comparison is missing"),
        ("tag=", "a value is missing at the end"),
        ("tag==x", "'=' at character 5: a value is missing"),
        ("tag line-3 x", "'line-3' at character 5: write one of =, !="),
        ("cores>many", "cores > 'many': a number is needed"),
        ("cores>nan", "a number is needed"),
        ("(tag=x", "closing parenthesis"),
        ("tag=x)", "')' at character 6: join conditions by and, or"),
        ("tag=x tag=y", "'tag' at character 7: join conditions"),
        ("tag=x & tag=y", "'& tag=y' at character 6"),
        ('tag="x', "means nothing here"),
        ("and tag=x", "'and' at character 1 is no key"),
        ("tag=x and", "a key is missing at the end"),
        ("not " * (MAX_DEPTH + 2) + "tag=x", "deep"),
        ("(" * 1900 + "tag=x", "deep"),
        ("x" * 3000, "allowed are 2000"),
    ],
)
def test_what_is_not_understood_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(SelectionError) as caught:
        parse(text)
    assert words in str(caught.value)


def test_of_an_unknown_device_only_what_it_is_not_holds() -> None:
    unknown = facts_of("cam-02", "lost", None)
    assert parse("tag!=x and not cores>0").matches(unknown)
    assert not parse("tag=x or cores>0 or board~*").matches(unknown)


Tree = tuple[Any, ...]
_leaf = st.tuples(
    st.just("is"), st.sampled_from(["tag", "name", "cores"]), st.sampled_from(["=", "!=", "<", "~"]), st.integers(0, 3)
)
_trees: st.SearchStrategy[Tree] = st.recursive(
    _leaf,
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.just("and"), inner, inner),
        st.tuples(st.just("or"), inner, inner),
    ),
    max_leaves=12,
)


def _written(tree: Tree) -> str:
    if tree[0] == "is":
        return f"{tree[1]}{tree[2]}{tree[3]}"
    if tree[0] == "not":
        return f"not ({_written(tree[1])})"
    return f"({_written(tree[1])}) {tree[0]} ({_written(tree[2])})"


def _true(tree: Tree, tags: set[int], name: int, cores: int) -> Any:
    if tree[0] == "not":
        return not _true(tree[1], tags, name, cores)
    if tree[0] in ("and", "or"):
        left, right = (_true(part, tags, name, cores) for part in tree[1:])
        return (left and right) if tree[0] == "and" else (left or right)
    _, key, sign, value = tree
    held = {"tag": tags, "name": {name}, "cores": {cores}}[key]
    if sign == "<":
        return any(one < value for one in held)
    if sign == "~" and key == "cores":  # numbers are written as 2.0
        return False
    return (value in held) != (sign == "!=")


@given(_trees, st.sets(st.integers(0, 3)), st.integers(0, 3), st.integers(0, 3))
def test_every_expression_agrees_with_its_tree(tree: Tree, tags: set[int], name: int, cores: int) -> None:
    facts: Facts = {"tag": [str(tag) for tag in sorted(tags)], "name": str(name), "cores": float(cores)}
    assert parse(_written(tree)).matches(facts) is _true(tree, tags, name, cores)


@given(st.text(max_size=60) | st.lists(st.sampled_from([*KEYS, "=", "(", ")", "and", "not", " ", "x"])).map("".join))
def test_any_text_is_understood_or_refused(text: str) -> None:
    with suppress(SelectionError):
        assert parse(text).matches(FACTS) in (True, False)
