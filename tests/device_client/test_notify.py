"""What the client says to systemd, over a real socket as systemd opens it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_client.notify import Notifier
from tests.device_client.test_process import ROOT, write_settings


@pytest.fixture
def service(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as held:
        held.bind(str(tmp_path / "notify"))
        held.settimeout(60)
        yield held


def environment(service: socket.socket, watchdog_us: str = "8000000") -> dict[str, str]:
    return {"NOTIFY_SOCKET": service.getsockname(), "WATCHDOG_USEC": watchdog_us}


def test_the_life_of_a_service(service: socket.socket) -> None:
    notifier = Notifier(environment(service))
    notifier.ready()
    for now_s in (100.0, 101.9, 102.0, 103.9, 110.0):
        notifier.alive(now_s, lambda: f"at {now_s:g}")  # noqa: B023
    notifier.stopping()
    said = [service.recv(4096) for _ in range(5)]
    alive = [f"WATCHDOG=1\nSTATUS=at {now_s}".encode() for now_s in (100, 102, 110)]
    assert said == [b"READY=1", *alive, b"STOPPING=1"]


def test_an_abstract_address() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as held:
        held.bind("")
        held.settimeout(60)
        Notifier({"NOTIFY_SOCKET": "@" + held.getsockname()[1:].decode()}).ready()
        assert held.recv(4096) == b"READY=1"


@pytest.mark.parametrize("told", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/notify"}])
def test_nobody_listens(told: dict[str, str]) -> None:
    notifier = Notifier(told)
    notifier.ready()
    notifier.alive(1.0, lambda: "well")
    notifier.stopping()


def test_a_full_socket_holds_nothing_up(service: socket.socket) -> None:
    notifier = Notifier(environment(service))
    for now_s in range(0, 10_000, 10):
        notifier.alive(now_s, lambda: "x" * 1000)


def test_a_client_says_that_it_works_and_that_it_ends(
    service: socket.socket, tmp_path: Path, site: str, models: Path, pack: Path
) -> None:
    settings = write_settings(tmp_path, site, models, pack, port=None)
    command = [sys.executable, "-m", "device_client", str(settings)]
    told = {**os.environ, **environment(service, "20000")}
    with subprocess.Popen(command, env=told, cwd=ROOT, stderr=subprocess.DEVNULL) as child:
        assert service.recv(4096) == b"READY=1"
        first, second = service.recv(4096).decode(), service.recv(4096).decode()
        assert first.startswith("WATCHDOG=1\nSTATUS=") and second.startswith("WATCHDOG=1\nSTATUS=")
        assert "offline" in second
        child.send_signal(signal.SIGTERM)
        while (said := service.recv(4096)) != b"STOPPING=1":
            assert said.startswith(b"WATCHDOG=1\n")
        assert child.wait(30) == 0
