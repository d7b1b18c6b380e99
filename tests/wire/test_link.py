"""The MQTT link against real brokers: it connects, keeps to its bounds, loses nothing it promised, and never dies."""

from __future__ import annotations

import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edge_broker_side.broker import Broker, free_port
from tests.brokers import KINDS, launch
from tests.wire.link_client import Client, quick
from tools.relay import Relay
from tools.shaping import LinkShape
from wire.inbox import Inbox
from wire.link import Acknowledged, Connected, Disconnected, NotSent, Received, Subscription
from wire.outbox import Outgoing

each_kind = pytest.mark.parametrize("kind", KINDS)


def payloads(client: Client) -> list[bytes]:
    return [event.payload for event in client.seen(Received)]


@each_kind
def test_it_starts_without_a_broker_and_connects_when_one_appears(kind: str, tmp_path: Path) -> None:
    port = free_port()
    with Client(quick(port), "early", subscriptions=[Subscription("t/#", 1)]) as client:
        token = client.link.publish("t/a", b"kept", qos=1)
        assert token is not None
        assert client.link.publish("t/a", b"fresh", qos=0) is None
        with launch(kind, tmp_path / "broker", port):
            client.wait(Connected)
            assert client.wait(Acknowledged)[0].token == token
            assert client.wait(Received)[0].payload == b"kept"
    assert client.link.counters["refused_offline"] == 1
    assert not client.link.alive


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("payload", [b"", b"\x00\xff" * 7, bytes(700_000)], ids=["empty", "binary", "large"])
def test_payloads_arrive_whole(any_broker: Broker, site: str, qos: int, payload: bytes) -> None:
    with Client(quick(any_broker.port), site, subscriptions=[Subscription(f"{site}/#", qos)]) as client:
        client.wait(Connected)
        before_ns = time.monotonic_ns()
        assert client.link.publish(f"{site}/a", payload, qos=qos) is not None
        received = client.wait(Received)[0]
        assert (received.topic, received.payload, received.retained) == (f"{site}/a", payload, False)
        assert before_ns <= received.arrived_ns <= time.monotonic_ns()


def test_the_socket_sends_at_once_and_queues_little(any_broker: Broker, site: str) -> None:
    """Nagle costs tens of milliseconds per QoS 1 round trip; a deep kernel queue cannot be dropped from."""
    with Client(quick(any_broker.port), site) as client:
        client.wait(Connected)
        sock = client.link._client.socket()  # no public way to see a socket's options
        assert isinstance(sock, socket.socket)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert 0 < sock.getsockopt(socket.IPPROTO_TCP, 25) <= 16 * 1024


def test_a_burst_is_acknowledged_once_each_in_order(any_broker: Broker, site: str) -> None:
    with Client(quick(any_broker.port), site, subscriptions=[Subscription(f"{site}/#", 1)]) as client:
        client.wait(Connected)
        tokens = [client.link.publish(f"{site}/a", b"%d" % n, qos=1) for n in range(1000)]
        assert [event.token for event in client.wait(Acknowledged, 1000)] == tokens
        client.wait(Received, 1000)
        assert payloads(client) == [b"%d" % n for n in range(1000)]
        assert client.seen(Acknowledged)[0].idle_link
        assert client.link.waiting == 0


@each_kind
def test_a_restarted_broker_gets_everything_that_waited(kind: str, tmp_path: Path) -> None:
    """At least once, in order, and told as acknowledged exactly once per token."""
    with launch(kind, tmp_path / "broker") as first:
        port = first.port
        with Client(quick(port), "c", subscriptions=[Subscription("t/#", 1)], clean_start=True) as client:
            client.wait(Connected)
            first.kill()
            client.wait(Disconnected)
            tokens = [client.link.publish("t/a", b"%d" % n, qos=1) for n in range(300)]
            with launch(kind, tmp_path / "broker", port):
                client.wait(Connected, 2)
                client.wait(Acknowledged, 300)
                client.wait_until(lambda: len(set(payloads(client))) == 300, "every payload")
            assert [event.token for event in client.seen(Acknowledged)] == tokens
            assert list(dict.fromkeys(payloads(client))) == [b"%d" % n for n in range(300)]
            assert client.link.counters["connects"] == 2


