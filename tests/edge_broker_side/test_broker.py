"""Brokers start as configured, say what they lack, refuse what is unsafe, and keep what they promise."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import pytest

from edge_broker_side.broker import Broker, BrokerError, BrokerSettings, BrokerTls, largest_packet_bytes, start_broker
from tests.brokers import launch
from tests.edge_broker_side.peers import PATIENCE_S, Peer
from wire.channels import ACTIVATION, DECISION
from wire.inbox import Inbox
from wire.link import Connected, LinkSettings, Received, Subscription, TlsSettings
from wire.messages import Decision
from wire.mqtt import Link
from wire.plan import Plan


def test_both_kinds_carry_the_largest_payload(any_broker: Broker, site: str) -> None:
    payload = bytes(ACTIVATION.max_bytes)
    inbox = Inbox()
    settings = LinkSettings(port=any_broker.port, qos0_outbox_bytes=2 * len(payload))
    link = Link(settings, site, inbox, subscriptions=[Subscription(f"x/{site}", 0)])
    link.start()
    events = inbox.take(PATIENCE_S)
    assert isinstance(events[0], Connected) and events[0].max_packet_bytes >= largest_packet_bytes()
    assert link.publish(f"x/{site}", payload, qos=0)
    received = inbox.take(PATIENCE_S)
    assert isinstance(received[0], Received) and received[0].payload == payload
    link.stop()


def test_each_kind_says_what_it_is_and_lacks(mosquitto: Broker, rumqttd: Broker) -> None:
    assert str(mosquitto).startswith("mosquitto 2.") and not mosquitto.lacks
    assert str(rumqttd).startswith("rumqttd on 127.0.0.1:") and any("restart" in lack for lack in rumqttd.lacks)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_retained_decision_survives_a_restart_of_mosquitto(tmp_path: Path, site: str, how: str) -> None:
    decision = Decision(3, Plan("v", "output", "none"), 100.0, "fixed", "because")
    broker = launch("mosquitto", tmp_path / "broker")
    with Peer(broker, site, DECISION) as peer:
        peer.say(DECISION, decision)
        peer.until(lambda: peer.of(DECISION))
    if how == "kill":  # a killed broker knows what it last wrote down
        told_ns = time.time_ns()
        written = tmp_path / "broker" / "mosquitto.db"
        while not (written.exists() and written.stat().st_mtime_ns > told_ns):
            assert time.time_ns() - told_ns < 30e9, "never written"
            time.sleep(0.05)
    getattr(broker, how)()
    assert not broker.alive
    with launch("mosquitto", tmp_path / "broker", broker.port) as again, Peer(again, site, DECISION) as peer:
        peer.until(lambda: peer.of(DECISION))
        assert set(peer.of(DECISION)) == {decision}  # QoS 1: at least once


@pytest.mark.parametrize("kind", ["mosquitto", "embedded"])
def test_a_taken_port_is_told_in_words(tmp_path: Path, kind: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=f"cannot listen on 127.0.0.1:{port} .*another port"):
            start_broker(BrokerSettings(str(tmp_path / "b"), port=port, kind=kind))  # type: ignore[arg-type]


def test_strangers_are_let_in_on_loopback_only(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="without accounts"):
        start_broker(BrokerSettings(str(tmp_path / "b"), host="0.0.0.0", port=0))


def test_the_embedded_broker_refuses_what_it_cannot_guard(tmp_path: Path) -> None:
    accounts = tmp_path / "accounts"
    accounts.touch()
    with pytest.raises(BrokerError, match="mosquitto"):
        start_broker(BrokerSettings(str(tmp_path / "b"), port=0, kind="embedded", password_file=str(accounts)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match=r"acl_file: .*nowhere"):
        start_broker(BrokerSettings(str(tmp_path / "b"), port=0, kind="mosquitto", acl_file=str(tmp_path / "nowhere")))


def certificate(folder: Path, name: str, issuer: str | None = None) -> tuple[Path, Path]:
    """Make a key and a certificate for ``name``, by itself or an issuer made before."""
    key, cert = folder / f"{name}.key", folder / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(cert)]
    if issuer:
        command += ["-CA", str(folder / f"{issuer}.pem"), "-CAkey", str(folder / f"{issuer}.key")]
        command += ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(command, check=True, capture_output=True)
    return key, cert


def test_mutual_tls(tmp_path: Path) -> None:
    _, ca = certificate(tmp_path, "ca")
    server_key, server = certificate(tmp_path, "server", "ca")
    client_key, client = certificate(tmp_path, "cam-1", "ca")
    tls = BrokerTls(str(server), str(server_key), client_ca=str(ca))
    log = tmp_path / "log"
    settings = BrokerSettings(str(tmp_path / "b"), port=0, kind="mosquitto", tls=tls, log_file=str(log))
    with start_broker(settings) as broker:
        inbox = Inbox()
        link = Link(
            LinkSettings(port=broker.port, tls=TlsSettings(str(ca), str(client), str(client_key))), "cam-1", inbox
        )
        link.start()
        assert any(isinstance(event, Connected) for event in inbox.take(PATIENCE_S))
        link.stop()
        bare = Inbox()
        refused = Link(LinkSettings(port=broker.port, tls=TlsSettings(str(ca))), "cam-2", bare)
        refused.start()
        while not refused.counters["connect_failures"]:
            assert not any(isinstance(event, Connected) for event in bare.take(0.05))
        refused.stop()
