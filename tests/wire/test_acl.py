"""The generated ACL file on a real mosquitto: every channel and role, allowed or refused as the table says."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_broker_side.broker import Broker, BrokerSettings, start_broker
from wire.acl import acl_file
from wire.channels import CHANNELS, ROOT, Role, shared_filter
from wire.errors import TopicError
from wire.inbox import Inbox
from wire.link import Connected, LinkSettings, Received, Subscription
from wire.mqtt import Link

SITE = "plant"
ACCOUNTS = {f"{role}-1": role for role in Role} | {"device-2": Role.DEVICE, "worker-2": Role.WORKER}
END = "end"
MIRRORED = {"state", "telemetry", "result", "outcomes", "decision"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A mosquitto with accounts, the generated ACL, and an account ``all`` that may do everything."""
    folder = tmp_path_factory.mktemp("guarded")
    passwords = folder / "passwords"
    passwords.touch()
    for account in (*ACCOUNTS, "all", "stranger"):
        subprocess.run(["mosquitto_passwd", "-b", str(passwords), account, f"secret-{account}"], check=True)
        (folder / account).write_text(f"secret-{account}\n")
    ends = "".join(f"\nuser {account}\ntopic readwrite {END}/#\n" for account in (*ACCOUNTS, "stranger"))
    (folder / "acl").write_text(acl_file(SITE, ACCOUNTS) + ends + "\nuser all\ntopic readwrite #\n")
    settings = BrokerSettings(
        folder=str(folder / "broker"),
        port=0,
        kind="mosquitto",
        password_file=str(passwords),
        acl_file=str(folder / "acl"),
        log_file=str(folder / "log"),
    )
    with start_broker(settings) as broker:
        yield broker


class Client:
    """A connected account; ``flushed`` waits until everything sent before has come through."""

    def __init__(self, broker: Broker, folder: Path, account: str, *filters: str) -> None:
        self.account = account
        self.inbox = Inbox()
        self.topics: list[str] = []
        settings = LinkSettings(port=broker.port, username=account, password_file=str(folder / account))
        wanted = [Subscription(f, 1) for f in (*filters, f"{END}/{account}")]
        self.link = Link(settings, f"test-{account}", self.inbox, subscriptions=wanted, clean_start=True)
        self.link.start()
        self._wait(Connected)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.link.stop()

    def say(self, *topics: str) -> None:
        for topic in topics:
            assert self.link.publish(topic, b"x", qos=1)

    def flushed_out(self) -> None:
        """Wait until the broker has acknowledged, or refused, everything that was said."""
        deadline = time.monotonic() + 10
        while self.link.waiting:
            assert time.monotonic() < deadline, f"{self.account}: the broker does not answer"
            time.sleep(0.005)

    def flushed(self) -> set[str]:
        """Return the topics heard until our own end mark came."""
        while f"{END}/{self.account}" not in self.topics:
            self._wait(Received)
        return set(self.topics) - {f"{END}/{self.account}"}

    def _wait(self, kind: type) -> None:
        deadline = time.monotonic() + 10
        found = False
        while not found:
            assert time.monotonic() < deadline, f"{self.account} waited in vain for {kind.__name__}"
            for event in self.inbox.take(0.1):
                found = found or isinstance(event, kind)
                if isinstance(event, Received):
                    self.topics.append(event.topic)


