"""Which devices somebody means: a small language over the facts of each, such as ``tag=line-3 and cores>=4``. Pure.

    expression = term { "or" term }        term = factor { "and" factor }
    factor = "not" factor | "(" expression ")" | KEY operator VALUE
    operator = "=" | "!=" | "<" | "<=" | ">" | ">=" | "~" (a pattern with * and ?)

A fact may have several values (tags): a comparison holds where it holds of any, ``!=`` where ``=`` does not. ``<`` and
the like compare numbers. Values with other characters than letters, digits and ``._:/*?-`` stand in quotes.
"""

from __future__ import annotations

import fnmatch
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edge_broker_side.errors import EdgeError
from wire.messages import Capabilities

Fact = str | float | Sequence[str]
Facts = Mapping[str, Fact]
KEYS: Mapping[str, str] = {
    "name": "of the device",
    "state": "init, ready, sleeping, stopped or lost",
    "tag": "any of its tags",
    "class": "device class, which names its profile",
    "board": "model of the board",
    "runtime": "interpreter: tflite or tflite-runtime, litert or ai-edge-litert",
    "version": "any of the versions it holds",
    "client": "release of the client",
    "cores": "number of cores",
    "memory": "memory in MB",
}
MAX_CHARS, MAX_DEPTH = 2000, 50

_TOKEN = re.compile(r"\s*(?:(<=|>=|!=|[=<>~()])|([A-Za-z0-9._:/*?-]+)|\"([^\"]*)\"|'([^']*)')")
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class SelectionError(EdgeError):
    """An expression cannot be understood; the message says where and what is allowed."""


def facts_of(name: str, state: str, told: Capabilities | None) -> dict[str, Fact]:
    """Return what expressions may ask of a device; of one that never told its capabilities little is known."""
    facts: dict[str, Fact] = {"name": name, "state": state}
    if told is not None:
        facts |= {
            "tag": told.tags,
            "class": told.device_class,
            "board": told.board,
            "runtime": _runtime_names(told.runtime),
            "version": [version.name for version in told.versions],
            "client": told.client_version,
            "cores": float(told.cores),
            "memory": float(told.memory_mb),
        }
    return facts


def _runtime_names(told: str) -> tuple[str, ...]:
    """Return a runtime's package and the short name people use for it, without its release."""
    package = told.partition(" ")[0]
    short = {"tflite-runtime": "tflite", "ai-edge-litert": "litert"}.get(package)
    return (package,) if short is None else (package, short)


@dataclass(frozen=True, slots=True)
class Selection:
    """An expression that has been understood."""

    text: str
    _holds: Callable[[Facts], bool]

    def matches(self, facts: Facts) -> bool:
        """Whether a device is meant; of what is not known of it only ``!=`` holds."""
        return self._holds(facts)


def parse(text: str) -> Selection:
    """Return the selection that ``text`` says; an empty one means every device. Raises ``SelectionError``."""
    if len(text) > MAX_CHARS:
        raise SelectionError(f"an expression of {len(text)} characters: allowed are {MAX_CHARS}")
    if not text.strip():
        return Selection("", lambda _: True)
    parser = _Parser(text)
    holds = parser.expression(0)
    parser.end()
    return Selection(text.strip(), holds)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    sign: bool
    quoted: bool
    at: int


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[_Token] = []
        self._next = 0
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if found is None:
                raise SelectionError(
                    f"'{text[at:].strip()[:20]}' at character {at + 1} of \"{text}\" means nothing here"
                )
            sign, word, *quoted = found.groups()
            begins = found.end() - len(found.group().lstrip())
            value = next(part for part in (sign, word, *quoted) if part is not None)
            self._tokens.append(_Token(value, sign is not None, sign is None and word is None, begins + 1))
            at = found.end()

    def expression(self, depth: int) -> Callable[[Facts], bool]:
        parts = [self._term(depth)]
        while self._take("or"):
            parts.append(self._term(depth))
        return lambda facts: any(part(facts) for part in parts)

    def end(self) -> None:
        if self._next < len(self._tokens):
            token = self._tokens[self._next]
            raise SelectionError(f"'{token.text}' at character {token.at}: join conditions by and, or")

    def _term(self, depth: int) -> Callable[[Facts], bool]:
        parts = [self._factor(depth)]
        while self._take("and"):
            parts.append(self._factor(depth))
        return lambda facts: all(part(facts) for part in parts)

    def _factor(self, depth: int) -> Callable[[Facts], bool]:
        if depth > MAX_DEPTH:
            raise SelectionError(f"parentheses and nots more than {MAX_DEPTH} deep")
        if self._take("not"):
            inner = self._factor(depth + 1)
            return lambda facts: not inner(facts)
        if self._take("(", sign=True):
            inner = self.expression(depth + 1)
            if not self._take(")", sign=True):
                raise SelectionError("a closing parenthesis is missing")
            return inner
        key, sign, value = self._pop("a key"), self._pop("a comparison"), self._pop("a value")
        if key.sign or key.quoted or key.text not in KEYS:
            raise SelectionError(f"'{key.text}' at character {key.at} is no key: there are {', '.join(KEYS)}")
        if not sign.sign or sign.text in "()":
            raise SelectionError(f"'{sign.text}' at character {sign.at}: write one of =, !=, <, <=, >, >=, ~")
        if value.sign:
            raise SelectionError(f"'{value.text}' at character {value.at}: a value is missing")
        return _comparison(key.text, sign.text, value.text)

    def _take(self, text: str, *, sign: bool = False) -> bool:
        if self._next < len(self._tokens):
            token = self._tokens[self._next]
            if (token.text, token.sign, token.quoted) == (text, sign, False):
                self._next += 1
                return True
        return False

    def _pop(self, what: str) -> _Token:
        if self._next >= len(self._tokens):
            raise SelectionError(f"{what} is missing at the end: write such as tag=line-3 and runtime=tflite-runtime")
        self._next += 1
        return self._tokens[self._next - 1]


def _comparison(key: str, sign: str, value: str) -> Callable[[Facts], bool]:
    compare = _COMPARE.get(sign)
    if compare is not None:
        limit = _number(value)
        if limit is None:
            raise SelectionError(f"{key} {sign} '{value}': a number is needed")
        return lambda facts: any(
            number is not None and compare(number, limit) for number in map(_number, _values(facts, key))
        )
    if sign == "~":
        return lambda facts: any(fnmatch.fnmatchcase(str(held), value) for held in _values(facts, key))
    return lambda facts: any(_same(held, value) for held in _values(facts, key)) == (sign == "=")


def _values(facts: Facts, key: str) -> Sequence[str | float]:
    fact = facts.get(key, ())
    return (fact,) if isinstance(fact, str | float | int) else fact


def _same(held: str | float, value: str) -> bool:
    return held == value if isinstance(held, str) else _number(value) == held


def _number(value: str | float) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
