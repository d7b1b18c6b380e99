"""Attempts to break into a site over a real mosquitto: each is refused, and counted."""

from __future__ import annotations

import datetime
import json
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_broker_side.broker import Broker, BrokerSettings, BrokerTls, start_broker
from edge_broker_side.broker_log import read_counts
from edge_broker_side.identity.register import SERVER, SiteRegister
from edge_broker_side.refusals import Attempt
from wire import channels
from wire.channels import CHANNELS, Role
from wire.inbox import Inbox
from wire.link import Connected, LinkSettings, Received, Subscription, TlsSettings
from wire.mqtt import Link

NOW = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
SITE = "plant"
PATIENCE_S = 15.0


@dataclass
class Guarded:
    """A site with its broker."""

    register: SiteRegister
    settings: BrokerSettings
    broker: Broker
    log: Path

    def restart(self) -> None:
        """Start the broker anew."""
        self.broker.stop()
        self.broker = start_broker(self.settings)

    def counts(self, attempt: Attempt, account: str = "", least: int = 1) -> None:
        """Wait until the broker has counted an attempt."""
        deadline = time.monotonic() + PATIENCE_S
        while self.broker.refused[attempt, account] < least:
            assert time.monotonic() < deadline, f"never counted: {attempt} {account}; there are {self.broker.refused}"
            time.sleep(0.02)

    def tls(self, account: str, register: SiteRegister | None = None) -> TlsSettings:
        own = register or self.register
        return TlsSettings(str(self.register.ca), str(own.certificate(account)), str(own.key(account)))


def make_site(folder: Path, name: str = SITE) -> SiteRegister:
    register = SiteRegister(folder)
    register.create(name, ["127.0.0.1", "localhost"], 8883, NOW)
    return register


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    register = make_site(tmp_path / "site")
    register.add("policy", Role.POLICY, NOW)
    register.add("viewer", Role.SUBSCRIBER, NOW)
    for device in ("cam-01", "cam-02"):
        register.add(device, Role.DEVICE, NOW)
    log = tmp_path / "broker.log"
    settings = BrokerSettings(
        folder=str(tmp_path / "broker"),
        port=0,
        kind="mosquitto",
        acl_file=str(register.acl),
        tls=BrokerTls(
            str(register.certificate(SERVER)),
            str(register.key(SERVER)),
            client_ca=str(register.ca),
            revoked=str(register.revoked),
        ),
        log_file=str(log),
    )
    site = Guarded(register, settings, start_broker(settings), log)
    yield site
    site.broker.stop()


class Client:
    """A connection with what it heard."""

    def __init__(self, guarded: Guarded, tls: TlsSettings | None, *filters: str) -> None:
        self.inbox = Inbox()
        self.heard: list[str] = []
        self.connected = False
        wanted = [Subscription(f, 1) for f in filters]
        settings = LinkSettings(port=guarded.broker.port, tls=tls, backoff_max_s=0.3)
        self.link = Link(settings, "anybody", self.inbox, subscriptions=wanted, clean_start=True)
        self.link.start()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.link.stop(drain_s=0.2)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            for event in self.inbox.take(0.05):
                self.connected = self.connected or isinstance(event, Connected)
                if isinstance(event, Received):
                    self.heard.append(event.topic)

    def gets_in(self) -> None:
        self.until(lambda: self.connected, "a connection")

    def is_refused(self) -> None:
        self.until(lambda: self.link.counters["connect_failures"] + self.link.counters["disconnects"] >= 1, "a refusal")
        assert not self.connected

    def says(self, topic: str) -> None:
        assert self.link.publish(topic, b"x", qos=1) is not None
        self.until(lambda: self.link.waiting == 0, "the broker's acknowledgement")


def topic(name: str, channel: channels.Channel) -> str:
    return channels.topic(SITE, name, channel)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def test_an_account_of_the_site_gets_in(guarded: Guarded) -> None:
    own = channels.topic_filter(SITE, channels.DECISION, "cam-01")
    with Client(guarded, guarded.tls("cam-01"), own) as device:
        device.gets_in()
        device.says(topic("cam-01", channels.STATE))
    guarded.broker.stop()
    assert not guarded.broker.refused, "an honest device was counted"


