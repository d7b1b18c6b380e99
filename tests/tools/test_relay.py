"""The relay over real sockets: bytes arrive whole, an outage stalls or cuts, a full link holds its sender back."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator

import pytest

from tools.relay import Relay
from tools.shaping import LinkShape, Outage

TIMEOUT_S = 20.0


class Echo:
    """A server that sends everything back, and can be told to stop reading."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.reading = threading.Event()
        self.reading.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(peer,), daemon=True).start()

    def _echo(self, peer: socket.socket) -> None:
        with peer:
            try:
                while self.reading.wait(TIMEOUT_S) and (data := peer.recv(65536)):
                    peer.sendall(data)
            except OSError:
                pass


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.listener.shutdown(socket.SHUT_RDWR)
    server.listener.close()


@pytest.fixture
def relay(echo: Echo) -> Iterator[Relay]:
    relay = Relay("127.0.0.1", echo.port, LinkShape(delay_ms=1, jitter_ms=1), seed=1)
    yield relay
    relay.stop()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := sock.recv(65536)):
        data += more
    return data


@pytest.mark.parametrize("link", [LinkShape(), LinkShape(40e6, 40e6, 2, 2)], ids=["unlimited", "shaped"])
def test_bytes_arrive_whole_and_the_end_too(relay: Relay, link: LinkShape) -> None:
    port = relay.start()
    relay.set(link)
    sent = random.Random(1).randbytes(300_000)
    with connect(port) as client:

        def send() -> None:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        assert receive(client, len(sent)) == sent
        assert client.recv(1) == b""
        sender.join()
    assert relay.counters["uplink_bytes"] == relay.counters["downlink_bytes"] == len(sent)


def test_a_cut_cuts_refuses_and_returns(relay: Relay) -> None:
    port = relay.start()
    with connect(port) as client:
        client.sendall(b"before")
        assert receive(client, 6) == b"before"
        relay.outage(True, cut=True)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionResetError), connect(port) as refused:
        refused.recv(1)
    relay.outage(False)
    with connect(port) as client:
        client.sendall(b"after")
        assert receive(client, 5) == b"after"
    assert (relay.counters["cut"], relay.counters["refused"]) == (1, 1)


def test_a_stalled_link_delivers_what_was_sent_once_it_returns(relay: Relay) -> None:
    port = relay.start()
    with connect(port) as client:
        client.sendall(b"a")
        assert receive(client, 1) == b"a"
        relay.outage(True, cut=False)
        client.sendall(b"b")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(TIMEOUT_S)
        relay.outage(False)
        assert receive(client, 1) == b"b"


def test_a_full_link_holds_its_sender_back(relay: Relay, echo: Echo) -> None:
    """What a sender gets rid of, before anything is read, is bounded by the queue and the small kernel buffers."""
    port = relay.start()
    relay.set(LinkShape(uplink_bps=1e3))
    with connect(port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        client.settimeout(0.2)
        taken = 0
        with pytest.raises(TimeoutError):
            while taken < 4_000_000:
                taken += client.send(bytes(16 * 1024))
        assert taken < 400_000


def test_a_schedule_changes_the_link(relay: Relay) -> None:
    port = relay.start()
    with connect(port) as client:
        relay.schedule([(0.0, LinkShape(8e6, 8e6)), (0.01, Outage(True))])
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert relay.down and relay.link == LinkShape(8e6, 8e6)


def test_a_target_that_does_not_listen_resets_the_caller(echo: Echo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        free_port = unused.getsockname()[1]
    relay = Relay("127.0.0.1", free_port, LinkShape(), seed=1)
    with pytest.raises(ConnectionResetError), connect(relay.start()) as client:  # in either call
        client.recv(1)
    relay.stop()
    relay.stop()
    with pytest.raises(RuntimeError, match="stopped"):
        relay.set(LinkShape())
