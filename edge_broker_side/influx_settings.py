"""Which metrics server, and as whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit


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
    ca: str | None = None
    """A file with the certificate of the authority that vouches for an https server of one's own."""
    create_database: bool = False
    """Make the database of a 1.x server where it is missing."""
    timeout_s: float = 10.0
    batch_points: int = 5000
    batch_bytes: int = 2_000_000
    """Of lines, before compression."""
    period_s: float = 1.0
    """Between two looks for new points while fewer than half a batch come."""
    backoff_min_s: float = 1.0
    backoff_max_s: float = 60.0
    """Also the pause after a mistake in settings, such as a wrong token."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.username is not None or parts.password is not None:
            raise ValueError("influx.url holds a password: use username, and token_env or token_file")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"influx.url is '{self.url}': write it like http://127.0.0.1:8086")
        if not self.database:
            raise ValueError("influx.database is empty")
        for name in ("timeout_s", "batch_points", "batch_bytes", "period_s", "backoff_min_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"influx.{name} is {getattr(self, name)}, allowed is more than 0")
        if self.backoff_max_s < self.backoff_min_s:
            raise ValueError(f"influx.backoff_max_s is {self.backoff_max_s}, less than backoff_min_s")
