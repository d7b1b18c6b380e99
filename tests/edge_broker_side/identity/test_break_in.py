"""Attempts to break into a site over a real mosquitto: each is refused, and shows in the broker's log."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_broker_side.broker import Broker, BrokerSettings, BrokerTls, start_broker
from edge_broker_side.identity.register import SERVER, SiteRegister
from wire import channels
from wire.channels import Role
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

    def __init__(self, guarded: Guarded, tls: TlsSettings, *filters: str) -> None:
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
    with Client(guarded, guarded.tls("cam-01")) as device:
        device.gets_in()


def test_without_a_certificate_nobody_gets_in(guarded: Guarded) -> None:
    with Client(guarded, TlsSettings(str(guarded.register.ca))) as stranger:
        stranger.is_refused()


def test_the_certificate_of_another_site_is_worth_nothing(guarded: Guarded, tmp_path: Path) -> None:
    other = make_site(tmp_path / "other")
    other.add("cam-01", Role.DEVICE, NOW)
    with Client(guarded, guarded.tls("cam-01", other)) as stranger:
        stranger.is_refused()


def test_a_revoked_account_loses_every_right_at_once_and_its_certificate_at_the_next_start(guarded: Guarded) -> None:
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
        assert thief.link.counters["refused_by_broker"] == 1
        assert thief.inbox.take(0.2) == []
    guarded.restart()
    with Client(guarded, stolen) as thief:
        thief.is_refused()
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
            assert forger.link.counters["refused_by_broker"] == 1
        witness.says(topic("cam-01", channels.DECISION))  # comes after whatever was let through
        witness.until(lambda: topic("cam-01", channels.DECISION) in witness.heard, "its own decision")
        assert witness.heard == [topic("cam-01", channels.DECISION)]


def test_a_device_that_subscribes_to_everything_hears_its_own_alone(guarded: Guarded) -> None:
    with Client(guarded, guarded.tls("cam-01"), "#", f"{channels.ROOT}/#") as device:
        device.gets_in()
        with Client(guarded, guarded.tls("policy")) as policy:
            policy.gets_in()
            policy.says(topic("cam-02", channels.DECISION))
            policy.says(topic("cam-01", channels.DECISION))
        device.until(lambda: bool(device.heard), "its own decision")
        assert set(device.heard) == {topic("cam-01", channels.DECISION)}
