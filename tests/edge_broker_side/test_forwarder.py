"""The forwarder against real servers: whatever befalls them, every point arrives once, or is told and kept."""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_broker_side.backlog import Backlog, read_refusals, reading
from edge_broker_side.forwarder import Forwarder
from edge_broker_side.influx import Server, open_server
from edge_broker_side.influx_settings import InfluxSettings
from edge_broker_side.store import Store
from tests.edge_broker_side.points_made import AT_MS, frames, put, store_at
from tests.edge_broker_side.stub_server import stub_server
from tests.servers import database_of, exported
from tools.metrics_servers import MetricsServer

PATIENCE_S = 20.0
SECRET = "pw-of-nobody"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = store_at(path)
    yield store
    store.close()


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MetricsServer]:
    """An influxd that tests may kill; it is up again at the end of each."""
    with MetricsServer("influxd", tmp_path_factory.mktemp("mortal")) as server:
        yield server


def until(true: Callable[[], object], told: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"waited in vain: {told()}"
        time.sleep(0.01)


def at(server: MetricsServer, database: str, **more: Any) -> InfluxSettings:
    return InfluxSettings(
        server.url, database, period_s=0.02, backoff_min_s=0.02, backoff_max_s=0.2, timeout_s=2.0, **more
    )


@contextmanager
def forwarding(path: Path, settings: InfluxSettings) -> Iterator[Forwarder]:
    forwarder = Forwarder(path, settings, random.Random(1))
    forwarder.start()
    try:
        yield forwarder
    finally:
        forwarder.close()


def waits(store: Store) -> int:
    standing = store.standing()
    return -1 if standing is None else standing.waiting


def dead(store: Store) -> int:
    standing = store.standing()
    return -1 if standing is None else standing.dead


def drained(store: Store, forwarder: Forwarder) -> None:
    until(lambda: waits(store) == 0, lambda: (store.standing(), forwarder.problem))


def frames_on(server: Server) -> list[int]:
    """Return the frame number of every point there, rising; a doubled one stands there twice."""
    return sorted(row[1] for one in server.query("SELECT frame FROM inference") for row in one.rows)


def test_a_server_that_is_down_at_start_is_waited_for(
    mortal: MetricsServer, store: Store, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(store, frames(*range(1, 101)))
    mortal.kill()
    with forwarding(path, at(mortal, "down", create_database=True)) as forwarder:
        until(lambda: forwarder.problem)
        assert "is the server up" in forwarder.problem and not forwarder.reachable
        assert waits(store) == 101
        mortal.start()
        drained(store, forwarder)
        until(lambda: forwarder.reachable and not forwarder.problem)
    with database_of(mortal, "down") as server:
        assert frames_on(server) == list(range(1, 101))
    assert len([one for one in caplog.records if one.levelno == logging.WARNING]) < 5, "the same complaint is a flood"


def test_a_server_killed_under_load_again_and_again_loses_and_doubles_nothing(
    mortal: MetricsServer, store: Store, path: Path
) -> None:
    with forwarding(path, at(mortal, "killed", create_database=True, batch_points=50)) as forwarder:
        number = 1
        for _ in range(3):
            sent = forwarder.counters["forwarded"]
            for _ in range(30):
                put(store, frames(*range(number, number + 20)))
                number += 20
            until(lambda before=sent: forwarder.counters["forwarded"] > before)  # type: ignore[misc]
            mortal.kill()
            put(store, frames(*range(number, number + 20)))
            number += 20
            until(lambda: forwarder.problem)
            mortal.start()
        drained(store, forwarder)
    with database_of(mortal, "killed") as server:
        assert frames_on(server) == list(range(1, number))
    assert dead(store) == 0


def test_a_wrong_password_is_told_and_a_mended_one_taken_without_restart(
    tmp_path: Path, store: Store, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = tmp_path / "token"
    token.write_text("not-it")
    with MetricsServer("influxd", tmp_path / "influxd", auth=True) as process:
        admin = open_server(InfluxSettings(process.url))
        admin.query(f"CREATE USER admin WITH PASSWORD '{SECRET}' WITH ALL PRIVILEGES")
        admin.close()
        caplog.clear()
        put(store, frames(1, 2, 3))
        settings = at(process, "locked", username="admin", token_file=str(token), create_database=True)
        with forwarding(path, settings) as forwarder:
            until(lambda: forwarder.problem)
            assert str(token) in forwarder.problem and "password" in forwarder.problem
            assert waits(store) == 4
            token.write_text(SECRET)
            drained(store, forwarder)
        assert dead(store) == 0
    assert SECRET not in caplog.text and "not-it" not in caplog.text


def test_a_database_that_is_made_later_gets_everything(influxd: MetricsServer, store: Store, path: Path) -> None:
    put(store, frames(1, 2, 3))
    with forwarding(path, at(influxd, "later")) as forwarder:
        until(lambda: forwarder.problem)
        assert 'CREATE DATABASE "later"' in forwarder.problem
        assert waits(store) == 4
        with database_of(influxd, "later") as server:
            drained(store, forwarder)
            assert frames_on(server) == [1, 2, 3]
    assert dead(store) == 0


def test_exactly_the_bad_points_of_a_batch_are_dead_with_the_servers_reason(
    influxd: MetricsServer, store: Store, path: Path
) -> None:
    put(store, frames(*range(1, 201)))
    put(store, frames(201, 202, latency_ms=float("inf")))
    put(store, frames(*range(203, 301)))
    with database_of(influxd, "partial") as server, forwarding(path, at(influxd, "partial")) as forwarder:
        drained(store, forwarder)
        assert frames_on(server) == [n for n in range(1, 301) if n not in (201, 202)]
    with reading(path) as db:
        (refusal,) = read_refusals(db)
        lines = [line for (line,) in db.execute("SELECT line FROM dead_letters ORDER BY number")]
    assert (refusal.points, refusal.measurement) == (2, "inference") and "invalid boolean" in refusal.reason
    assert all(f"frame={n}i,latency_ms=inf" in line for n, line in zip((201, 202), lines, strict=True))
    assert forwarder.counters["dead_letters"] == 2 and forwarder.counters["forwarded"] == 301


def test_points_refused_for_a_fields_type_are_taken_once_it_is_mended(
    influxd: MetricsServer, store: Store, path: Path
) -> None:
    with database_of(influxd, "types-forwarded") as server:
        server.write([f'inference,site=plant,device=cam latency_ms="long" {AT_MS}000000'])  # of another program
        put(store, frames(1, 2, 3))
        with forwarding(path, at(influxd, "types-forwarded")) as forwarder:
            drained(store, forwarder)
            assert dead(store) == 3
            with reading(path) as db:
                (refusal,) = read_refusals(db)
            assert refusal.reason.startswith("field type conflict") and "latency_ms" in refusal.reason
            assert [len(one.rows) for one in server.query("SELECT counted FROM ledger")] == [1], "the good one is there"
            server.query("DROP MEASUREMENT inference")
            backlog = Backlog(path)
            assert backlog.replay_dead() == 3
            backlog.close()
            until(lambda: dead(store) == 0)
        assert frames_on(server) == [1, 2, 3]


def test_a_clock_that_jumps_back_hides_no_point(influxd: MetricsServer, store: Store, path: Path) -> None:
    put(store, frames(*range(1, 51)))
    put(store, frames(*range(51, 101), at_ms=AT_MS - 50))  # the same milliseconds again
    put(store, frames(*range(101, 151), at_ms=5))  # a board without a clock
    with database_of(influxd, "clock") as server, forwarding(path, at(influxd, "clock")) as forwarder:
        drained(store, forwarder)
        assert frames_on(server) == list(range(1, 151))


def test_a_replay_overwrites_and_doubles_nothing(influxd: MetricsServer, store: Store, path: Path) -> None:
    put(store, frames(*range(1, 101)))
    with database_of(influxd, "replayed") as server, forwarding(path, at(influxd, "replayed")) as forwarder:
        drained(store, forwarder)
        backlog = Backlog(path)
        assert backlog.replay_since(0) == 101
        backlog.close()
        until(lambda: forwarder.counters["forwarded"] == 202)
        assert frames_on(server) == list(range(1, 101))


def test_the_2x_path_brings_everything_and_goes_on_after_a_restart(tmp_path: Path, store: Store, path: Path) -> None:
    with MetricsServer("victoria-metrics", tmp_path / "victoria") as process:
        with forwarding(path, at(process, "bucket", batch_points=100)) as forwarder:
            put(store, frames(*range(1, 501)))
            drained(store, forwarder)
            process.stop()
            put(store, frames(*range(501, 601)))
            until(lambda: forwarder.problem)
            process.start()
            drained(store, forwarder)
        found = exported(process, "inference_frame")
    assert {value for _, value in found} == set(range(1, 601))
    assert len(set(found)) == 600, "a point has one stamp, however often it was sent"


def test_what_waits_at_the_end_is_sent_before_it(influxd: MetricsServer, store: Store, path: Path) -> None:
    with database_of(influxd, "last") as server:
        put(store, frames(1))
        with forwarding(path, InfluxSettings(influxd.url, "last", period_s=60.0)) as forwarder:
            drained(store, forwarder)
            put(store, frames(2, 3))
        assert frames_on(server) == [1, 2, 3]


def test_a_server_that_answers_with_nonsense_ends_nothing(store: Store, path: Path) -> None:
    put(store, frames(1))
    with stub_server(status=200, body=b"\xff\xfe{", headers={"X-Influxdb-Version": "1.8"}) as stub:
        settings = InfluxSettings(
            stub.url, create_database=True, period_s=0.02, backoff_min_s=0.02, backoff_max_s=0.05, timeout_s=2.0
        )
        with forwarding(path, settings) as forwarder:
            until(lambda: "does not answer /query" in forwarder.problem)
            stub.status, stub.body = 503, b""
            until(lambda: "503" in forwarder.problem)
            stub.status, stub.body = 200, b'{"results":[]}'
            drained(store, forwarder)


def test_a_server_that_never_answers_is_given_up_and_does_not_hold_the_end(store: Store, path: Path) -> None:
    put(store, frames(1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = InfluxSettings(
            f"http://127.0.0.1:{silent.getsockname()[1]}", api="v1", backoff_min_s=0.02, timeout_s=0.2
        )
        with forwarding(path, settings) as forwarder:
            until(lambda: "nothing within 0.2 s" in forwarder.problem)
        assert not any(thread.name == "forwarder" for thread in threading.enumerate())
    assert waits(store) == 2


def test_an_error_of_our_own_is_logged_and_the_thread_goes_on(
    influxd: MetricsServer, store: Store, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(store, frames(1))
    with database_of(influxd, "own") as server:
        store._db.execute(
            "INSERT INTO telemetry (number, at_ms, stored_ms, site, device, counters) VALUES (77, 1, 1, 's', 'd', '{')"
        )
        with forwarding(path, at(influxd, "own")) as forwarder:
            until(lambda: "see the log" in forwarder.problem)
            store._db.execute("DELETE FROM telemetry")
            until(lambda: forwarder.counters["forwarded"] == 2)
        assert frames_on(server) == [1]
    assert "JSONDecodeError" in caplog.text
