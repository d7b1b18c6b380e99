"""The recorder over real brokers: a receipt only for what is on disk, and every frame counted once."""

from __future__ import annotations

import resource
import signal
import sqlite3
from pathlib import Path

import pytest

from edge_broker_side.broker import Broker
from edge_broker_side.recorder import RecorderSettings, run
from edge_broker_side.store import Store, StoreCorrupt, StoreError, StoreSettings, open_store
from edge_broker_side.totals import totals
from tests.edge_broker_side.peers import Peer, Process, running
from wire.channels import (
    CAPABILITIES,
    DECISION,
    OUTCOMES,
    RECORDED,
    STATE,
    TELEMETRY,
    WORKER_LOAD,
    WORKER_STATE,
)
from wire.link import LinkSettings
from wire.messages import (
    Capabilities,
    Decision,
    DeviceState,
    EnergySource,
    FoldedCount,
    FrameOutcome,
    Outcome,
    Outcomes,
    Recorded,
    State,
    Telemetry,
    WorkerLoad,
    WorkerState,
)
from wire.plan import Plan

PLAN = Plan("net", "c2", "q8")


def outcomes(number: int, *frames: int, captured: int = 0, folded: tuple[FoldedCount, ...] = ()) -> Outcomes:
    rows = tuple(FrameOutcome(n, Outcome.EDGE, 0, 1_700_000_000_000, 10.0, reason="r" * 200) for n in frames)
    return Outcomes(1, number, captured or max(frames), (PLAN,), rows, folded)


def recorder(broker: Broker, site: str, path: Path) -> RecorderSettings:
    return RecorderSettings(site, StoreSettings(str(path)), link=LinkSettings(port=broker.port, backoff_min_s=0.05))


