"""``splitfleet metrics status | replay`` as an operator types them."""

from __future__ import annotations

import dataclasses
import json
import random
import sqlite3
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from typer.testing import CliRunner

from edge_broker_side.backlog import Backlog
from edge_broker_side.broker import free_port
from edge_broker_side.errors import EdgeError
from edge_broker_side.forwarder import Forwarder
from edge_broker_side.influx_settings import InfluxSettings
from edge_broker_side.recorder import RecorderSettings
from tests.edge_broker_side.points_made import frames, put, store_at
from tests.servers import database_of
from tools import metrics_doc
from tools.cli import _told
from tools.home import site_folder
from tools.metrics import app
from tools.metrics_servers import MetricsServer
from wire.settings import settings_from

Run = Callable[..., str]


@pytest.fixture
def run() -> Run:
    """Runs a command and returns what it printed."""

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(app, [str(one) for one in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output

    return run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of five points (four frames and the ledger's), two of them refused, two waiting."""
    path = tmp_path / "records.sqlite"
    store = store_at(path)
    put(store, frames(1, 2, 3, 4))
    store.close()
    backlog = Backlog(path)
    rows = backlog.next(3, 10**6)
    backlog.settle(rows[:1])
    backlog.settle(rows[1:2], "field type conflict")
    backlog.settle(rows[2:3], "field type conflict")
    backlog.close()
    return path


def told(run: Run, *arguments: object) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run("status", *arguments, "--json"))
    return answer


def test_status_tells_points_backlog_and_dead_letters_with_reasons(
    run: Run, path: Path, influxd: MetricsServer
) -> None:
    with database_of(influxd, "status"):
        answer = told(run, "--store", path, "--influx", influxd.url, "--database", "status")
    assert answer["stored"]["inference"] == 4 and answer["stored"]["ledger"] == 1
    standing = answer["forwarding"]
    assert (standing["waiting"], standing["dead"], standing["cursor"]) == (2, 2, 3) and standing["oldest_s"] >= 0
    (letter,) = answer["dead_letters"]
    assert (letter["measurement"], letter["reason"], letter["points"]) == ("inference", "field type conflict", 2)
    assert answer["answers"] is True and answer["problem"] == ""
    assert any("replay --dead" in line for line in answer["to_do"])


def test_status_as_a_table_has_the_same(run: Run, path: Path) -> None:
    text = run("status", "--store", path, "--influx", f"http://127.0.0.1:{free_port()}")
    assert "cannot be used" in text and "field type conflict" in text and "to do: no answer from" in text


def test_status_without_a_server_says_how_to_set_one(run: Run, path: Path) -> None:
    answer = told(run, "--store", path)
    assert answer["answers"] is None and any("[influx]" in line for line in answer["to_do"])


def test_status_of_a_missing_database_says_how_to_make_it(run: Run, path: Path, influxd: MetricsServer) -> None:
    answer = told(run, "--store", path, "--influx", influxd.url, "--database", "not-there")
    assert answer["answers"] is False and "CREATE DATABASE" in answer["to_do"][0]


def test_status_finds_the_settings_of_the_site(
    run: Run, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLITFLEET_HOME", str(tmp_path / "home"))
    with pytest.raises(EdgeError, match="give --settings or --store"):
        run("status", "--site", "plant")
    nobody = f"http://127.0.0.1:{free_port()}"
    document = {"site": "plant", "store": {"path": str(path)}, "influx": {"url": nobody, "database": "plant"}}
    settings = site_folder("plant") / "recorder.toml"
    settings.parent.mkdir(parents=True)
    settings.write_bytes(tomli_w.dumps(document).encode())
    answer = told(run, "--site", "plant")
    assert answer["store"] == str(path) and answer["server"] == {"url": nobody, "database": "plant"}
    assert answer["answers"] is False


def test_status_of_a_store_that_is_not_there_is_one_line(run: Run, tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="there is no store") as error:
        run("status", "--store", tmp_path / "none.sqlite")
    assert _told(error.value)


def test_options_that_contradict_each_other_are_refused(run: Run, path: Path) -> None:
    for arguments in (
        ("status", "--store", path, "--settings", path),
        ("status", "--store", path, "--database", "x"),
        ("replay", "--store", path),
        ("replay", "--store", path, "--dead", "--all"),
    ):
        assert "Invalid value" in run(*arguments)


def test_a_running_forwarder_takes_up_a_replay(run: Run, path: Path, influxd: MetricsServer) -> None:
    settings = InfluxSettings(influxd.url, "replayed-by-hand", create_database=True, period_s=0.02)
    forwarder = Forwarder(path, settings, random.Random(1))
    forwarder.start()
    try:
        wait_for(lambda: told(run, "--store", path)["forwarding"]["waiting"] == 0)
        assert "2 dead letters" in run("replay", "--store", path, "--dead")
        wait_for(lambda: told(run, "--store", path)["forwarding"]["dead"] == 0)
        assert json.loads(run("replay", "--store", path, "--since", "1h", "--json"))["waiting"] == 5
        wait_for(lambda: told(run, "--store", path)["forwarding"]["waiting"] == 0)
    finally:
        forwarder.close()
    with database_of(influxd, "replayed-by-hand") as server:
        (series,) = server.query("SELECT frame FROM inference")
    assert sorted(row[1] for row in series.rows) == [1, 2, 3, 4]


def test_replay_since_leaves_alone_what_is_older(run: Run, path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE inference SET stored_ms = 1000")
    db.close()
    assert json.loads(run("replay", "--store", path, "--since", "24h", "--json"))["waiting"] == 2
    assert "5 points wait" in run("replay", "--store", path, "--all")


def wait_for(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_document_has_every_measurement_and_setting() -> None:
    assert metrics_doc.main(["--check"]) == 0, "python -m tools.metrics_doc"
    text = metrics_doc.DOCUMENT.read_text(encoding="utf-8")
    block = text.partition("[influx]\n")[2].partition("```")[0]
    shown = [line.partition(" = ")[0] for line in block.splitlines() if line]
    assert sorted(shown) == sorted(field.name for field in dataclasses.fields(InfluxSettings))
    settings_from(
        RecorderSettings, {"site": "s", "store": {"path": "p"}, **tomllib.loads(f"[influx]\n{block}")}, "docs"
    )
