"""Stores of earlier releases keep every row and count, and take today's points."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edge_broker_side.points import MEASUREMENTS
from edge_broker_side.store import Store
from edge_broker_side.store_file import SCHEMA
from edge_broker_side.totals import totals
from tests.edge_broker_side.points_made import frames, put, store_at

DATA = Path(__file__).parent / "data"


@pytest.fixture(params=[1, 2])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file as the release with that schema wrote it: a device with three frames, two of them folded beside."""
    path = tmp_path / "records.sqlite"
    with sqlite3.connect(path) as db:
        db.executescript((DATA / f"store-{request.param}.sql").read_text(encoding="utf-8"))
        assert db.execute("PRAGMA user_version").fetchone() == (request.param,)
    db.close()
    return path


def lines(store: Store, measurement: str) -> list[str]:
    return [line for _, line in store.lines(0, 1000) if line.startswith(f"{measurement},")]


def test_its_rows_and_totals_stay(old: Path) -> None:
    store = store_at(old)
    fallback = lines(store, "inference")[1]
    store.close()
    assert fallback.startswith(
        "inference,site=plant,device=cam,version=net,cut=c2,codec=q8,outcome=fallback,reason=timeout,"
        "energy_source=modelled session=7i,frame=2i,latency_ms=90.25,"
    )
    fleet = totals(old, "plant").fleet
    assert fleet.outcomes == {"edge": 1, "device": 0, "fallback": 1, "dropped": 3}
    assert (fleet.captured, fleet.gap, fleet.decisions) == (6, 1, 1)
    with sqlite3.connect(old) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    db.close()


def test_a_new_frame_lands_in_the_right_columns(old: Path) -> None:
    """The order of columns has changed since: a row without names would put the reason where the energy belongs."""
    store = store_at(old)
    assert put(store, frames(9, latency_ms=12.5, reason="busy")) == 1
    line = lines(store, "inference")[-1]
    store.close()
    assert "outcome=edge,reason=busy,energy_source=modelled session=1i,frame=9i,latency_ms=12.5," in line
    with sqlite3.connect(old) as db:
        found = db.execute("SELECT outcome, reason, energy_source, session, frame FROM inference WHERE frame = 9")
        assert found.fetchall() == [("edge", "busy", "modelled", 1, 9)]
    db.close()


def test_each_device_gets_a_first_ledger_point(old: Path) -> None:
    store = store_at(old)
    (line,) = lines(store, "ledger")
    store.close()
    assert line.startswith("ledger,site=plant,device=cam captured=6i,counted=5i,gap=1i,folded_dropped=2i ")
    again = store_at(old)
    assert lines(again, "ledger") == [line], "it is told once"
    again.close()


def test_every_measurement_has_a_table(old: Path) -> None:
    store_at(old).close()
    with sqlite3.connect(old) as db:
        for measurement in MEASUREMENTS:
            columns = {row[1] for row in db.execute(f"PRAGMA table_info({measurement.name})")}
            assert columns == {"number", "at_ms", "stored_ms", *(column.name for column in measurement.columns)}
        assert db.execute("SELECT count(*) FROM dead_letters").fetchone() == (0,)
    db.close()
