"""The recorder beside a metrics server: it tells how it fares, and lives whatever the server or the disk does."""

from __future__ import annotations

import dataclasses
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import tomli_w

from edge_broker_side.broker import Broker, free_port
from edge_broker_side.influx import Server
from edge_broker_side.influx_settings import InfluxSettings
from edge_broker_side.recorder import RecorderSettings, run
from edge_broker_side.store import StoreSettings
from tests.edge_broker_side.peers import Peer, Process, running
from tests.edge_broker_side.points_made import AT_MS, frames
from tests.servers import database_of
from tools.metrics_servers import MetricsServer
from wire.channels import OUTCOMES, RECORDED, RECORDER_STATE
from wire.exposition import PrometheusSettings
from wire.link import LinkSettings
from wire.messages import FoldedCount, Outcome, Outcomes, Recorded, RecorderState
from wire.settings import load_settings


def quick(url: str, database: str, **more: Any) -> InfluxSettings:
    return InfluxSettings(url, database, period_s=0.02, backoff_min_s=0.02, backoff_max_s=0.2, **more)


def recorder(broker: Broker, site: str, path: Path, influx: InfluxSettings | None, **more: Any) -> RecorderSettings:
    link = LinkSettings(port=broker.port, backoff_min_s=0.05)
    return RecorderSettings(site, StoreSettings(str(path)), link=link, influx=influx, state_period_s=0.2, **more)


def numbered(batch: int, *numbers: int, folded: tuple[FoldedCount, ...] = ()) -> Outcomes:
    return dataclasses.replace(frames(*numbers), batch=batch, folded=folded)


def say_until_recorded(peer: Peer, message: Outcomes) -> None:
    again_s = 0.0
    while Recorded(message.session, message.batch) not in peer.of(RECORDED):
        if time.monotonic() >= again_s:
            peer.say(OUTCOMES, message)
            again_s = time.monotonic() + 0.5
        peer.take(0.1)


def latest(peer: Peer) -> RecorderState:
    states = peer.of(RECORDER_STATE)
    return states[-1] if states else RecorderState(0, 0, 0.0, 0, 0)


def frames_on(server: Server) -> list[int]:
    return sorted(row[1] for one in server.query("SELECT frame FROM inference") for row in one.rows)


