"""Starts a broker set up for splitfleet: mosquitto where it is installed, else the embedded one of ``iotcore``."""

from __future__ import annotations

import ipaddress
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from edge_broker_side.broker_config import (
    BrokerError,
    BrokerSettings,
    BrokerTls,
    has_accounts,
    largest_packet_bytes,
    write_embedded,
    write_mosquitto,
)
from edge_broker_side.broker_log import BrokerLog
from edge_broker_side.refusals import Refusals

__all__ = [
    "INSECURE", "Broker", "BrokerError", "BrokerSettings", "BrokerTls", "attend", "find_mosquitto", "free_port",
    "has_accounts", "largest_packet_bytes", "run", "start_broker",
]  # fmt: skip

log = logging.getLogger(__name__)

MOSQUITTO = "mosquitto"
EMBEDDED = "rumqttd"
START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 10.0
EMBEDDED_LACKS = (
    "messages are not kept for clients that are away",
    "retained decisions and sessions are lost when it restarts",
    "no accounts, no ACL, no TLS: it listens on this machine only",
)
INSECURE = "INSECURE: no certificates, no accounts: whoever reaches this broker may read and forge everything"


class Broker:
    """A running broker process; usable as a context manager."""

    def __init__(
        self,
        kind: str,
        version: str,
        host: str,
        port: int,
        process: subprocess.Popen[bytes],
        watched: Sequence[Path] = (),
        heard: BrokerLog | None = None,
    ) -> None:
        self.kind = kind
        """``mosquitto`` or ``rumqttd``."""
        self.version = version
        self.host = host
        self.port = port
        self._process = process
        self._watched = watched
        self._heard = heard
        self._stamps = self._look()

    @property
    def lacks(self) -> tuple[str, ...]:
        """What this broker cannot do, in words for the user."""
        return EMBEDDED_LACKS if self.kind == EMBEDDED else ()

    @property
    def refused(self) -> Refusals:
        """Attempts that were refused since its folder was made; empty where everybody may do everything."""
        return Counter() if self._heard is None else Counter(self._heard.counts)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def reload_if_changed(self) -> bool:
        """Let mosquitto read accounts, ACL and certificates anew where their files have changed; return whether."""
        stamps = self._look()
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        if self._heard is not None:
            self._heard.reload()
        self._process.send_signal(signal.SIGHUP)
        return True

    def _look(self) -> list[tuple[int, int] | None]:
        def stamp(path: Path) -> tuple[int, int] | None:
            try:
                found = path.stat()
            except OSError:
                return None
            return found.st_mtime_ns, found.st_ino

        return [stamp(path) for path in self._watched]

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
        if self._heard is not None:
            self._heard.close()

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
    if not has_accounts(settings) and not _is_loopback(settings.host) and not settings.insecure:
        raise BrokerError(
            f"a broker without accounts listens on this machine only, not on {settings.host}: "
            "give a password_file (made by mosquitto_passwd) or tls.client_ca"
        )
    if settings.register is not None:
        _refresh(Path(settings.register))
    port = settings.port or free_port(settings.host)
    _check_port(settings.host, port)
    folder = Path(settings.folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if mosquitto is not None:
        command = [*tether(), mosquitto, "-c", str(write_mosquitto(settings, folder, port))]
        return _launch(settings, MOSQUITTO, _version_of(mosquitto), port, command)
    command = [sys.executable, "-m", "edge_broker_side.embedded", str(write_embedded(settings, folder, port))]
    return _launch(settings, EMBEDDED, "", port, command)


def run(settings: BrokerSettings, stop: threading.Event) -> None:
    """Run a broker until ``stop`` is set; raises ``BrokerError`` when it dies before."""
    if not has_accounts(settings):
        log.warning("%s (it listens on %s)", INSECURE, settings.host)
    with start_broker(settings) as broker:
        attend(broker, stop)


def attend(broker: Broker, stop: threading.Event) -> None:
    """Keep a broker until ``stop`` is set, telling it of changed accounts; raises ``BrokerError`` when it dies."""
    while not stop.is_set():
        if not broker.alive:
            raise BrokerError(f"{broker} ended by itself: see its log")
        broker.reload_if_changed()
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


def _launch(settings: BrokerSettings, kind: str, version: str, port: int, command: list[str]) -> Broker:
    guarded = kind == MOSQUITTO and has_accounts(settings)
    file: IO[bytes] | None = Path(settings.log_file).open("ab") if settings.log_file else None  # noqa: SIM115
    try:
        # Its own session: a Ctrl-C at the terminal is for us, who stop the broker after its clients.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.PIPE if guarded else file,
            start_new_session=True,
        )
    finally:
        if file is not None:
            file.close()
    heard = None
    if guarded and process.stderr is not None:
        acl = Path(settings.acl_file) if settings.acl_file else None
        heard = BrokerLog(process.stderr, settings.log_file, Path(settings.folder), acl)
    watched = _watched(settings) if kind == MOSQUITTO else ()
    broker = Broker(kind, version, settings.host, port, process, watched, heard)
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


def _refresh(folder: Path) -> None:
    """Bring the site's ACL up to date with the channel table: an update of ours may have brought channels."""
    from edge_broker_side.identity.register import SiteRegister  # most brokers need no certificates' library

    if SiteRegister(folder).refresh():
        log.info("the ACL of %s is up to date with the channel table again", folder)


def _watched(settings: BrokerSettings) -> list[Path]:
    """Return the files that mosquitto reads again when it is told to."""
    tls = settings.tls
    named = [settings.password_file, settings.acl_file]
    named += [tls.certificate, tls.key, tls.client_ca, tls.revoked] if tls else []
    return [Path(name) for name in named if name]


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


def _version_of(mosquitto: str) -> str:
    told = subprocess.run([mosquitto, "-h"], capture_output=True, text=True, check=False).stdout.split()
    return told[2] if len(told) > 2 and told[1] == "version" else ""
