"""The MQTT link against a server that misbehaves: bounds hold, nothing is silent, the thread lives."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator

import pytest

from tests.wire.link_client import BareServer, Client, quick
from wire.errors import WireError
from wire.inbox import Inbox
from wire.link import Connected, Disconnected, LinkSettings, NotSent, TlsSettings
from wire.mqtt import Link

CONNACK = bytes.fromhex("20 03 00 00 00")
CONNACK_RECEIVE_MAXIMUM_5 = bytes.fromhex("20 06 00 00 03 21 00 05")
CONNACK_NOT_AUTHORIZED = bytes.fromhex("20 03 00 87 00")
DISCONNECT_SHUTTING_DOWN = bytes.fromhex("e0 01 8b")
PAYLOAD_BYTES = 100_000


@pytest.fixture
def stalled() -> Iterator[BareServer]:
    server = BareServer(CONNACK, CONNACK)
    yield server
    server.close()


def test_a_stalled_peer_costs_old_frames_not_memory(stalled: BareServer) -> None:
    """30 MB of fresh data for a peer that never reads: bounded memory, and every frame accounted for."""
    settings = quick(stalled.port, qos0_outbox_bytes=1_000_000)
    with Client(settings, "fast") as client:
        client.wait(Connected)
        tracemalloc.start()
        tokens = [client.link.publish("t", bytes(PAYLOAD_BYTES), qos=0) for _ in range(300)]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert None not in tokens
        assert peak < 4_000_000
        evicted = client.wait(NotSent, client.link.counters["not_sent_evicted"])
        assert {event.reason for event in evicted} == {"evicted"}
        assert len(evicted) >= 200
        assert client.link.counters["sent"] + len(evicted) + client.link.waiting == 300
        # The newest are the ones still waiting.
        assert {event.token for event in evicted}.isdisjoint(tokens[-5:])
        client.link.stop(drain_s=0)
        assert not client.link.alive
        client.wait(Disconnected)
        left = 300 - client.link.counters["sent"]
        assert len(client.wait(NotSent, left)) == left


def test_unacknowledged_messages_stay_within_the_servers_window() -> None:
    server = BareServer(CONNACK_RECEIVE_MAXIMUM_5)
    with Client(quick(server.port), "c") as client:
        client.wait(Connected)
        for _ in range(50):
            client.link.publish("durable", b"", qos=1)
        client.link.publish("fresh", b"", qos=0)
        assert server.read_until(b"fresh").count(b"durable") == 5
        assert client.link.waiting == 50
    server.close()


def test_a_reconnect_does_not_flood() -> None:
    """What was unacknowledged comes again, at most the window; the rest keeps waiting here."""
    server = BareServer(CONNACK_RECEIVE_MAXIMUM_5, CONNACK_RECEIVE_MAXIMUM_5)
    with Client(quick(server.port), "c") as client:
        client.wait(Connected)
        for _ in range(50):
            client.link.publish("durable", b"", qos=1)
        client.link.publish("fresh", b"", qos=0)
        server.read_until(b"fresh")
        server.peers[0].close()
        client.wait(Connected, 2)
        client.link.publish("fresh", b"", qos=0)
        assert server.read_until(b"fresh").count(b"durable") == 5
    server.close()


def test_the_durable_outbox_refuses_when_full_and_says_so() -> None:
    server = BareServer(CONNACK)
    settings = quick(server.port, qos1_outbox_bytes=10_000)
    with Client(settings, "c") as client:
        client.wait(Connected)
        for _ in range(100):
            client.link.publish("t", bytes(1000), qos=1)
        refused = client.link.counters["refused_outbox_full"]
        assert 100 - refused == client.link.waiting
        assert refused >= 100 - 20 - 9  # a window of 20 with the broker, 9 of 1033 bytes here
    server.close()


def test_an_expired_publication_is_not_sent_and_told() -> None:
    server = BareServer(CONNACK)
    with Client(quick(server.port), "c") as client:
        client.wait(Connected)
        past_ns = time.monotonic_ns() - 1
        tokens = [client.link.publish("late", b"", qos=qos, expires_ns=past_ns) for qos in (0, 1)]
        client.link.publish("fresh", b"", qos=0)
        assert b"late" not in server.read_until(b"fresh")
        told = {(event.token, event.reason) for event in client.wait(NotSent, 2)}
        assert told == {(token, "expired") for token in tokens}
    server.close()


def test_the_broker_is_told_when_a_publication_expires() -> None:
    server = BareServer(CONNACK)
    with Client(quick(server.port), "c") as client:
        client.wait(Connected)
        client.link.publish("topic", b"body", qos=0, expires_ns=time.monotonic_ns() + 3600 * 10**9)
        packet = server.read_until(b"body")
        # Property 2 is MessageExpiryInterval, in whole seconds.
        assert packet.endswith(b"topic" + bytes.fromhex("05 02 00 00 0e 10") + b"body")
    server.close()


def test_a_refused_connection_is_tried_again() -> None:
    server = BareServer(CONNACK_NOT_AUTHORIZED, CONNACK)
    with Client(quick(server.port), "c") as client:
        client.wait(Connected)
        assert client.link.counters["connect_failures"] == 1
        assert len(client.seen(Disconnected)) == 0
    server.close()


def test_the_brokers_own_reason_is_passed_on() -> None:
    server = BareServer(CONNACK + DISCONNECT_SHUTTING_DOWN)
    with Client(quick(server.port), "c") as client:
        assert "shutting down" in client.wait(Disconnected)[0].reason
    server.close()


@pytest.mark.parametrize("noise", [b"\x00" * 8, b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n", b"\x20\x03\x00\x00\x05\x99"])
def test_noise_for_an_answer_does_not_kill_the_thread(noise: bytes) -> None:
    server = BareServer(noise, noise, CONNACK)
    with Client(quick(server.port, keepalive_s=1), "c") as client:
        assert server.greeted.acquire(timeout=30)
        server.peers[0].close()
        assert server.greeted.acquire(timeout=30)
        server.peers[1].close()
        client.wait(Connected)
        assert client.link.alive
    server.close()


def test_a_link_that_was_never_started_stops() -> None:
    link = Link(LinkSettings(), "c", Inbox())
    link.stop()
    assert not link.alive


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"port": 0}, "port is 0, allowed is 1 to 65535"),
        ({"backoff_min_s": 5.0, "backoff_max_s": 1.0}, "backoff_min_s must be above 0 and at most backoff_max_s"),
        ({"keepalive_s": 0}, "keepalive_s is 0, allowed is 1 to 65535"),
        ({"session_expiry_s": -1}, "session_expiry_s is -1, allowed is 0 to 4294967295"),
        ({"receive_maximum": 70000}, "receive_maximum is 70000, allowed is 1 to 65535"),
        ({"connect_timeout_s": float("nan")}, "connect_timeout_s is nan, allowed is above 0 to 3600"),
        ({"qos1_outbox_bytes": 0}, "qos1_outbox_bytes is 0"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(WireError, match=message):
        LinkSettings(**wrong)  # type: ignore[arg-type]


def test_unusable_files_are_named_at_once() -> None:
    with pytest.raises(WireError, match="cannot use the certificates"):
        Link(LinkSettings(tls=TlsSettings(ca="/absent/ca.pem")), "c", Inbox())
    with pytest.raises(WireError, match=r"cannot read password_file /absent/word: No such file"):
        Link(LinkSettings(username="cam", password_file="/absent/word"), "c", Inbox())
