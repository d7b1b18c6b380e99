"""The metrics server: InfluxDB 1.x, 2.x or 3.x behind one interface of writing lines and asking InfluxQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edge_broker_side.errors import EdgeError


@dataclass(frozen=True, slots=True)
class InfluxSettings:
    """Which server, and as whom. Secrets come from the environment or a file, never from the settings themselves."""

    url: str
    database: str = "splitfleet"
    """The database of 1.x and 3.x, the bucket of 2.x."""
    api: Literal["auto", "v1", "v2"] = "auto"
    """How points are written: v1 is ``/write`` (1.x), v2 is ``/api/v2/write`` (2.x, 3.x); auto asks the server."""
    org: str = ""
    """Of 2.x."""
    username: str | None = None
    """Of 1.x; the password comes as the token does."""
    token_env: str = "SPLITFLEET_INFLUX_TOKEN"
    """Environment variable with the token (or the password, with ``username``)."""
    token_file: str | None = None
    """A file with it, instead."""
    timeout_s: float = 10.0


class InfluxError(EdgeError):
    """The server cannot be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer."""

    tags: Mapping[str, str]
    columns: tuple[str, ...]
    """``time`` (integer, nanoseconds since 1970) is the first."""
    rows: Sequence[Sequence[Any]]
