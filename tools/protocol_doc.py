"""Writes docs/protocol.md from the channel table and the message classes; with ``--check`` only compares."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from wire import messages
from wire.channels import CHANNELS, ROOT, Channel, Role
from wire.tensor import IMAGE_CODECS, TENSOR_CODECS

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "protocol.md"

CODECS: Mapping[str, tuple[str, str]] = {
    "f32": ("float tensor", "32-bit floats"),
    "f16": ("float tensor", "floats rounded to 16 bits; decoded as float32"),
    "q8": ("float tensor", "256 uniform levels between `low` and `high`"),
    "q4": ("float tensor", "16 uniform levels, two per byte, the first in the high bits"),
    "q2": ("float tensor", "4 uniform levels, four per byte, the first in the highest bits"),
    "i8": ("integer tensor", "the integers as they are"),
    "raw8": ("uint8 tensor", "the bytes as they are, not compressed"),
    "jpeg75": ("one RGB frame", "a JPEG file of quality 75"),
    "webp75": ("one RGB frame", "a lossy WebP file of quality 75"),
    "webp50": ("one RGB frame", "a lossy WebP file of quality 50"),
    "png": ("one RGB frame", "a PNG file"),
}

INTRODUCTION = f"""# The protocol between devices and the edge

*Generated from `wire/` by `python -m tools.protocol_doc`; do not edit.*

Everything crosses an MQTT 5 broker. A topic is `{ROOT}/<site>/<name>/<channel>`; `<site>` and `<name>` are 1 to 64
characters of `a-z`, `0-9` and `-`, and `<name>` is the device; for `worker-*` the worker, for `policy-state` and
`shadow` the decision service, for `recorder-state` the recorder, and for `rules` a device or `defaults`, which means
every device.
"""

RULES = """
## Payloads

- A payload is one MessagePack array: the major version, now {major}, then the message's fields in the order listed.
- Positions below count from the start of that array; nested classes are arrays of their own and count from 0.
- `float` is sent as 32 bits (an integer is accepted too) and must be finite; `int` fits 64 bits with sign.
- Map keys are text. Extension types are refused. A payload above its channel's bound is refused unread.
- Whatever is not such a payload is refused and counted by the receiver; it never ends a process.

## How messages evolve

- A new field is appended at the end, with a default: an older sender leaves it out, an older reader ignores it.
- Fields are never removed, reordered, or given another meaning. The same holds for the nested classes.
- What cannot be changed this way raises the major version; a reader refuses every major version but its own.
- The bytes that older releases wrote are kept in `tests/wire/golden` and must decode forever.

## Sending

- QoS 1 is at least once: a message may come twice. Receivers know twins by `session` with `frame`, `batch` or `seq`,
  or by `rev`.
- QoS 0 carries what is worthless when late; it has a message expiry, and loss shows as gaps in the numbers.
- A `session` rises with every start of its sender: what carries an older one is stale.
- Clocks are never compared across machines: `stamp_ns` is echoed to its sender, `at_ms` is information only.
- Workers share `{activation}` through an MQTT 5 shared subscription, with a clean start and no session expiry, and
  ignore what is marked as retained.
- Where a mirror runs, it says {mirrored} again as JSON, on `<topic>/json`
  ([subscribing](subscribing.md)).
