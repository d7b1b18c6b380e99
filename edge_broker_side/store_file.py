"""The file of a store: its tables, made anew or brought up to date, and its rows as line protocol."""

from __future__ import annotations

import heapq
import itertools
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from edge_broker_side.points import MEASUREMENTS, Kind, Measurement, to_line

SCHEMA = 4
"""1 had no tables of the policy, 2 none of ledger, recorder and dead letters, and another order of columns, 3 fewer
columns of telemetry."""
_TYPES = {Kind.INT: "INTEGER", Kind.BOOL: "INTEGER", Kind.FLOAT: "REAL"}

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (site TEXT, device TEXT, session INTEGER, captured INTEGER NOT NULL DEFAULT 0,
 recorded INTEGER NOT NULL DEFAULT 0, trimmed_frame INTEGER NOT NULL DEFAULT 0, seen_ms INTEGER NOT NULL,
 PRIMARY KEY (site, device, session)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS folded (site TEXT, device TEXT, session INTEGER, outcome TEXT, reason TEXT,
 frames INTEGER NOT NULL, PRIMARY KEY (site, device, session, outcome, reason)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals (site TEXT, device TEXT, outcome TEXT, frames INTEGER NOT NULL,
 PRIMARY KEY (site, device, outcome)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trimmed (measurement TEXT PRIMARY KEY, rows INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS presence (site TEXT, name TEXT, role TEXT, session INTEGER, state TEXT, reason TEXT,
 at_ms INTEGER, about TEXT, PRIMARY KEY (site, name, role)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead_letters (number INTEGER PRIMARY KEY, measurement TEXT NOT NULL, line TEXT NOT NULL,
 reason TEXT NOT NULL, at_ms INTEGER NOT NULL, again INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS dead_letters_at ON dead_letters (at_ms);
CREATE INDEX IF NOT EXISTS dead_letters_again ON dead_letters (number) WHERE again;
"""
# `meta` holds `next_number` and, once a forwarder has been set up: `cursor` (the number up to which every point is
# settled), `waiting` (points above it) and `trimmed_unforwarded`. A dead letter is a point that the metrics server
# refused; `again` asks the forwarder to try it once more.


class Row(NamedTuple):
    """A point as it goes to the metrics server."""

    number: int
    measurement: str
    line: str
    again: bool = False
    """It is a dead letter that is tried once more."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the forwarding of a store has come."""

    cursor: int
    """Every point up to this number is on the server or among the dead letters."""
    waiting: int
    oldest_s: float
    """Age of the oldest waiting point, since it was stored; 0 where none waits."""
    dead: int
    trimmed_unforwarded: int
    """Points that the store's bounds took before they were forwarded."""


def version_of(db: sqlite3.Connection) -> int:
    """Return the schema of an open file; 0: it is empty."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def make_tables(db: sqlite3.Connection) -> None:
    """Make the tables and columns that are missing, in one transaction; a file of an older schema keeps its rows."""
    tables = "".join(map(_table, MEASUREMENTS))
    tables += "".join(f"ALTER TABLE {table} ADD COLUMN {column};" for table, column in _missing_columns(db))
    db.executescript(f"BEGIN IMMEDIATE; {_TABLES} {tables} PRAGMA user_version = {SCHEMA}; COMMIT;")


def _missing_columns(db: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Yield the columns that tables of an older release lack, with their type."""
    for measurement in MEASUREMENTS:
        held = {row[1] for row in db.execute(f"PRAGMA table_info({measurement.name})")}
        for column in measurement.columns if held else ():
            if column.name not in held:
                yield measurement.name, f"{column.name} {_TYPES.get(column.kind, 'TEXT')}"


def insert_into(measurement: Measurement) -> str:
    """Return the statement that adds a row: number, at_ms, stored_ms, then the columns.

    It names the columns: in a file of an older schema they have another order.
    """
    names = ["number", "at_ms", "stored_ms", *(column.name for column in measurement.columns)]
    return f"INSERT OR IGNORE INTO {measurement.name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


def rows_after(db: sqlite3.Connection, number: int, limit: int) -> Iterator[Row]:
    """Return at most ``limit`` rows numbered above ``number``, rising. Within one transaction of the caller's."""
    found = [_rows_of(db, measurement, number, limit) for measurement in MEASUREMENTS]
    return itertools.islice(heapq.merge(*found, key=attrgetter("number")), limit)


def read_standing(db: sqlite3.Connection, now_ms: int) -> Standing | None:
    """Return how far the forwarding is, quickly also for a large store; ``None`` where it never began."""
    meta = dict(db.execute("SELECT key, value FROM meta"))
    if "cursor" not in meta:
        return None
    stored = [
        db.execute(f"SELECT stored_ms FROM {one.name} WHERE number > ? ORDER BY number LIMIT 1", (meta["cursor"],))
        for one in MEASUREMENTS
    ]
    oldest_ms = min((row[0] for rows in stored for row in rows), default=None)
    dead = db.execute("SELECT count(*) FROM dead_letters").fetchone()[0]
    return Standing(
        meta["cursor"],
        meta["waiting"],
        0.0 if oldest_ms is None else max(0.0, (now_ms - oldest_ms) / 1000),
        dead,
        meta["trimmed_unforwarded"],
    )


def _rows_of(db: sqlite3.Connection, measurement: Measurement, after: int, limit: int) -> Iterator[Row]:
    names = ", ".join(column.name for column in measurement.columns)
    rows = db.execute(
        f"SELECT number, at_ms, {names} FROM {measurement.name} WHERE number > ? ORDER BY number LIMIT ?",
        (after, limit),
    ).fetchall()
    for number, at_ms, *cells in rows:
        yield Row(number, measurement.name, to_line(measurement, number, at_ms, cells))


def _table(measurement: Measurement) -> str:
    columns = ", ".join(f"{column.name} {_TYPES.get(column.kind, 'TEXT')}" for column in measurement.columns)
    return (
        f"CREATE TABLE IF NOT EXISTS {measurement.name} (number INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, "
        f"stored_ms INTEGER NOT NULL, {columns}, UNIQUE ({', '.join(measurement.unique)}));"
        f"CREATE INDEX IF NOT EXISTS {measurement.name}_stored ON {measurement.name} (stored_ms);"
    )