def ledgers(path: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT device, captured, counted, gap, folded FROM ledger ORDER BY number").fetchall()
    db.close()
    return rows


def test_each_change_of_a_devices_counts_is_a_ledger_point_and_a_repeat_is_none(
    mosquitto: Broker, site: str, tmp_path: Path
) -> None:
    path = tmp_path / "records.sqlite"
    lost = FoldedCount(Outcome.DROPPED, "full", 2)
    with running(run, recorder(mosquitto, site, path, None)), Peer(mosquitto, site, RECORDED) as peer:
        say_until_recorded(peer, dataclasses.replace(numbered(1, 1, 2), captured=5))
        say_until_recorded(peer, numbered(2, 3, folded=(lost,)))
        for _ in range(3):
            peer.say(OUTCOMES, numbered(2, 3, folded=(lost,)))
        say_until_recorded(peer, dataclasses.replace(numbered(3, 1), session=2, captured=1))
    assert ledgers(path) == [
        ("cam", 5, 2, 3, "{}"),
        ("cam", 5, 5, 0, '{"dropped": 2}'),
        ("cam", 6, 6, 0, '{"dropped": 2}'),
    ]


def test_it_tells_what_it_stored_and_what_waits(
    mosquitto: Broker, site: str, tmp_path: Path, influxd: MetricsServer
) -> None:
    path = tmp_path / "records.sqlite"
    settings = recorder(mosquitto, site, path, quick(influxd.url, site))
    with Peer(mosquitto, site, RECORDED, RECORDER_STATE) as peer:
        with running(run, settings):
            say_until_recorded(peer, numbered(1, 1, 2, 3))
            peer.until(lambda: latest(peer).problem and latest(peer).waiting >= 4)
            away = latest(peer)
            assert not away.reachable and "CREATE DATABASE" in away.problem
            assert away.oldest_s > 0 and away.store_bytes > 0 and site in away.server
            with database_of(influxd, site) as server:
                peer.until(lambda: latest(peer).reachable)
                peer.until(lambda: latest(peer).waiting <= 1)  # its own last point
                assert frames_on(server) == [1, 2, 3]
                assert sum(state.forwarded for state in peer.of(RECORDER_STATE)) >= 4
                assert latest(peer).problem == "" and latest(peer).dead == 0
        with database_of(influxd, site) as server:
            (told,) = server.query("SELECT count(waiting) FROM recorder")
        assert told.rows[0][1] >= 2
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT DISTINCT recorder FROM recorder").fetchall() == [("recorder",)]
    db.close()


def test_prometheus_sees_the_backlog(mosquitto: Broker, site: str, tmp_path: Path) -> None:
    port = free_port()
    nobody = f"http://127.0.0.1:{free_port()}"
    settings = recorder(
        mosquitto, site, tmp_path / "r.sqlite", quick(nobody, site, api="v1"), prometheus=PrometheusSettings(port)
    )
    with running(run, settings), Peer(mosquitto, site, RECORDED, RECORDER_STATE) as peer:
        say_until_recorded(peer, numbered(1, 1, 2, 3))
        peer.until(lambda: latest(peer).waiting >= 4)
        with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
    waiting = [line for line in text.splitlines() if line.startswith("splitfleet_recorder_waiting{")]
    assert len(waiting) == 1 and float(waiting[0].rsplit(" ", 1)[1]) >= 4


def test_a_recorder_killed_while_it_forwards_goes_on_where_it_was(
    mosquitto: Broker, site: str, tmp_path: Path, influxd: MetricsServer
) -> None:
    path, toml = tmp_path / "records.sqlite", tmp_path / "recorder.toml"
    influx = {"url": influxd.url, "database": site, "create_database": True, "period_s": 0.02, "batch_points": 7}
    document = {
        "site": site,
        "state_period_s": 0.2,
        "store": {"path": str(path)},
        "link": {"port": mosquitto.port, "backoff_min_s": 0.05},
        "influx": influx,
    }
    toml.write_bytes(tomli_w.dumps(document).encode())
    assert load_settings(RecorderSettings, toml).influx == InfluxSettings(**influx)  # type: ignore[arg-type]
    said = 0
    with Peer(mosquitto, site, RECORDED, RECORDER_STATE) as peer:
        for _ in range(2):
            with Process("recorder", toml, tmp_path / "log") as process:
                for _ in range(5):
                    said += 1
                    say_until_recorded(peer, numbered(said, *range(10 * said, 10 * said + 10)))
                process.end(signal.SIGKILL)
        started_ms = time.time_ns() // 1_000_000
        with Process("recorder", toml, tmp_path / "log") as process:
            peer.until(lambda: latest(peer).session >= started_ms and latest(peer).forwarded > 0)
            assert process.end() == 0
    with database_of(influxd, site) as server:
        assert frames_on(server) == list(range(10, 10 * said + 10))


def test_a_store_damaged_while_it_is_forwarded_is_replaced_and_forwarding_goes_on(
    mosquitto: Broker, site: str, tmp_path: Path, influxd: MetricsServer
) -> None:
    path = tmp_path / "records.sqlite"
    settings = recorder(mosquitto, site, path, quick(influxd.url, site, create_database=True))
    with running(run, settings), Peer(mosquitto, site, RECORDED, RECORDER_STATE) as peer:
        say_until_recorded(peer, numbered(1, 1))
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        with path.open("r+b") as file:
            file.write(b"not a database at all" * 1000)
        while not list(tmp_path.glob("records.damaged-*")):
            peer.say(OUTCOMES, numbered(2, *range(2, 102)))
            peer.take(0.1)
        say_until_recorded(peer, numbered(3, 500))
        with database_of(influxd, site) as server:
            peer.until(lambda: 500 in frames_on(server))


def test_a_full_disk_stops_neither_what_is_stored_nor_what_is_forwarded(
    mosquitto: Broker, site: str, tmp_path: Path, influxd: MetricsServer
) -> None:
    """The disk is full for a process that may write no file beyond a bound, as in ``ulimit -f``."""
    path, toml = tmp_path / "records.sqlite", tmp_path / "recorder.toml"
    document = {
        "site": site,
        "state_period_s": 0.2,
        "store": {"path": str(path)},
        "link": {"port": mosquitto.port, "backoff_min_s": 0.05},
        "influx": {"url": influxd.url, "database": site, "create_database": True, "period_s": 0.02},
    }
    toml.write_bytes(tomli_w.dumps(document).encode())
    with (
        Peer(mosquitto, site, RECORDED, RECORDER_STATE) as peer,
        Process("recorder", toml, tmp_path / "log") as process,
    ):
        say_until_recorded(peer, numbered(1, 1))
        limit_file_bytes(process.pid, 300_000)
        number = 1
        while latest(peer).counters.get("store_failures", 0) == 0:
            number += 1
            first = AT_MS % 1000 + 200 * number
            peer.say(OUTCOMES, numbered(number, *range(first, first + 200)))
            peer.take(0.02)
        assert process.alive
        limit_file_bytes(process.pid, None)
        say_until_recorded(peer, numbered(number + 1, 1_000_000))
        with database_of(influxd, site) as server:
            peer.until(lambda: 1_000_000 in frames_on(server))
        assert process.end() == 0
        stored = frames_stored(path)
    with database_of(influxd, site) as server:
        assert frames_on(server) == stored
    assert "nothing is recorded" in (tmp_path / "log").read_text()


def frames_stored(path: Path) -> list[int]:
    with sqlite3.connect(path) as db:
        rows = [frame for (frame,) in db.execute("SELECT frame FROM inference ORDER BY frame")]
    db.close()
    return rows


def limit_file_bytes(pid: int, limit: int | None) -> None:
    """Let a running process write no file beyond a size; ``None`` lifts it."""
    import resource

    hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if limit is None else limit, hard))
