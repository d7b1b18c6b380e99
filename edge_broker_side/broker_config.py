"""What a broker is told: its settings, and the configuration file that follows from them."""

from __future__ import annotations

import importlib.resources
import importlib.util
import os
import pwd
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_broker_side.errors import EdgeError
from wire.channels import CHANNELS

PACKET_OVERHEAD_BYTES = 64 * 1024
"""Topic and properties, on top of the largest payload of any channel."""


class BrokerError(EdgeError):
    """The broker cannot be started as asked."""


@dataclass(frozen=True, slots=True)
class BrokerTls:
    """The broker's certificates, as PEM files."""

    certificate: str
    key: str
    client_ca: str | None = None
    """When given, clients must show a certificate of this authority; its common name is then their account."""
    revoked: str | None = None
    """A list of its certificates that no longer hold (CRL)."""


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where the broker listens, whom it lets in, and its bounds."""

    folder: str
    """Where it keeps its configuration and what survives a restart."""
    host: str = "127.0.0.1"
    port: int = 1883
    """0: any free port."""
    kind: Literal["auto", "mosquitto", "embedded"] = "auto"
    password_file: str | None = None
    """Accounts, as written by ``mosquitto_passwd``; without one everybody is let in, on loopback only."""
    acl_file: str | None = None
    register: str | None = None
    """The site's folder: its ACL is brought up to date with the channel table at every start."""
    insecure: bool = False
    """Listen beyond this machine although everybody is let in: a plain site on a network that is trusted whole."""
    tls: BrokerTls | None = None
    log_file: str | None = None
    """None: the broker's messages go to stderr."""
    max_connections: int = 2000
    max_inflight: int = 100
    max_queued_messages: int = 100_000
    max_queued_bytes: int = 256 * 1024 * 1024
    """Per client that is away or slow."""
    autosave_s: int = 5
    """Seconds between two writes of all that is retained or queued to disk.

    Each write is of everything: doing it at every change instead cut the rate of QoS 1 messages to a tenth.
    What a power cut may lose is told again: devices keep their decision, the policy publishes what is missing.
    """
    log_level: str = "info"

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ValueError(f"port is {self.port}, allowed is 0 (any free one) to 65535")
        for name in ("max_connections", "max_inflight", "max_queued_messages", "max_queued_bytes", "autosave_s"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, allowed is 1 and more")


def write_mosquitto(settings: BrokerSettings, folder: Path, port: int) -> Path:
    """Write mosquitto's configuration file and return its path; raises ``BrokerError`` for a file that is missing."""
    accounts = has_accounts(settings)
    # The account is the client's id: under a free one, anybody could end the session of anybody and empty its queue.
    access = ["allow_anonymous false", "use_username_as_clientid true"] if accounts else ["allow_anonymous true"]
    if settings.password_file:
        access.append(f"password_file {_existing(settings.password_file, 'password_file')}")
    if settings.acl_file:
        access.append(f"acl_file {_existing(settings.acl_file, 'acl_file')}")
    tls = []
    if settings.tls:
        tls += [
            f"certfile {_existing(settings.tls.certificate, 'tls.certificate')}",
            f"keyfile {_existing(settings.tls.key, 'tls.key')}",
            "tls_version tlsv1.2",
        ]
        if settings.tls.client_ca:
            tls += [
                f"cafile {_existing(settings.tls.client_ca, 'tls.client_ca')}",
                "require_certificate true",
                "use_identity_as_username true",
            ]
        if settings.tls.revoked:
            tls.append(f"crlfile {_existing(settings.tls.revoked, 'tls.revoked')}")
    return _fill(
        "mosquitto.conf",
        folder,
        port=port,
        host=settings.host,
        user=pwd.getpwuid(os.geteuid()).pw_name,
        access="\n".join(access),
        tls="\n".join(tls),
        folder=folder,
        # With accounts we read what it says ourselves: of refusals it tells in its debug messages alone.
        log=f"file {Path(settings.log_file).absolute()}" if settings.log_file and not accounts else "stderr",
        more="log_type debug\nlog_type subscribe\nconnection_messages true"
        if accounts
        else "connection_messages false",
        max_connections=settings.max_connections,
        max_inflight=settings.max_inflight,
        max_queued_messages=settings.max_queued_messages,
        max_queued_bytes=settings.max_queued_bytes,
        autosave_s=settings.autosave_s,
        max_packet_bytes=largest_packet_bytes(),
    )


def write_embedded(settings: BrokerSettings, folder: Path, port: int) -> Path:
    """Write the embedded broker's configuration file and return its path; raises ``BrokerError`` for what it cannot."""
    if importlib.util.find_spec("iotcore") is None:
        raise BrokerError("neither mosquitto nor the embedded broker is installed: apt-get install mosquitto")
    if settings.password_file or settings.acl_file or settings.tls:
        raise BrokerError("the embedded broker has no accounts, ACL or TLS: apt-get install mosquitto")
    return _fill(
        "rumqttd.toml",
        folder,
        listen=f"[{settings.host}]:{port}" if ":" in settings.host else f"{settings.host}:{port}",
        max_connections=settings.max_connections,
        max_inflight=settings.max_inflight,
        max_packet_bytes=largest_packet_bytes(),
    )


def has_accounts(settings: BrokerSettings) -> bool:
    """Whether clients must prove who they are."""
    return settings.password_file is not None or _client_ca(settings) is not None


def largest_packet_bytes() -> int:
    """Return the size of the largest packet that any channel may need."""
    return max(channel.max_bytes for channel in CHANNELS.values()) + PACKET_OVERHEAD_BYTES


def _fill(template: str, into: Path, **values: object) -> Path:
    text = importlib.resources.files("edge_broker_side").joinpath(template).read_text(encoding="utf-8")
    path = into / template
    path.write_text(string.Template(text).substitute(values), encoding="utf-8")
    return path


def _client_ca(settings: BrokerSettings) -> str | None:
    return settings.tls.client_ca if settings.tls else None


def _existing(path: str, setting: str) -> Path:
    if not Path(path).is_file():
        raise BrokerError(f"{setting}: {path} is not there")
    return Path(path).absolute()