@each_kind
def test_a_broker_killed_in_a_burst_leaves_no_token_open(kind: str, tmp_path: Path) -> None:
    with launch(kind, tmp_path / "broker") as first:
        port = first.port
        with Client(quick(port), "c", clean_start=True) as client:
            client.wait(Connected)
            tokens = [client.link.publish("t/a", bytes(2000), qos=1) for _ in range(1000)]
            client.wait(Acknowledged, 50)
            first.kill()
            with launch(kind, tmp_path / "broker", port):
                client.wait(Acknowledged, 1000)
            assert Counter(event.token for event in client.seen(Acknowledged)) == Counter(tokens)


def test_the_session_outlives_a_cut_link(mosquitto: Broker, site: str) -> None:
    relay = Relay("127.0.0.1", mosquitto.port, LinkShape(), seed=1)
    with (
        Client(quick(relay.start()), f"{site}-a", subscriptions=[Subscription(f"{site}/#", 1)]) as device,
        Client(quick(mosquitto.port), f"{site}-b") as other,
    ):
        assert not device.wait(Connected)[0].session_present
        other.wait(Connected)
        relay.outage(True)
        device.wait(Disconnected)
        other.link.publish(f"{site}/a", b"meanwhile", qos=1)
        other.wait(Acknowledged)
        relay.outage(False)
        assert device.wait(Connected, 2)[1].session_present
        assert device.wait(Received)[0].payload == b"meanwhile"
    relay.stop()


def test_stop_drains_what_is_queued(any_broker: Broker, site: str) -> None:
    with (
        Client(quick(any_broker.port), f"{site}-r", subscriptions=[Subscription(f"{site}/#", 1)]) as reader,
        Client(quick(any_broker.port), f"{site}-w") as writer,
    ):
        reader.wait(Connected)
        writer.wait(Connected)
        for n in range(300):
            writer.link.publish(f"{site}/a", b"%d" % n, qos=n % 2)
        writer.link.stop(drain_s=30)
        assert not writer.link.alive and not writer.link.connected
        assert {event.payload for event in reader.wait(Received, 300)} == {b"%d" % n for n in range(300)}
        assert writer.wait(Disconnected)[0].reason == "stopped"


def test_a_limit_of_the_broker_is_kept_and_starves_nothing(mosquitto: Broker, site: str) -> None:
    """A message beyond MaximumPacketSize would otherwise reconnect forever; both before and after it is known."""
    topic = f"{site}/a"
    settings = quick(mosquitto.port, qos1_outbox_bytes=16_000_000)
    client = Client(settings, site, subscriptions=[Subscription(f"{site}/#", 1)])
    early = client.link.publish(topic, bytes(6_000_000), qos=1)
    assert early is not None
    with client:
        limit = client.wait(Connected)[0].max_packet_bytes
        assert limit < 6_000_000
        assert client.wait(NotSent)[0] == NotSent(early, "too-large")
        assert client.link.publish(topic, bytes(limit), qos=1) is None
        assert client.link.publish(topic, bytes(limit - 1000), qos=1) is not None
        client.link.publish(topic, b"small", qos=1)
        assert [len(event.payload) for event in client.wait(Received, 2)] == [limit - 1000, 5]
    assert client.link.counters["refused_too_large"] == 2
    assert client.link.counters["connects"] == 1


class RaisingInbox(Inbox):
    """Raises on the first publications that arrive."""

    failures = 2

    def put(self, item: Any, size: int = 0) -> bool:
        if isinstance(item, Received) and self.failures:
            self.failures -= 1
            raise ZeroDivisionError("a bug in the process")
        return super().put(item, size)