def test_everything_that_is_said_is_stored(any_broker: Broker, site: str, tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    plan = PLAN
    able = Capabilities(1, "0.1", "pi", "pi4", "rt", 4, 1000, (), (), EnergySource.MODELLED, 1.0, 100.0)
    with running(run, recorder(any_broker, site, path)), Peer(any_broker, site, RECORDED) as peer:
        sayings = [
            (STATE, State(DeviceState.READY, 1), None),
            (CAPABILITIES, able, None),
            (TELEMETRY, Telemetry(1, 1, 5, plan, 0, 1.0, 0, 0, counters={"late": 2}), None),
            (DECISION, Decision(1, plan, 100.0, "fixed", "because", 5), None),
            (WORKER_STATE, WorkerState(DeviceState.READY, 1), "edge"),
            (WORKER_LOAD, WorkerLoad(1, 5, 1000.0, 0, 1, 1, 0, 0.5), "edge"),
        ]  # fmt: skip
        while not peer.of(RECORDED):  # until the recorder has subscribed
            peer.say(OUTCOMES, outcomes(1, 1))
            peer.take(0.1)
        for channel, message, name in sayings:
            peer.say(channel, message, name)
            peer.say(channel, message, name)  # at least once may be twice
        peer.say(OUTCOMES, outcomes(2, 2, captured=5, folded=(FoldedCount(Outcome.DROPPED, "full", 2),)))
        peer.until(lambda: Recorded(1, 2) in peer.of(RECORDED))
    told = totals(path, site).fleet
    assert told.outcomes == {"edge": 2, "device": 0, "fallback": 0, "dropped": 2}
    assert (told.captured, told.gap, told.decisions) == (5, 1, 1)
    with sqlite3.connect(path) as db:
        counts = [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("telemetry", "worker")]
        assert counts == [1, 1]
        presence = db.execute("SELECT name, role, state FROM presence ORDER BY name").fetchall()
        assert presence == [("cam", "device", "ready"), ("edge", "worker", "ready")]
    db.close()


def test_repeats_are_acknowledged_again_and_counted_once(any_broker: Broker, site: str, tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    with Peer(any_broker, site, RECORDED) as peer:
        with running(run, recorder(any_broker, site, path)):
            while not peer.of(RECORDED):
                peer.say(OUTCOMES, outcomes(1, 1, 2, 3))
                peer.take(0.1)
        acknowledged = len(peer.of(RECORDED))
        with running(run, recorder(any_broker, site, path)):  # it was restarted, and the device never heard
            while len(peer.of(RECORDED)) <= acknowledged:
                peer.say(OUTCOMES, outcomes(1, 1, 2, 3))
                peer.take(0.1)
    assert set(peer.of(RECORDED)) == {Recorded(1, 1)}
    assert totals(path, site).fleet.outcomes["edge"] == 3


def test_what_is_said_while_the_recorder_is_away_waits_at_mosquitto(
    mosquitto: Broker, site: str, tmp_path: Path
) -> None:
    path = tmp_path / "records.sqlite"
    with Peer(mosquitto, site, RECORDED) as peer:
        with running(run, recorder(mosquitto, site, path)):
            while not peer.of(RECORDED):
                peer.say(OUTCOMES, outcomes(1, 1))
                peer.take(0.1)
        for number in range(2, 30):
            peer.say(OUTCOMES, outcomes(number, number))
        with running(run, recorder(mosquitto, site, path)):
            peer.until(lambda: Recorded(1, 29) in peer.of(RECORDED))
    assert totals(path, site).fleet.outcomes["edge"] == 29


def test_poison_costs_a_counter_and_no_receipt(any_broker: Broker, site: str, tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    with running(run, recorder(any_broker, site, path)), Peer(any_broker, site, RECORDED) as peer:
        while not peer.of(RECORDED):
            peer.say(OUTCOMES, outcomes(1, 1))
            peer.take(0.1)
        bad_plan = (FrameOutcome(1, Outcome.EDGE, 7, 1, 1.0),)
        peer.say(OUTCOMES, Outcomes(1, 77, 1, (PLAN,), bad_plan))
        peer.say(OUTCOMES, Outcomes(1, 78, -5))
        for channel in (OUTCOMES, STATE, TELEMETRY, CAPABILITIES, DECISION, WORKER_STATE, WORKER_LOAD):
            peer.raw(channel, b"\x93rubbish")
            peer.raw(channel, b"")
        peer.say(OUTCOMES, outcomes(2, 2))
        peer.until(lambda: Recorded(1, 2) in peer.of(RECORDED))
        assert {receipt.batch for receipt in peer.of(RECORDED)} == {1, 2}
    assert totals(path, site).fleet.captured == 2


def settings_file(folder: Path, broker: Broker, site: str, store: Path) -> Path:
    path = folder / "recorder.toml"
    path.write_text(f'site = "{site}"\n[store]\npath = "{store}"\n[link]\nport = {broker.port}\n')
    return path


def test_a_full_disk_costs_receipts_but_neither_the_process_nor_a_frame(
    mosquitto: Broker, site: str, tmp_path: Path
) -> None:
    """The file size limit of the process stands for the full disk: writes fail until it is lifted."""
    path = tmp_path / "records.sqlite"
    toml = settings_file(tmp_path, mosquitto, site, path)
    with Peer(mosquitto, site, RECORDED) as peer, Process("recorder", toml, tmp_path / "recorder.log") as process:
        while not peer.of(RECORDED):
            peer.say(OUTCOMES, outcomes(1, 1))
            peer.take(0.1)
        unlimited = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (256 * 1024, unlimited[1]))
        number = 1
        while "nothing is recorded" not in process.log.read_text():
            number += 1
            peer.say(OUTCOMES, outcomes(number, *range(number * 100, number * 100 + 100)))
            peer.until(lambda: not peer.link.waiting)
            peer.take(0.1)
        assert process.alive
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)
        missing = {sent for sent in range(1, number + 1) if Recorded(1, sent) not in peer.of(RECORDED)}
        assert missing
        while missing:
            for sent in sorted(missing)[:20]:
                peer.say(OUTCOMES, outcomes(sent, *range(sent * 100, sent * 100 + 100)))
            peer.until(lambda: not peer.link.waiting)
            peer.take(0.2)
            missing = {sent for sent in missing if Recorded(1, sent) not in peer.of(RECORDED)}
        assert process.end() == 0
    assert totals(path, site).fleet.outcomes["edge"] == 1 + (number - 1) * 100


def test_a_killed_recorder_has_what_it_gave_receipts_for(mosquitto: Broker, site: str, tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    toml = settings_file(tmp_path, mosquitto, site, path)
    with Peer(mosquitto, site, RECORDED) as peer, Process("recorder", toml, tmp_path / "recorder.log") as process:
        while len(peer.of(RECORDED)) < 20:
            peer.say(OUTCOMES, outcomes(len(peer.of(RECORDED)) + 1, len(peer.of(RECORDED)) + 1))
            peer.take(0.05)
        process.end(signal.SIGKILL)
    receipts = {receipt.batch for receipt in peer.of(RECORDED)}
    with sqlite3.connect(path) as db:
        stored = {frame for (frame,) in db.execute("SELECT frame FROM inference")}
    db.close()
    assert receipts <= stored


def test_a_store_damaged_while_running_is_replaced(mosquitto: Broker, site: str, tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    with running(run, recorder(mosquitto, site, path)), Peer(mosquitto, site, RECORDED) as peer:
        while not peer.of(RECORDED):
            peer.say(OUTCOMES, outcomes(1, 1))
            peer.take(0.1)
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        with path.open("r+b") as file:
            file.write(b"not a database at all" * 1000)
        while not list(tmp_path.glob("records.damaged-*")):
            peer.say(OUTCOMES, outcomes(2, *range(2, 102)))
            peer.take(0.1)
        while Recorded(1, 3) not in peer.of(RECORDED):
            peer.say(OUTCOMES, outcomes(3, 103))
            peer.take(0.1)
    assert totals(path, site).fleet.outcomes["edge"] > 0


def test_damage_that_only_trimming_meets_sets_the_store_aside_too(
    mosquitto: Broker, site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_broker_side.recorder.TRIM_EVERY_S", 0.0)
    path, broken = tmp_path / "records.sqlite", [True, True]
    was_trim, was_open = Store.trim, open_store

    def trim(store: Store) -> int:
        if broken[0]:
            broken[0] = False
            raise StoreCorrupt(f"{path} is damaged: a page nobody writes to")
        return was_trim(store)

    def opened(settings: StoreSettings) -> Store:
        if not broken[0] and broken[1]:
            broken[1] = False
            raise StoreError("the disk is full")
        return was_open(settings)

    monkeypatch.setattr(Store, "trim", trim)
    monkeypatch.setattr("edge_broker_side.recorder.open_store", opened)
    with running(run, recorder(mosquitto, site, path)), Peer(mosquitto, site, RECORDED) as peer:
        while not list(tmp_path.glob("records.damaged-*")):
            peer.take(0.1)
        while Recorded(1, 7) not in peer.of(RECORDED):
            peer.say(OUTCOMES, outcomes(7, 1))
            peer.take(0.1)
    assert broken == [False, False]
    assert totals(path, site).fleet.outcomes["edge"] == 1