"""

LAYOUT = """
Tensors (`f32`, `f16`, `q8`, `q4`, `q2`, `i8`): with more than two axes, the last one (channels) moves behind the
batch axis. Elements of several bytes are little-endian and sent as planes: first all lowest bytes, then all second
ones. The whole is a raw deflate stream (RFC 1951). Level `n` of `q*` is `low + n · (high − low) / (levels − 1)`.
The receiver knows how many elements a plan may bring, and refuses more before it allocates anything."""


def document() -> str:
    """Return the whole document."""
    activation = f"{ROOT}/<site>/+/activation"
    mirrored = ", ".join(f"`{channel.name}`" for channel in CHANNELS.values() if channel.as_json)
    rules = RULES.format(major=messages.MAJOR, activation=activation, mirrored=mirrored)
    parts = [INTRODUCTION, _channel_table(), rules]
    parts.append("\n## Messages\n")
    parts += [_message(channel) for channel in CHANNELS.values()]
    nested, enums = _referenced()
    parts.append("\n## Nested classes\n")
    parts += [_class(cls, first=0, title=f"### {cls.__name__}") for cls in nested]
    parts.append("\n## Words\n\nSent as text.\n")
    parts += [_enum(cls) for cls in enums]
    parts.append(_codec_section())
    return "\n".join(parts).rstrip() + "\n"


def _channel_table() -> str:
    lines = ["## Channels", ""]
    lines += _row("channel", "message", "written by", "read by", "retained", "QoS", "most bytes", "purpose")
    lines += _row(*["---"] * 8)
    for channel in CHANNELS.values():
        lines += _row(
            f"`{channel.name}`",
            f"[{channel.message.__name__}](#{channel.message.__name__.lower()})",
            _roles(channel.writers),
            _roles(channel.readers),
            "yes" if channel.retained else "no",
            channel.qos,
            f"{channel.max_bytes:,}",
            channel.purpose,
        )
    return "\n".join(lines)


def _roles(roles: frozenset[Role]) -> str:
    return ", ".join(role.value for role in Role if role in roles) or "nobody"


def _message(channel: Channel) -> str:
    title = f"### {channel.message.__name__}\n\nChannel `{channel.name}`."
    return _class(channel.message, first=1, title=title)


def _class(cls: type, *, first: int, title: str) -> str:
    hints = typing.get_type_hints(cls)
    told = _field_docs(inspect.getmodule(cls), cls.__name__)
    lines = [title, "", _summary(cls), "", *_row("#", "field", "type", "default", "meaning")]
    lines += _row(*["---"] * 5)
    for position, field in enumerate(dataclasses.fields(cls), first):
        lines += _row(position, f"`{field.name}`", _type(hints[field.name]), _default(field), told.get(field.name, ""))
    return "\n".join(lines) + "\n"


def _enum(cls: type[StrEnum]) -> str:
    words = ", ".join(f"`{member.value}`" for member in cls)
    return f"### {cls.__name__}\n\n{_summary(cls)}\n\n{words}\n"


def _summary(cls: type) -> str:
    return inspect.cleandoc(cls.__doc__ or "").replace("``", "`")


def _codec_section() -> str:
    known = TENSOR_CODECS + IMAGE_CODECS
    if set(known) != set(CODECS):
        raise SystemExit(f"tools/protocol_doc.py describes {sorted(CODECS)}, the code has {sorted(known)}")
    lines = ["", "## Codecs", "", *_row("codec", "takes", "data"), *_row(*["---"] * 3)]
    for name in known:
        lines += _row(f"`{name}`", *CODECS[name])
    lines.append(LAYOUT)
    return "\n".join(lines)


def _referenced() -> tuple[list[type], list[type[StrEnum]]]:
    """Return nested classes and enumerations in the order messages first mention them."""
    nested: list[type] = []
    enums: list[type[StrEnum]] = []

    def visit(cls: type) -> None:
        for hint in typing.get_type_hints(cls).values():
            for leaf in _leaves(hint):
                if isinstance(leaf, type) and issubclass(leaf, StrEnum) and leaf not in enums:
                    enums.append(leaf)
                elif dataclasses.is_dataclass(leaf) and isinstance(leaf, type) and leaf not in nested:
                    nested.append(leaf)
                    visit(leaf)

    for channel in CHANNELS.values():
        visit(channel.message)
    return nested, enums


def _leaves(hint: Any) -> Iterator[Any]:
    arguments = typing.get_args(hint)
    if not arguments:
        yield hint
    for argument in arguments:
        yield from _leaves(argument)


def _type(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_type(argument) for argument in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is Mapping:
        return f"map of {_type(arguments[0])} to {_type(arguments[1])}"
    if dataclasses.is_dataclass(hint) or issubclass(hint, StrEnum):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    plain: dict[Any, str] = {type(None): "nil", str: "text", bytes: "binary", int: "int", float: "float", bool: "bool"}
    return plain[hint]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return "empty"
    if field.default is dataclasses.MISSING:
        return ""
    if field.default is None:
        return "nil"
    if field.default in ((), ""):
        return "empty"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


@cache
def _module_tree(source: str) -> ast.Module:
    return ast.parse(source)


def _field_docs(module: types.ModuleType | None, class_name: str) -> dict[str, str]:
    """Return the text literals behind the fields of a class, by field."""
    assert module is not None
    body = next(
        node.body
        for node in _module_tree(inspect.getsource(module)).body
        if isinstance(node, ast.ClassDef) and node.name == class_name
    )
    docs = {}
    for before, node in itertools.pairwise(body):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(before.target, ast.Name)
            and isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            docs[before.target.id] = " ".join(node.value.value.split()).replace("``", "`")
    return docs


def _row(*cells: object) -> list[str]:
    return ["| " + " | ".join(str(cell) for cell in cells) + " |"]


def main(arguments: list[str]) -> int:
    """Write the document, or with ``--check`` return 1 when it is not up to date."""
    text = document()
    if arguments == ["--check"]:
        if DOCUMENT.is_file() and DOCUMENT.read_text(encoding="utf-8") == text:
            return 0
        sys.stderr.write(f"{DOCUMENT.name} is not up to date: make docs\n")
        return 1
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
