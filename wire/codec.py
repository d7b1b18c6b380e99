"""Messages to bytes and back: msgpack arrays, checked field by field against the dataclass."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

import msgpack

from wire.channels import Channel
from wire.errors import PayloadError
from wire.messages import MAJOR

M = TypeVar("M")
Unpack = Callable[[Any], Any]
INT_MIN, INT_MAX = -(2**63), 2**63 - 1


_PLAIN = frozenset({str, bytes, bool, type(None)})


class _Mismatch(Exception):
    """A value that does not fit its field; carries the words for the PayloadError."""


def encode(channel: Channel, message: object) -> bytes:
    """Return the payload of a message; raises ``PayloadError`` for a wrong type or one beyond the channel's size."""
    if type(message) is not channel.message:
        raise PayloadError(channel.name, f"a {type(message).__name__} is not sent here")
    try:
        payload: bytes = msgpack.packb([MAJOR, *_flatten(message)], use_bin_type=True, use_single_float=True)
    except (ValueError, OverflowError, TypeError) as error:
        raise PayloadError(channel.name, f"cannot be packed: {error}") from error
    if len(payload) > channel.max_bytes:
        raise PayloadError(channel.name, f"{len(payload)} bytes, the channel allows {channel.max_bytes}")
    return payload


def decode(channel: Channel, payload: bytes) -> Any:
    """Return the message (of type ``channel.message``) in a payload; anything else raises ``PayloadError``.

    Sizes are checked before anything is allocated, depth by the shape of the message; unknown trailing fields are
    ignored.
    """
    if len(payload) > channel.max_bytes:
        raise PayloadError(channel.name, f"{len(payload)} bytes, the channel allows {channel.max_bytes}")
    try:
        raw = msgpack.unpackb(payload, raw=False, strict_map_key=True, use_list=False)
    except (ValueError, msgpack.UnpackException, RecursionError, MemoryError, TypeError) as error:
        raise PayloadError(channel.name, f"not msgpack: {error}") from error
    if not isinstance(raw, tuple) or not raw or type(raw[0]) is not int:
        raise PayloadError(channel.name, "not an array behind a version")
    if raw[0] != MAJOR:
        raise PayloadError(channel.name, f"version {raw[0]}, this release reads {MAJOR}")
    try:
        return _dataclass_unpacker(channel.message)(raw[1:])
    except _Mismatch as error:
        raise PayloadError(channel.name, str(error)) from error


def _flatten(value: object) -> Any:
    """Turn dataclasses into arrays, recursively; refuses numbers that ``decode`` would refuse."""
    kind: type = type(value)
    if kind in _PLAIN or (kind is float and math.isfinite(value)):  # type: ignore[arg-type]  # most leaves: for speed
        return value
    names = _field_names(kind)
    if names is not None:
        return [_flatten(getattr(value, name)) for name in names]
    if isinstance(value, str | bytes):
        return str(value) if isinstance(value, StrEnum) else value
    if isinstance(value, int | float):
        fits = math.isfinite(value) if isinstance(value, float) else INT_MIN <= value <= INT_MAX
        if not fits:
            raise ValueError(f"{value} is not a number a message may carry")
        return value
    if isinstance(value, tuple):
        return [_flatten(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _flatten(item) for key, item in value.items()}
    return value


@cache
def _field_names(cls: type) -> tuple[str, ...] | None:
    return tuple(f.name for f in fields(cls)) if is_dataclass(cls) else None


@cache
def _dataclass_unpacker(cls: type) -> Unpack:
    hints = typing.get_type_hints(cls)
    readers = [(f.name, _unpacker(hints[f.name])) for f in fields(cls)]
    needed = sum(1 for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING)

    def unpack(raw: Any) -> Any:
        if not isinstance(raw, tuple):
            raise _Mismatch(f"{cls.__name__} is not an array")
        if len(raw) < needed:
            raise _Mismatch(f"{cls.__name__} has {len(raw)} fields, at least {needed} are needed")
        values = {}
        for (name, read), item in zip(readers, raw, strict=False):
            try:
                values[name] = read(item)
            except _Mismatch as error:
                raise _Mismatch(f"{name}: {error}") from None
        return cls(**values)

    return unpack


@cache
def _unpacker(hint: Any) -> Unpack:
    """Return the reader of one field's type; the few types that messages use."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        inner = _unpacker(next(a for a in args if a is not type(None)))
        return lambda raw: None if raw is None else inner(raw)
    if origin is tuple:
        return _sequence(args)
    if origin is Mapping:
        return _mapping(_unpacker(args[0]), _unpacker(args[1]))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _enum(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return _dataclass_unpacker(hint)
    return _LEAVES[hint]


def _sequence(args: tuple[Any, ...]) -> Unpack:
    inner = _unpacker(args[0])

    def unpack(raw: Any) -> Any:
        if not isinstance(raw, tuple):
            raise _Mismatch(f"{type(raw).__name__} where an array belongs")
        return tuple(inner(item) for item in raw)

    return unpack


def _mapping(key: Unpack, value: Unpack) -> Unpack:
    def unpack(raw: Any) -> Any:
        if not isinstance(raw, dict):
            raise _Mismatch(f"{type(raw).__name__} where a map belongs")
        return {key(k): value(v) for k, v in raw.items()}

    return unpack


def _enum(cls: type[StrEnum]) -> Unpack:
    def unpack(raw: Any) -> Any:
        try:
            return cls(raw)
        except ValueError:
            raise _Mismatch(f"not one of {', '.join(cls)}") from None

    return unpack


def _exactly(kind: type) -> Unpack:
    def unpack(raw: Any) -> Any:
        if type(raw) is not kind:
            raise _Mismatch(f"{type(raw).__name__} where {kind.__name__} belongs")
        return raw

    return unpack


def _int(raw: Any) -> int:
    if type(raw) is not int or not INT_MIN <= raw <= INT_MAX:
        raise _Mismatch(f"{type(raw).__name__} where a 64-bit int belongs")
    return raw


def _float(raw: Any) -> float:
    if type(raw) not in (float, int) or not math.isfinite(raw):
        raise _Mismatch("not a finite number")
    return float(raw)


_LEAVES: dict[Any, Unpack] = {
    int: _int,
    float: _float,
    str: _exactly(str),
    bytes: _exactly(bytes),
    bool: _exactly(bool),
}
