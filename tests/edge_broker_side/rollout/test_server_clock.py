"""The roll-out server by a clock and a link of the test's own: what counts as time, and what a stop holds."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_broker_side.identity.signing import Signer, public_key_path
from edge_broker_side.rollout import server as server_module
from edge_broker_side.rollout.bundles import Bundle, make_bundle
from edge_broker_side.rollout.campaign import Fate, RolloutError, Status, Terms
from edge_broker_side.rollout.server import MOST_COUNTED_S, QUIET_S, RETRY_S, RolloutServer, RolloutSettings
from edge_broker_side.rollout.store import Rollout, RolloutStore
from tests.device_client.stores import classifier, picture, write_version
from tests.wire.examples import EXAMPLES
from tflite_models.catalog import load_folder
from wire import channels, codec
from wire.channels import Channel
from wire.link import Connected, Received
from wire.messages import CachedVersion, Capabilities, DeviceState, Fetch, State, Update, UpdateStage, UpdateState

S = UpdateStage
TERMS = Terms(stages=(1.0,), max_errors=0.0, limit_s=60.0)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@dataclass
class Clock:
    """Takes the place of the module ``time``."""

    now_s: float = 1000.0

    def time(self) -> float:
        return self.now_s

    monotonic = time

    def monotonic_ns(self) -> int:
        return int(self.now_s * 1e9)


@dataclass
class Said:
    """A link that keeps what is said."""

    waiting: int = 0
    messages: list[tuple[str, Any]] = field(default_factory=list)

    def publish(self, topic: str, payload: bytes, **_: Any) -> int:
        address = channels.parse_topic(topic)
        self.messages.append((address.name, codec.decode(address.channel, payload) if payload else None))
        return 1


@dataclass
class Site:
    """A server whose time passes when the test says so."""

    folder: Path
    clock: Clock
    said: Said

    def __post_init__(self) -> None:
        Signer.of_site(self.folder)
        self.settings = RolloutSettings("plant-1", self.folder / "rollouts", public_key_path(self.folder))
        self.store = RolloutStore(self.settings.store)
        write_version(self.folder / "made", "tiny", classifier(4, seed=3))
        self.bundle = self.publish()
        self.start()

    def publish(self, tolerance: float | None = None) -> Bundle:
        out, samples = self.settings.bundle("").parent, np.stack([picture(0)])
        version = load_folder(self.folder / "made" / "tiny")
        path = make_bundle(version, [samples], out, Signer.of_site(self.folder), 0, tolerance=tolerance)
        return Bundle(path, self.settings.key.read_bytes())

    def start(self) -> None:
        self.server = RolloutServer(self.settings)
        self.connect()

    def connect(self) -> None:
        self.server._handle(Connected(False, 1 << 20))

    def stop(self) -> None:
        self.server._store.close()

    def begin(self, terms: Terms = TERMS) -> Rollout:
        return self.store.begin(self.bundle.manifest, "", terms, self.clock.now_s)

    def hear(self, name: str, channel: Channel, message: Any) -> None:
        topic = channels.topic("plant-1", name, channel)
        self.server._handle(Received(topic, codec.encode(channel, message), 0, retained=False))

    def be(self, name: str, *, online: bool = True, holds: bool = False) -> None:
        versions = (CachedVersion("tiny", self.bundle.manifest.sha256),) if holds else ()
        told: Capabilities = replace(EXAMPLES["capabilities"], session=1, versions=versions)
        self.hear(name, channels.CAPABILITIES, told)
        self.hear(name, channels.STATE, State(DeviceState.READY if online else DeviceState.LOST, 1))

    def is_at(self, name: str, rollout: Rollout, stage: UpdateStage) -> None:
        self.hear(name, channels.UPDATE_STATE, UpdateState(1, rollout.id, rollout.bundle, stage, 0, 0, ""))

    def fetch(self, name: str, bundle: str = "") -> list[Any]:
        """Ask for bytes; return what is said in turn."""
        before = len(self.said.messages)
        self.hear(name, channels.FETCH, Fetch(bundle or self.bundle.manifest.bundle, 0, 100))
        self.server._hand_out()
        return [message for _, message in self.said.messages[before:]]

    def pass_s(self, seconds: float, each: Callable[[], None] | None = None) -> None:
        """Let time pass and judge every second of it."""
        for _ in range(round(seconds)):
            self.clock.now_s += 1.0
            if each is not None:
                each()
            self.server._judge(self.clock.now_s)

    def fate(self, rollout: Rollout, name: str = "cam") -> Fate:
        return self.store.fates(rollout)[name]

    def status(self, rollout: Rollout) -> Status:
        return self.store.get(rollout.id).status


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    clock, said = Clock(), Said()
    monkeypatch.setattr(server_module, "Link", lambda *_, **__: said)
    monkeypatch.setattr(server_module, "time", clock)
    site = Site(tmp_path / "site", clock, said)
    yield site
    site.stop()
    site.store.close()


def test_a_device_that_was_away_for_long_is_not_overdue_when_it_returns(place: Site) -> None:
    place.be("cam")
    rollout = place.begin()
    place.pass_s(5)
    place.is_at("cam", rollout, S.DOWNLOADING)
    place.be("cam", online=False)
    place.pass_s(11 * TERMS.limit_s)
    assert place.fate(rollout) is Fate.OFFLINE
    place.be("cam")
    place.pass_s(30)
    assert (place.fate(rollout), place.status(rollout)) == (Fate.UNDER_WAY, Status.RUNNING)
    place.pass_s(40)
    assert (place.fate(rollout), place.status(rollout)) == (Fate.OVERDUE, Status.STOPPED)


def test_a_told_device_that_only_comes_and_goes_is_overdue_in_the_end(place: Site) -> None:
    place.be("cam")
    rollout = place.begin()

    def blink() -> None:
        place.be("cam", online=False)
        place.be("cam")

    place.pass_s(50, blink)
    assert place.fate(rollout) is Fate.UNDER_WAY
    place.pass_s(20, blink)
    assert (place.fate(rollout), place.status(rollout)) == (Fate.OVERDUE, Status.STOPPED)


def test_steps_that_lead_nowhere_are_overdue_altogether(place: Site) -> None:
    place.be("cam")
    rollout = place.begin()
    for turn in range(13):
        place.pass_s(50)
        place.is_at("cam", rollout, S.DOWNLOADING if turn % 2 else S.VERIFYING)
    assert (place.fate(rollout), place.status(rollout)) == (Fate.OVERDUE, Status.STOPPED)


def test_a_restart_of_the_server_neither_forgets_nor_counts_its_own_absence(place: Site) -> None:
    place.be("cam")
    rollout = place.begin()
    place.pass_s(41)
    place.stop()
    place.clock.now_s += 5000.0
    place.start()
    place.be("cam")
    place.pass_s(15)
    assert place.fate(rollout) is Fate.UNDER_WAY
    place.clock.now_s += 5000.0  # without the broker
    place.connect()
    place.clock.now_s += QUIET_S
    place.pass_s(3)
    assert place.fate(rollout) is Fate.UNDER_WAY
    place.pass_s(5)
    assert place.fate(rollout) is Fate.OVERDUE


def test_a_machine_that_slept_does_not_count_it(place: Site) -> None:
    place.be("cam")
    rollout = place.begin()
    place.pass_s(2)
    place.clock.now_s += 5000.0
    place.pass_s(1)
    assert place.fate(rollout) is Fate.UNDER_WAY
    (member,) = place.store.members(rollout)
    assert member.online_s == pytest.approx(1 + MOST_COUNTED_S)


def test_a_roll_out_that_stopped_hands_nothing_out_until_it_is_resumed(place: Site) -> None:
    place.be("slow")
    rollout = place.begin()
    place.pass_s(1)
    assert [type(message) for _, message in place.said.messages] == [Update]
    assert len(place.fetch("slow")) == 1, "a piece"
    place.pass_s(70)
    assert place.status(rollout) is Status.STOPPED
    assert place.fetch("slow") == []
    assert place.fetch("slow", "tiny-0") == [], "nor is it told again, whatever it asks for"
    place.connect()
    place.pass_s(QUIET_S + 3)
    assert len(place.said.messages) == 2, "nor when the broker may have forgotten it"
    place.store.turn(rollout, Status.RUNNING, "", place.clock.now_s)
    place.pass_s(1)
    assert len(place.fetch("slow")) == 1 and isinstance(place.said.messages[2][1], Update)
    place.pass_s(50)
    assert (place.fate(rollout, "slow"), place.status(rollout)) == (Fate.UNDER_WAY, Status.RUNNING)


def test_what_was_asked_before_the_stop_is_not_handed_out_after_it(place: Site) -> None:
    place.be("slow")
    rollout = place.begin()
    place.pass_s(1)
    place.said.waiting = 1000
    assert place.fetch("slow") == []
    place.pass_s(70)
    place.said.waiting = 0
    before = len(place.said.messages)
    place.server._hand_out()
    assert place.status(rollout) is Status.STOPPED and len(place.said.messages) == before


def test_a_resume_that_can_only_stop_again_is_refused(place: Site) -> None:
    place.be("cam")
    rollout = place.begin()
    place.pass_s(1)
    place.is_at("cam", rollout, S.ROLLED_BACK)
    place.pass_s(1)
    stopped = place.store.get(rollout.id)
    with pytest.raises(RolloutError, match=r"would stop again: 1 of 1 devices failed .* rollout abort and start anew"):
        place.store.turn(stopped, Status.RUNNING, "", place.clock.now_s)
    assert place.status(rollout) is Status.STOPPED
    place.store.turn(stopped, Status.ABORTED, "", place.clock.now_s)
    again = place.begin()
    place.pass_s(1)
    assert place.status(again) is Status.RUNNING


def test_a_bundle_published_anew_with_another_tolerance_is_the_one_that_is_told(place: Site) -> None:
    place.be("cam")
    first = place.begin()
    place.pass_s(1)
    place.store.turn(first, Status.ABORTED, "", 0.0)
    other = place.publish(tolerance=0.5)
    assert other.manifest.bundle == place.bundle.manifest.bundle and other.manifest_bytes != place.bundle.manifest_bytes
    place.begin()
    place.pass_s(2)
    update = place.said.messages[-1][1]
    assert (update.manifest, update.signature) == (other.manifest_bytes, other.signature)


def test_a_bundle_that_could_not_be_opened_is_tried_again(place: Site) -> None:
    place.be("cam")
    place.begin()
    place.pass_s(1)
    key = place.settings.key.read_bytes()
    place.settings.key.write_bytes(b"none")
    place.bundle.path.touch()
    assert place.fetch("cam") == []
    place.settings.key.write_bytes(key)
    assert place.fetch("cam") == [], "not at every question"
    place.clock.now_s += RETRY_S
    assert len(place.fetch("cam")) == 1


def test_a_file_of_an_older_release_is_used_on(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.sqlite"
    old = sqlite3.connect(path)
    old.execute(
        "CREATE TABLE members(rollout INTEGER NOT NULL, device TEXT NOT NULL, place REAL NOT NULL, told_s REAL,"
        " stage TEXT, done_bytes INTEGER NOT NULL DEFAULT 0, size_bytes INTEGER NOT NULL DEFAULT 0,"
        " reason TEXT NOT NULL DEFAULT '', begun_s REAL, moved_s REAL NOT NULL DEFAULT 0,"
        " fate TEXT NOT NULL DEFAULT 'untold', PRIMARY KEY (rollout, device)) WITHOUT ROWID"
    )
    old.execute("INSERT INTO members(rollout, device, place, told_s, begun_s) VALUES (1, 'cam', 0.5, 7.0, 8.0)")
    old.commit()
    old.close()
    for _ in range(2):
        store = RolloutStore(path)
        rows = store._db.execute("SELECT device, online_s, stood_s FROM members").fetchall()
        assert [tuple(row) for row in rows] == [("cam", 0.0, 0.0)]
        store.close()