@pytest.fixture(scope="module")
def folder(guarded: Broker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return next(tmp_path_factory.getbasetemp().glob("guarded*"))


def names(account: str) -> list[str]:
    return sorted({account, "device-1", "device-2", "worker-1", "worker-2"})


def expected(account: str, which: str) -> set[str]:
    """Say by the table what an account may do, in words apart from the generator's."""
    role = ACCOUNTS[account]
    allowed = set()
    for channel in CHANNELS.values():
        roles = channel.writers if which == "write" else channel.readers
        if role not in roles:
            continue
        for name in names(account):
            only_own = role is Role.DEVICE or (role is Role.WORKER and channel.name in ("worker-state", "worker-load"))
            if name == account or not only_own:
                allowed.add(f"{ROOT}/{SITE}/{name}/{channel.name}")
    return allowed | expected_json(account, which)


def expected_json(account: str, which: str) -> set[str]:
    """A mirror alone writes JSON, subscribers and operators alone read it."""
    may = {"write": {Role.MIRROR}, "read": {Role.SUBSCRIBER, Role.OPERATOR}}[which]
    told = MIRRORED if ACCOUNTS[account] in may else set()
    return {f"{ROOT}/{SITE}/{name}/{channel}/json" for name in names(account) for channel in told}


def everything(account: str) -> list[str]:
    bare = [f"{ROOT}/{SITE}/{name}/{channel}" for name in names(account) for channel in CHANNELS]
    return [*bare, *(f"{topic}/json" for topic in bare)]


@pytest.mark.parametrize("account", sorted(ACCOUNTS))
def test_an_account_writes_what_the_table_allows_and_nothing_else(guarded: Broker, folder: Path, account: str) -> None:
    with Client(guarded, folder, "all", f"{ROOT}/#") as witness, Client(guarded, folder, account) as client:
        client.say(*everything(account), f"{ROOT}/elsewhere/{account}/state", f"{END}/all")
        assert witness.flushed() == expected(account, "write")


@pytest.mark.parametrize("account", sorted(ACCOUNTS))
def test_an_account_reads_what_the_table_allows_and_nothing_else(guarded: Broker, folder: Path, account: str) -> None:
    with Client(guarded, folder, account, f"{ROOT}/#") as client, Client(guarded, folder, "all") as sender:
        sender.say(*everything(account), f"{ROOT}/elsewhere/{account}/state", f"{END}/{account}")
        assert client.flushed() == expected(account, "read")


def test_a_worker_may_take_part_in_the_shared_subscription(guarded: Broker, folder: Path) -> None:
    shared = shared_filter("workers", f"{ROOT}/{SITE}/+/activation")
    with Client(guarded, folder, "worker-1", shared) as worker, Client(guarded, folder, "device-1") as device:
        device.say(f"{ROOT}/{SITE}/device-1/activation", f"{END}/worker-1")
        assert worker.flushed() == {f"{ROOT}/{SITE}/device-1/activation"}


def test_nobody_ends_the_session_of_another_by_its_client_id(guarded: Broker, folder: Path) -> None:
    with Client(guarded, folder, "recorder-1") as recorder, Client(guarded, folder, "all") as sender:
        inbox = Inbox()
        settings = LinkSettings(port=guarded.port, username="device-2", password_file=str(folder / "device-2"))
        thief = Link(settings, "test-recorder-1", inbox)
        thief.start()
        assert isinstance(inbox.take(10)[0], Connected)
        sender.say(f"{END}/recorder-1")
        recorder.flushed()
        thief.stop()
        assert recorder.link.counters["disconnects"] == 0


def test_an_account_without_a_role_may_do_nothing(guarded: Broker, folder: Path) -> None:
    with Client(guarded, folder, "all", f"{ROOT}/#") as witness, Client(guarded, folder, "stranger") as client:
        client.say(*everything("stranger"), f"{END}/all")
        assert witness.flushed() == set()


def test_a_mirror_announces_the_devices_of_its_site_and_no_other(guarded: Broker, folder: Path) -> None:
    own, foreign = "homeassistant/device/splitfleet-plant", "homeassistant/device/splitfleet-elsewhere"
    topics = [f"{own}/cam-1/config", f"{foreign}/cam-1/config", f"{own}/cam-1/other", "homeassistant/status"]
    with Client(guarded, folder, "all", "homeassistant/#") as witness:
        for account in sorted(ACCOUNTS):
            with Client(guarded, folder, account) as client:
                client.say(*topics)
                client.flushed_out()
        with Client(guarded, folder, "mirror-1") as mirror:
            mirror.say(f"{END}/all")
            assert witness.flushed() == {f"{own}/cam-1/config"}


def test_a_mirror_hears_home_assistant_come_up(guarded: Broker, folder: Path) -> None:
    topics = ["homeassistant/status", "homeassistant/device/splitfleet-plant/cam-1/config"]
    with Client(guarded, folder, "mirror-1", "homeassistant/#") as mirror, Client(guarded, folder, "all") as sender:
        sender.say(*topics, f"{END}/mirror-1")
        assert mirror.flushed() == {"homeassistant/status"}


@pytest.mark.parametrize("prefix", ["", "a b", "#", "a/+", "a//b", "splitfleet", "splitfleet/v1", "x\ntopic write #"])
def test_a_discovery_prefix_cannot_smuggle_rules(prefix: str) -> None:
    with pytest.raises(TopicError, match="discovery prefix"):
        acl_file("plant", {"mirror": Role.MIRROR}, prefix)


@pytest.mark.parametrize("bad", ["a b", "#", "a/b", "", "x\ntopic readwrite #"])
def test_names_cannot_smuggle_rules(bad: str) -> None:
    with pytest.raises(TopicError):
        acl_file("plant", {bad: Role.DEVICE})
    with pytest.raises(TopicError):
        acl_file(bad, {})
