"""Settings files: TOML into dataclasses, refusing what is unknown or mistyped by key, value and what is allowed."""

from __future__ import annotations

import tomllib
import types
import typing
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import dacite

from wire.errors import WireError

S = TypeVar("S")


class SettingsError(WireError):
    """A settings file cannot be used; the message names file, key, value and what is allowed."""


def load_settings(cls: type[S], path: Path) -> S:
    """Read a TOML file into ``cls``; raises ``SettingsError``."""
    try:
        with path.open("rb") as file:
            raw = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    return settings_from(cls, raw, str(path))


def settings_from(cls: type[S], raw: dict[str, Any], origin: str) -> S:
    """Check a parsed document against ``cls``; raises ``SettingsError`` naming ``origin``.

    Ranges are checked by the dataclasses themselves: a ``ValueError`` from ``__post_init__`` is passed on with the
    file's name.
    """
    config = dacite.Config(strict=True, type_hooks={float: _whole_as_float}, cast=[tuple, Path])
    try:
        _check_kinds(cls, raw, origin, "")
        return dacite.from_dict(cls, raw, config)
    except SettingsError:
        raise
    except dacite.UnexpectedDataError as error:
        raise SettingsError(_unknown(cls, raw, sorted(error.keys), origin)) from error
    except dacite.WrongTypeError as error:
        raise _mistyped(origin, str(error.field_path), error.value, error.field_type) from error
    except dacite.MissingValueError as error:
        raise SettingsError(f"{origin}: {error.field_path} is missing") from error
    except (dacite.DaciteError, ValueError, TypeError) as error:
        raise SettingsError(f"{origin}: {error}") from error


def _check_kinds(cls: type, raw: dict[str, Any], origin: str, where: str) -> None:
    """Refuse what Python would let pass: true for a number, one text for a list of texts."""
    hints = typing.get_type_hints(cls)
    for name in hints.keys() & raw.keys():
        hint, value = hints[name], raw[name]
        kinds = [k for k in (hint, *typing.get_args(hint)) if k is not type(None)]
        inner = next((k for k in kinds if isinstance(k, type) and is_dataclass(k)), None)
        if inner is not None and isinstance(value, dict):
            _check_kinds(inner, value, origin, f"{where}{name}.")
            continue
        no_list = any(typing.get_origin(k) is tuple for k in kinds) and not isinstance(value, list)
        if no_list or (isinstance(value, bool) and bool not in kinds):
            raise _mistyped(origin, where + name, value, hint)


def _mistyped(origin: str, key: str, value: object, hint: Any) -> SettingsError:
    return SettingsError(f"{origin}: {key} = {value!r} is not {_words(hint)}")


def _unknown(cls: type, raw: dict[str, Any], keys: list[str], origin: str) -> str:
    """Find the table that holds an unknown key, to name the keys it may have."""
    for key in keys:
        found = _table_with(cls, raw, key, "")
        if found:
            where, value, allowed = found
            return f"{origin}: unknown setting {where}{key} = {value!r}; allowed are {', '.join(allowed)}"
    return f"{origin}: unknown setting {', '.join(keys)}"


def _table_with(cls: type, raw: dict[str, Any], key: str, where: str) -> tuple[str, Any, list[str]] | None:
    names = [f.name for f in fields(typing.cast(Any, cls))]
    if key in raw and key not in names:
        return where, raw[key], names
    hints = typing.get_type_hints(cls)
    for name in names:
        inner = next((t for t in (hints[name], *typing.get_args(hints[name])) if is_dataclass(t)), None)
        if isinstance(inner, type) and isinstance(raw.get(name), dict):
            found = _table_with(inner, raw[name], key, f"{where}{name}.")
            if found:
                return found
    return None


def _whole_as_float(value: Any) -> Any:
    """TOML writes 5 for 5.0; anything else stays to be refused."""
    return float(value) if type(value) is int else value


def _words(hint: Any) -> str:
    """Say a type as a person writes it."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(a) for a in args)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_words(a) for a in args if a is not type(None))
    if origin is tuple:
        return f"a list of {_words(args[0])}"
    plain = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path"}
    return plain.get(hint, getattr(hint, "__name__", str(hint)))
