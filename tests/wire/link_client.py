"""A link with its inbox and everything that ever came out of it, and a bare server that misbehaves as told."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from wire.inbox import Inbox
from wire.link import LinkSettings
from wire.mqtt import Link

E = TypeVar("E")
PATIENCE_S = 30.0
QUICK = {"backoff_min_s": 0.02, "backoff_max_s": 0.1, "connect_timeout_s": 5.0}


def quick(port: int, **more: Any) -> LinkSettings:
    """Return settings that try again at once."""
    return LinkSettings(port=port, **{**QUICK, **more})


class Client:
    """Starts a link on entering; collects its events; stops it on leaving."""

    def __init__(self, settings: LinkSettings, name: str, *, inbox: Inbox | None = None, **more: Any) -> None:
        self.inbox = inbox or Inbox()
        self.events: list[Any] = []
        self.link = Link(settings, name, self.inbox, rng=random.Random(1), **more)

    def __enter__(self) -> Client:
        self.link.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.link.stop(drain_s=0)

    def seen(self, kind: type[E]) -> list[E]:
        """Return the events of a kind that came so far."""
        return [event for event in self.events if isinstance(event, kind)]

    def wait(self, kind: type[E], count: int = 1) -> list[E]:
        """Return the events of a kind once there are ``count`` of them; fails when they stay away."""
        self.wait_until(lambda: len(self.seen(kind)) >= count, f"{count} {kind.__name__}")
        return self.seen(kind)

    def wait_until(self, reached: Callable[[], bool], what: str) -> None:
        """Take events until ``reached``."""
        while not reached():
            events = self.inbox.take(PATIENCE_S)
            assert events, f"{what} stayed away; there were {self.events[-20:]} and {dict(self.link.counters)}"
            self.events += events


class BareServer:
    """Accepts one connection at a time, sends ``greeting`` for CONNECT, and then reads only when told to."""

    def __init__(self, *greetings: bytes) -> None:
        self._greetings = list(greetings)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        self.port: int = self._listener.getsockname()[1]
        self.peers: list[socket.socket] = []
        self.greeted = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for greeting in self._greetings:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.peers.append(peer)
            peer.recv(4096)
            peer.sendall(greeting)
            self.greeted.release()

    def read_until(self, marker: bytes) -> bytes:
        """Return what the newest peer sent, up to and with ``marker``."""
        assert self.greeted.acquire(timeout=PATIENCE_S)
        peer = self.peers[-1]
        peer.settimeout(PATIENCE_S)
        data = b""
        while marker not in data:
            more = peer.recv(65536)
            assert more, "the link hung up"
            data += more
        return data[: data.index(marker) + len(marker)]

    def close(self) -> None:
        """Hang up."""
        for sock in (self._listener, *self.peers):
            sock.close()