def test_without_a_certificate_nobody_gets_in(guarded: Guarded) -> None:
    with Client(guarded, TlsSettings(str(guarded.register.ca))) as stranger:
        stranger.is_refused()
    guarded.counts(Attempt.NO_CERTIFICATE)


def test_who_speaks_no_tls_is_refused(guarded: Guarded) -> None:
    with Client(guarded, None) as stranger:
        stranger.is_refused()
    guarded.counts(Attempt.NO_TLS)


def test_who_does_not_trust_this_site_is_told_of(guarded: Guarded, tmp_path: Path) -> None:
    other = make_site(tmp_path / "other")
    context = ssl.create_default_context(cafile=str(other.ca))
    with socket.create_connection(("127.0.0.1", guarded.broker.port)) as bare, pytest.raises(ssl.SSLError):
        context.wrap_socket(bare, server_hostname="127.0.0.1")
    guarded.counts(Attempt.TLS_FAILED)


def test_counts_outlive_the_broker_and_whoever_looks_at_the_port_is_none(guarded: Guarded) -> None:
    with Client(guarded, TlsSettings(str(guarded.register.ca))) as stranger:
        stranger.is_refused()
    guarded.broker.stop()
    folder = Path(guarded.settings.folder)
    assert read_counts(folder)[Attempt.NO_CERTIFICATE, ""] >= 1
    guarded.restart()  # which looks at the port until it is open
    assert guarded.broker.refused == read_counts(folder)
    assert {attempt for attempt, _ in guarded.broker.refused} == {Attempt.NO_CERTIFICATE}


def test_the_certificate_of_another_site_is_worth_nothing(guarded: Guarded, tmp_path: Path) -> None:
    other = make_site(tmp_path / "other")
    other.add("cam-01", Role.DEVICE, NOW)
    with Client(guarded, guarded.tls("cam-01", other)) as stranger:
        stranger.is_refused()
    guarded.counts(Attempt.BAD_CERTIFICATE)


def test_a_revoked_account_loses_every_right_at_once_and_cannot_come_back(guarded: Guarded) -> None:
    register, old = guarded.register, guarded.tls("cam-02")
    kept = guarded.log.parent / "stolen.pem"
    kept.write_bytes(register.key("cam-02").read_bytes())
    stolen = TlsSettings(old.ca, str(old.certificate), str(kept))
    with Client(guarded, stolen, f"{channels.ROOT}/#") as thief:
        thief.gets_in()
        register.revoke("cam-02", NOW)
        assert guarded.broker.reload_if_changed()
        with Client(guarded, guarded.tls("policy"), f"{channels.ROOT}/#") as witness:
            witness.gets_in()
            thief.says(topic("cam-02", channels.STATE))
            witness.says(topic("cam-02", channels.DECISION))
            witness.says(topic("cam-01", channels.DECISION))
            witness.until(lambda: topic("cam-01", channels.DECISION) in witness.heard, "its own decision")
        assert topic("cam-02", channels.STATE) not in witness.heard
        thief.until(lambda: thief.link.counters["refused_by_broker"] == 1, "the broker's refusal")
        assert not [event for event in thief.inbox.take(0.2) if isinstance(event, Received)] and not thief.heard
    guarded.counts(Attempt.PUBLISH, "cam-02")
    with Client(guarded, stolen) as thief:  # the broker that runs has read the list
        thief.is_refused()
    guarded.counts(Attempt.BAD_CERTIFICATE)
    guarded.restart()
    with Client(guarded, stolen) as thief:
        thief.is_refused()
    guarded.counts(Attempt.BAD_CERTIFICATE, least=2)
    with Client(guarded, guarded.tls("cam-01")) as other:
        other.gets_in()


def test_a_new_certificate_revokes_the_one_before(guarded: Guarded) -> None:
    copies = [guarded.log.parent / name for name in ("old.pem", "old.key")]
    copies[0].write_bytes(guarded.register.certificate("cam-02").read_bytes())
    copies[1].write_bytes(guarded.register.key("cam-02").read_bytes())
    guarded.register.add("cam-02", Role.DEVICE, NOW)
    guarded.restart()
    with Client(guarded, TlsSettings(str(guarded.register.ca), *map(str, copies))) as old:
        old.is_refused()
    with Client(guarded, guarded.tls("cam-02")) as new:
        new.gets_in()


