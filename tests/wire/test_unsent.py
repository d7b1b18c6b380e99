"""How many bytes the kernel has not sent: asked in the way of today, and in the older one where that is not known."""

from __future__ import annotations

import errno
import fcntl
import socket
from collections.abc import Iterator

import pytest

from wire.mqtt import SIOCOUTQNSD, _unsent_bytes


@pytest.fixture
def stalled() -> Iterator[socket.socket]:
    """A connection whose other side does not read, filled until it takes no more."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        other, _ = server.accept()
        with other:
            ours.setblocking(False)
            try:
                while True:
                    ours.send(bytes(65536))
            except BlockingIOError:
                yield ours


@pytest.mark.parametrize("code", [None, errno.ENOSYS, errno.ENOTTY])
def test_what_waits_is_seen(stalled: socket.socket, monkeypatch: pytest.MonkeyPatch, code: int | None) -> None:
    real = fcntl.ioctl

    def ioctl(fd: int, request: int, argument: bytes) -> bytes:
        if code is not None and request == SIOCOUTQNSD:
            raise OSError(code, "as an emulated kernel answers")
        return real(fd, request, argument)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    assert _unsent_bytes(stalled) > 65536


def test_a_socket_that_is_gone_is_told(stalled: socket.socket) -> None:
    stalled.close()
    with pytest.raises((OSError, ValueError)):
        _unsent_bytes(stalled)
