"""What `splitfleet dashboard` is told: where the broker is, where it listens, and who may look."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from wire.channels import check_name
from wire.errors import WireError
from wire.link import LinkSettings

LEAST_PASSWORD = 8
"""Characters."""


class DashboardError(WireError):
    """The dashboard cannot be served; the message says what to do."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Certificate chain and key that browsers are shown, as PEM files."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class DashboardSettings:
    """One dashboard of one site."""

    site: str = "default"
    link: LinkSettings = field(default_factory=LinkSettings)
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8080
    """0: any free one."""
    password_file: str | None = None
    """Its text is what visitors must know; needed wherever others than this machine can reach the page."""
    tls: ServerTls | None = None
    log_level: str = "warning"

    def __post_init__(self) -> None:
        check_name(self.site, "site")
        if not 0 <= self.port < 65536:
            raise WireError(f"port is {self.port}, allowed is 0 to 65535")
        if self.password_file is None and not is_loopback(self.host):
            raise DashboardError(
                f"host {self.host} can be reached by others than this machine: name a file with a password "
                "(--password-file, or password_file in the settings), or leave the host at 127.0.0.1"
            )


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``; a name that is not ``localhost`` may be anything."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_password(path: str) -> str:
    """Return the password in a file; raises ``DashboardError`` for one that protects nothing."""
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise DashboardError(f"cannot read password_file {path}: {reason}") from error
    if len(text) < LEAST_PASSWORD:
        raise DashboardError(f"the password in {path} has {len(text)} characters: use {LEAST_PASSWORD} or more")
    return text