@pytest.mark.parametrize(
    ("account", "name", "channel"),
    [
        ("cam-01", "cam-02", channels.STATE),
        ("cam-01", "cam-02", channels.RESULT),
        ("cam-01", "cam-02", channels.DECISION),
        ("cam-01", "cam-01", channels.DECISION),
        ("viewer", "cam-01", channels.DECISION),
        ("viewer", "defaults", channels.RULES),
    ],
)
def test_what_is_not_ones_own_cannot_be_said(
    guarded: Guarded, account: str, name: str, channel: channels.Channel
) -> None:
    with Client(guarded, guarded.tls("policy"), f"{channels.ROOT}/#") as witness:
        witness.gets_in()
        with Client(guarded, guarded.tls(account)) as forger:
            forger.gets_in()
            forger.says(topic(name, channel))
            forger.until(lambda: forger.link.counters["refused_by_broker"] == 1, "the broker's refusal")
        guarded.counts(Attempt.PUBLISH, account)
        witness.says(topic("cam-01", channels.DECISION))  # comes after whatever was let through
        witness.until(lambda: topic("cam-01", channels.DECISION) in witness.heard, "its own decision")
        assert witness.heard == [topic("cam-01", channels.DECISION)]


@pytest.mark.parametrize("role", [Role.DEVICE, Role.WORKER, Role.SUBSCRIBER, Role.OPERATOR])
def test_every_channel_that_the_table_does_not_let_a_role_write_is_refused_and_counted(
    guarded: Guarded, role: Role
) -> None:
    guarded.register.add("somebody", role, NOW)
    guarded.restart()
    own, other = ([topic(name, channel) for channel in CHANNELS.values()] for name in ("somebody", "cam-02"))
    mine = role is Role.DEVICE
    may = sum(role in channel.writers for channel in CHANNELS.values())
    alike = sum(role in channel.writers and not channel.name.startswith("worker-") for channel in CHANNELS.values())
    with Client(guarded, guarded.tls("somebody")) as client:
        client.gets_in()
        for where in (*own, *other):
            client.says(where)
        refused = len(own) + len(other) - may - (0 if mine else alike)
        client.until(lambda: client.link.counters["refused_by_broker"] >= refused, "the broker's refusals")
        assert client.link.counters["refused_by_broker"] == refused
        guarded.counts(Attempt.PUBLISH, "somebody", least=refused)
        assert guarded.broker.refused[Attempt.PUBLISH, "somebody"] == refused


def test_a_device_that_subscribes_to_everything_hears_its_own_alone(guarded: Guarded) -> None:
    with Client(guarded, guarded.tls("cam-01"), "#", f"{channels.ROOT}/#") as device:
        device.gets_in()
        with Client(guarded, guarded.tls("policy")) as policy:
            policy.gets_in()
            policy.says(topic("cam-02", channels.DECISION))
            policy.says(topic("cam-01", channels.DECISION))
        device.until(lambda: bool(device.heard), "its own decision")
        assert set(device.heard) == {topic("cam-01", channels.DECISION)}
    guarded.counts(Attempt.SUBSCRIBE, "cam-01", least=2)


def test_what_a_broker_says_of_every_packet_does_not_reach_its_log_nor_does_a_key(guarded: Guarded) -> None:
    shared = channels.shared_filter("workers", f"{channels.ROOT}/{SITE}/+/activation")
    with Client(guarded, guarded.tls("cam-01"), shared) as device:
        device.gets_in()
        device.says(topic("cam-01", channels.STATE))
        device.says(topic("cam-02", channels.STATE))
    guarded.broker.stop()
    text = guarded.log.read_text()
    assert "Denied PUBLISH from cam-01" in text
    assert not any(words in text for words in ("Received", "Sending", shared, "PRIVATE KEY"))
    assert guarded.broker.refused[Attempt.SUBSCRIBE, "cam-01"] == 1
    told = (Path(guarded.settings.folder) / "refused.json").read_text()
    assert json.loads(told)["refused"] and "PRIVATE" not in told
