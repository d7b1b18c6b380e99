"""What a link is told and what it tells: settings, subscriptions and events, apart from any client library."""

from __future__ import annotations

from dataclasses import dataclass

from wire.errors import WireError


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Certificates of the link, as PEM files; the client pair is for mutual TLS."""

    ca: str
    certificate: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Where the broker is and how to keep to it."""

    host: str = "127.0.0.1"
    port: int = 1883
    keepalive_s: int = 15
    session_expiry_s: int = 300
    """How long the broker keeps our subscriptions and queue after we vanish; 0: not at all."""
    receive_maximum: int = 1000
    connect_timeout_s: float = 5.0
    backoff_min_s: float = 0.2
    backoff_max_s: float = 30.0
    qos0_outbox_bytes: int = 5 * 1024 * 1024
    qos1_outbox_bytes: int = 4 * 1024 * 1024
    username: str | None = None
    password_file: str | None = None
    tls: TlsSettings | None = None

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise WireError(f"port is {self.port}, allowed is 1 to 65535")
        if not 0 < self.backoff_min_s <= self.backoff_max_s:
            raise WireError("backoff_min_s must be above 0 and at most backoff_max_s")
        if not 0 < self.connect_timeout_s <= 3600:
            raise WireError(f"connect_timeout_s is {self.connect_timeout_s}, allowed is above 0 to 3600")
        for key, least, most in (
            ("keepalive_s", 1, 65535),  # 0 would mean that a dead peer is never noticed
            ("session_expiry_s", 0, 2**32 - 1),
            ("receive_maximum", 1, 65535),
            ("qos0_outbox_bytes", 1, 2**40),
            ("qos1_outbox_bytes", 1, 2**40),
        ):
            if not least <= getattr(self, key) <= most:
                raise WireError(f"{key} is {getattr(self, key)}, allowed is {least} to {most}")


@dataclass(frozen=True, slots=True)
class Subscription:
    """A filter to hold while connected; ``no_local`` keeps our own publications from coming back."""

    filter: str
    qos: int
    no_local: bool = False


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker accepted us and every subscription."""

    session_present: bool
    max_packet_bytes: int


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """The broker has let go of every subscription: nothing more will come."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone; the link is trying again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Received:
    """A publication of somebody else, stamped on arrival by our monotonic clock."""

    topic: str
    payload: bytes
    arrived_ns: int
    retained: bool


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The broker has our QoS 1 publication; ``idle_link`` tells that nothing of ours was on its way before it."""

    token: int
    size: int
    elapsed_ms: float
    idle_link: bool


@dataclass(frozen=True, slots=True)
class NotSent:
    """A publication that will never be sent, and why (``evicted``, ``expired``, ``disconnected``)."""

    token: int
    reason: str