def test_a_bug_in_processing_costs_a_reconnect_not_the_thread(any_broker: Broker, site: str) -> None:
    inbox = RaisingInbox()
    with Client(quick(any_broker.port), site, inbox=inbox, subscriptions=[Subscription(f"{site}/#", 1)]) as client:
        client.wait(Connected)
        client.link.publish(f"{site}/a", b"1", qos=1)
        client.wait(Disconnected)
        client.wait(Connected, 2)
        while inbox.failures:  # a broker without sessions does not send the first one again
            client.link.publish(f"{site}/a", b"again", qos=1)
            client.wait(Connected, len(client.seen(Connected)) + 1)
        client.link.publish(f"{site}/a", b"2", qos=1)
        client.wait_until(lambda: b"2" in payloads(client), "the message after the bug")
        assert client.link.counters["thread_errors"] == 2
        assert client.link.alive


@pytest.mark.parametrize("farewell", ["cut", "clean"])
def test_the_will_tells_of_a_cut_link_but_not_of_a_clean_stop(any_broker: Broker, site: str, farewell: str) -> None:
    relay = Relay("127.0.0.1", any_broker.port, LinkShape(), seed=1)
    will = Outgoing(f"{site}/will", b"lost", qos=1, retain=True)
    with (
        Client(quick(any_broker.port), f"{site}-w", subscriptions=[Subscription(f"{site}/#", 1)]) as watcher,
        Client(quick(relay.start()), f"{site}-d", will=will) as device,
    ):
        watcher.wait(Connected)
        device.wait(Connected)
        if farewell == "cut":
            relay.outage(True)
            assert watcher.wait(Received)[0].payload == b"lost"
        else:
            device.link.stop()
            watcher.link.publish(f"{site}/marker", b"marker", qos=1)
            assert watcher.wait(Received)[0].payload == b"marker"
    relay.stop()


def test_a_delayed_will_is_withdrawn_by_a_quick_return(mosquitto: Broker, site: str) -> None:
    relay = Relay("127.0.0.1", mosquitto.port, LinkShape(), seed=1)
    will = Outgoing(f"{site}/will", b"lost", qos=1)
    with (
        Client(quick(mosquitto.port), f"{site}-w", subscriptions=[Subscription(f"{site}/#", 1)]) as watcher,
        Client(quick(relay.start()), f"{site}-d", will=will, will_delay_s=60) as device,
    ):
        watcher.wait(Connected)
        device.wait(Connected)
        relay.outage(True)
        device.wait(Disconnected)
        relay.outage(False)
        device.wait(Connected, 2)
        device.link.publish(f"{site}/marker", b"back", qos=1)
        assert watcher.wait(Received)[0].payload == b"back"
    relay.stop()


def test_no_local_keeps_our_own_words_from_us(mosquitto: Broker, site: str) -> None:
    """The embedded broker does not know no_local: there our own publications come back."""
    subscription = Subscription(f"{site}/#", 1, no_local=True)
    with (
        Client(quick(mosquitto.port), f"{site}-a", subscriptions=[subscription]) as device,
        Client(quick(mosquitto.port), f"{site}-b") as worker,
    ):
        device.wait(Connected)
        worker.wait(Connected)
        device.link.publish(f"{site}/a", b"own", qos=1)
        device.wait(Acknowledged)
        worker.link.publish(f"{site}/a", b"other", qos=1)
        assert device.wait(Received)[0].payload == b"other"


def test_retained_messages_are_marked(any_broker: Broker, site: str) -> None:
    with Client(quick(any_broker.port), f"{site}-a") as writer:
        writer.wait(Connected)
        writer.link.publish(f"{site}/a", b"kept", qos=1, retain=True)
        writer.wait(Acknowledged)
    with Client(quick(any_broker.port), f"{site}-b", subscriptions=[Subscription(f"{site}/#", 1)]) as reader:
        received = reader.wait(Received)[0]
        assert (received.payload, received.retained) == (b"kept", True)


def test_what_does_not_fit_the_inbox_is_counted(any_broker: Broker, site: str) -> None:
    subscriptions = [Subscription(f"{site}/#", 1)]
    with Client(quick(any_broker.port), site, inbox=Inbox(10_000), subscriptions=subscriptions) as client:
        client.wait(Connected)
        client.link.publish(f"{site}/a", bytes(20_000), qos=1)
        client.link.publish(f"{site}/a", b"small", qos=1)
        assert client.wait(Received)[0].payload == b"small"
        assert client.link.counters["refused_inbox_full"] == 1
