"""``splitfleet report`` as a user types it: which site, which time, which source, which form."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_broker_side.errors import EdgeError
from edge_broker_side.store import Store, StoreSettings
from edge_broker_side.store_file import rows_after
from policy.errors import PolicyError
from tests.edge_broker_side.reporting.sites import BEGAN_MS, SITE, frames
from tests.servers import database_of
from tests.tools.reports.conftest import Run
from tools.metrics_servers import MetricsServer
from tools.reports.command import moment_ms
from wire.errors import WireError

NOW_MS = 1_772_323_200_000  # 2026-03-01T00:00 UTC
ALL = ("--since", "all")


def document(run: Run, *arguments: str) -> Any:
    told = run(*ALL, "--json", *arguments)
    assert told.exit_code == 0
    return json.loads(told.stdout)


def test_the_site_written_last_is_reported_and_named(run: Run) -> None:
    told = run(*ALL, "--format", "html")
    assert told.exit_code == 0
    assert "written last" in told.stderr and f"600 frames of site {SITE}: report-{SITE}.html" in told.stderr
    assert Path(f"report-{SITE}.html").read_text().startswith("<!doctype html>")


def test_a_site_can_be_named_in_three_ways(run: Run, home: Path) -> None:
    assert document(run, "--site", "older")["fleet"]["figures"]["frames"] == 5
    folder = home / "sites" / "older"
    assert document(run, "--settings", str(folder / "recorder.toml"))["scope"]["site"] == "older"
    assert document(run, "--store", str(folder / "points.sqlite"))["scope"]["site"] == "older"


def test_window_and_devices_narrow_it(run: Run) -> None:
    all_of_it = document(run)
    some = document(run, "--device", "cam-0", "--device", "cam-2")
    assert [one["device"] for one in some["devices"]] == ["cam-0", "cam-2"]
    assert some["fleet"]["figures"]["frames"] == 400
    assert some["devices"][0] == all_of_it["devices"][0]
    # The points begin at 22:13:20.123 and come every quarter of a second.
    told = json.loads(run("--since", "2023-11-14T22:13:40", "--until", "2023-11-14T22:14:00", "--json").stdout)
    assert told["fleet"]["figures"]["frames"] == 80
    assert told["fleet"]["decisions"] == 60
    nothing = json.loads(run("--json").stdout)
    assert nothing["fleet"]["figures"]["frames"] == 0
    assert any("--since all" in note for note in nothing["notes"])


def test_csv_has_a_row_per_device_plan_and_source_of_energy(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run(*ALL, "--format", "csv").stdout)))
    assert len(rows) == 18
    assert len({(row["device"], row["version"], row["energy_source"]) for row in rows}) == 18
    assert sum(int(row["frames"]) for row in rows) == 600
    outcomes = ("edge", "device", "fallback", "dropped")
    assert all(int(row["frames"]) == sum(int(row[f"outcome_{one}"]) for one in outcomes) for row in rows)
    energy = {one["source"]: one["sum_mj"] for one in document(run)["fleet"]["figures"]["energy"]}
    for source, total in energy.items():
        told = sum(float(row["energy_mj_sum"]) for row in rows if row["energy_source"] == source)
        assert told == pytest.approx(total)
    assert any(row["version"].startswith("'=") for row in rows), "a spreadsheet would run it"


def test_table_tells_everything_and_can_be_written_to_a_file(run: Run) -> None:
    told = run(*ALL)
    assert told.exit_code == 0
    for word in ("6 of 1,", "fleet", "cam-2", "modelled", "measured", "no-answer", "edge-2", "a2c", "and 55 before"):
        assert word in told.stdout
    run(*ALL, "--out", "deep/report.txt")
    assert "and 55 before" in Path("deep/report.txt").read_text()


def test_the_server_tells_the_same_by_the_command(run: Run, home: Path, influxd: MetricsServer) -> None:
    database = "report-command"
    with (
        closing(sqlite3.connect(home / "sites" / SITE / "points.sqlite")) as db,
        database_of(influxd, database) as server,
    ):
        server.write([row.line for row in rows_after(db, 0, 10**6)])
    remote = document(run, "--source", "influx", "--influx", influxd.url, "--database", database, "--site", SITE)
    local = document(run)
    assert influxd.url in remote["source"]
    assert remote["fleet"]["figures"]["times"] == local["fleet"]["figures"]["times"]
    assert [one["decisions"] for one in remote["devices"]] == [one["decisions"] for one in local["devices"]]
    assert any("--source sqlite" in note for note in remote["notes"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--site", "plant-9"), "recorder.toml"),
        (("--site", "Plant 9"), "Plant 9"),
        (("--device", "Cam 1"), "Cam 1"),
        (("--since", "yesterday"), "--since yesterday"),
        (("--until", "2026-13-01"), "--until 2026-13-01"),
        (("--settings", "none.toml"), "none.toml"),
        (("--store", "none.sqlite"), "none.sqlite"),
        (("--source", "influx"), "--influx"),
        (("--source", "influx", "--site", SITE, "--influx", "nonsense"), "nonsense"),
        (("--source", "influx", "--site", SITE, "--influx", "http://127.0.0.1:1"), "127.0.0.1:1"),
    ],
)
def test_what_cannot_be_is_told(run: Run, arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises((EdgeError, PolicyError, WireError), match=words.replace("+", r"\+")):
        run(*arguments)


def test_a_store_of_several_sites_wants_one_named(run: Run, home: Path, tmp_path: Path) -> None:
    path = str(home / "sites" / SITE / "points.sqlite")
    with pytest.raises(EdgeError, match="elsewhere and plant"):
        run("--store", path)
    assert document(run, "--store", path, "--site", "elsewhere")["fleet"]["figures"]["frames"] == 20
    (tmp_path / "rubbish").write_bytes(b"rubbish" * 999)
    with pytest.raises(EdgeError, match="not a recorder's store"):
        run("--store", str(tmp_path / "rubbish"))


def test_a_machine_without_sites_says_what_to_do(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITFLEET_HOME", str(tmp_path))
    with pytest.raises(EdgeError, match="--store"):
        run()


def test_a_clock_that_says_anything_is_reported(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "points.sqlite"
    with closing(Store(StoreSettings(str(path)))) as store:
        points = list(frames(30))
        wild = [-(2**62), -1, 253_402_300_800_000, 2**62]
        store.write(
            [type(point)(point.measurement, at_ms, point.values) for point, at_ms in zip(points, wild, strict=False)]
        )
        store.write(points[4:])
    for form in ("table", "csv", "html", "json"):
        told = run(*ALL, "--store", str(path), "--site", SITE, "--format", form, "--out", "out")
        assert told.exit_code == 0
    assert json.loads(Path("out").read_text())["fleet"]["figures"]["frames"] == 30


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("all", None),
        ("", None),
        ("90s", NOW_MS - 90_000),
        ("7d", NOW_MS - 604_800_000),
        ("2026-02-28", NOW_MS - 86_400_000),
        ("2026-02-28T23:30", NOW_MS - 1_800_000),
        ("2026-03-01T00:30+01:00", NOW_MS - 1_800_000),
    ],
)
def test_moments(text: str, moment: int | None) -> None:
    assert moment_ms(text, NOW_MS, "--since") == moment
    assert BEGAN_MS < NOW_MS
