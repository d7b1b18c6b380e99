"""Starts a broker set up for splitfleet: mosquitto where it is installed, else the embedded one of ``iotcore``."""

from __future__ import annotations

import importlib.resources
import importlib.util
import ipaddress
import os
import pwd
import shutil
import signal
import socket
import string
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from edge_broker_side.errors import EdgeError
from wire.channels import CHANNELS

MOSQUITTO = "mosquitto"
EMBEDDED = "rumqttd"
PACKET_OVERHEAD_BYTES = 64 * 1024
"""Topic and properties, on top of the largest payload of any channel."""
START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 10.0
EMBEDDED_LACKS = (
    "messages are not kept for clients that are away",
    "retained decisions and sessions are lost when it restarts",
    "no accounts, no ACL, no TLS: it listens on this machine only",
)


class BrokerError(EdgeError):
    """The broker cannot be started as asked."""


@dataclass(frozen=True, slots=True)
class BrokerTls:
    """The broker's certificates, as PEM files."""

    certificate: str
    key: str
    client_ca: str | None = None
    """When given, clients must show a certificate of this authority; its common name is then their account."""


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


class Broker:
    """A running broker process; usable as a context manager."""

    def __init__(self, kind: str, version: str, host: str, port: int, process: subprocess.Popen[bytes]) -> None:
        self.kind = kind
        """``mosquitto`` or ``rumqttd``."""
        self.version = version
        self.host = host
        self.port = port
        self._process = process

    @property
    def lacks(self) -> tuple[str, ...]:
        """What this broker cannot do, in words for the user."""
        return EMBEDDED_LACKS if self.kind == EMBEDDED else ()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it in good order (mosquitto writes what it keeps); safe to call twice."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(how)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __str__(self) -> str:
        return f"{self.kind} {self.version} on {self.host}:{self.port}".replace("  ", " ")


def start_broker(settings: BrokerSettings) -> Broker:
    """Start a broker and return once it takes connections; raises ``BrokerError`` saying what to do."""
    mosquitto = find_mosquitto() if settings.kind != "embedded" else None
    if settings.kind == "mosquitto" and mosquitto is None:
        raise BrokerError("mosquitto is not installed: apt-get install mosquitto, or use the embedded broker")
    open_to_all = settings.password_file is None and (settings.tls is None or settings.tls.client_ca is None)
    if open_to_all and not _is_loopback(settings.host):
        raise BrokerError(
            f"a broker without accounts listens on this machine only, not on {settings.host}: "
            "give a password_file (made by mosquitto_passwd) or tls.client_ca"
        )
    port = settings.port or free_port(settings.host)
    _check_port(settings.host, port)
    folder = Path(settings.folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if mosquitto is not None:
        command = [*tether(), mosquitto, "-c", str(_write_mosquitto(settings, folder, port))]
        return _launch(settings, MOSQUITTO, _version_of(mosquitto), port, command)
    command = [sys.executable, "-m", "edge_broker_side.embedded", str(_write_embedded(settings, folder, port))]
    return _launch(settings, EMBEDDED, "", port, command)


def run(settings: BrokerSettings, stop: threading.Event) -> None:
    """Run a broker until ``stop`` is set; raises ``BrokerError`` when it dies before."""
    with start_broker(settings) as broker:
        while not stop.is_set():
            if not broker.alive:
                raise BrokerError(f"{broker} ended by itself: see its log")
            time.sleep(0.2)


def find_mosquitto() -> str | None:
    """Return the path of mosquitto; Debian puts it into ``/usr/sbin``, which is not on every user's path."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    return shutil.which("mosquitto", path=path)


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port nobody listens on now."""
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _write_mosquitto(settings: BrokerSettings, folder: Path, port: int) -> Path:
    accounts = settings.password_file is not None or _client_ca(settings) is not None
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
    return _fill(
        "mosquitto.conf",
        folder,
        port=port,
        host=settings.host,
        user=pwd.getpwuid(os.geteuid()).pw_name,
        access="\n".join(access),
        tls="\n".join(tls),
        folder=folder,
        log=f"file {Path(settings.log_file).absolute()}" if settings.log_file else "stderr",
        max_connections=settings.max_connections,
        max_inflight=settings.max_inflight,
        max_queued_messages=settings.max_queued_messages,
        max_queued_bytes=settings.max_queued_bytes,
        autosave_s=settings.autosave_s,
        max_packet_bytes=largest_packet_bytes(),
    )


def _write_embedded(settings: BrokerSettings, folder: Path, port: int) -> Path:
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


def largest_packet_bytes() -> int:
    """Return the size of the largest packet that any channel may need."""
    return max(channel.max_bytes for channel in CHANNELS.values()) + PACKET_OVERHEAD_BYTES


def _fill(template: str, into: Path, **values: object) -> Path:
    text = importlib.resources.files("edge_broker_side").joinpath(template).read_text(encoding="utf-8")
    path = into / template
    path.write_text(string.Template(text).substitute(values), encoding="utf-8")
    return path


def _launch(settings: BrokerSettings, kind: str, version: str, port: int, command: list[str]) -> Broker:
    log: IO[bytes] | None = Path(settings.log_file).open("ab") if settings.log_file else None  # noqa: SIM115
    try:
        # Its own session: a Ctrl-C at the terminal is for us, who stop the broker after its clients.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)
    finally:
        if log is not None:
            log.close()
    broker = Broker(kind, version, settings.host, port, process)
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        code = process.poll()
        if code is not None:
            broker.stop()
            where = settings.log_file or "stderr above"
            raise BrokerError(f"{kind} ended at start with code {code}: see {where} and {command[-1]}")
        if _accepts(settings.host, port):
            return broker
        time.sleep(0.01)
    broker.kill()
    raise BrokerError(f"{kind} takes no connections on {settings.host}:{port} after {START_TIMEOUT_S:.0f} s")


def tether() -> list[str]:
    """Return the prefix that ends a program when we die, however that is; the embedded broker watches its stdin."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []


def _check_port(host: str, port: int) -> None:
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BrokerError(
                f"cannot listen on {host}:{port} ({error.strerror}): stop what uses it, or choose another port"
            ) from error


def _accepts(host: str, port: int) -> bool:
    try:
        with socket.create_connection((_reachable(host), port), timeout=1.0):
            return True
    except OSError:
        return False


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _client_ca(settings: BrokerSettings) -> str | None:
    return settings.tls.client_ca if settings.tls else None


def _existing(path: str, setting: str) -> Path:
    if not Path(path).is_file():
        raise BrokerError(f"{setting}: {path} is not there")
    return Path(path).absolute()


def _version_of(mosquitto: str) -> str:
    told = subprocess.run([mosquitto, "-h"], capture_output=True, text=True, check=False).stdout.split()
    return told[2] if len(told) > 2 and told[1] == "version" else ""
