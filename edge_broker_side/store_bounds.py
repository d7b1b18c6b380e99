"""What bounds a store: its oldest rows go, by age and by size. Counts stay, and what was not forwarded is counted."""

from __future__ import annotations

import sqlite3

from edge_broker_side.points import INFERENCE, MEASUREMENTS, Measurement

TRIM_SHARE = 0.05
"""Of a table's rows, per step of trimming by size."""
MAX_SESSIONS = 1000
"""Per device; older ones are added up in one row, with session 0."""
MAX_FOLDED = 100
"""Folded counts of a session, by outcome and reason: devices have some twenty words for reasons. What a device tells
beyond shows as a gap."""
MAX_COUNT = 2**52
"""Where sums of what devices claim end, so that sums of these cannot overflow."""


def used_bytes(db: sqlite3.Connection) -> int:
    """Return the size of what is stored, free pages of the file not counted."""
    names = ("page_count", "freelist_count", "page_size")
    pages, free, size = (int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in names)
    return (pages - free) * size


def drop_older(db: sqlite3.Connection, oldest_ms: int) -> int:
    """Drop what was stored before then; return how many rows."""
    dropped = sum(_drop(db, measurement, "stored_ms < ?", oldest_ms) for measurement in MEASUREMENTS)
    return dropped + _delete(db, "dead_letters", "at_ms < ?", oldest_ms)


def drop_share(db: sqlite3.Connection) -> int:
    """Drop the oldest share of each measurement's rows and of the dead letters."""
    dropped = 0
    for measurement in MEASUREMENTS:
        if (last := _last_of_share(db, measurement.name)) is not None:
            dropped += _drop(db, measurement, "number <= ?", last)
    if (last := _last_of_share(db, "dead_letters")) is not None:
        dropped += _delete(db, "dead_letters", "number <= ?", last)
    return dropped


def fold_sessions(db: sqlite3.Connection) -> None:
    """Add up the sessions of a device beyond the newest ones in a row with session 0."""
    old = db.execute(
        "SELECT site, device, session FROM (SELECT site, device, session, row_number() OVER"
        " (PARTITION BY site, device ORDER BY session DESC) AS place FROM sessions WHERE session > 0)"
        " WHERE place > ?",
        (MAX_SESSIONS,),
    ).fetchall()
    for key in old:
        which = "WHERE site = ? AND device = ? AND session = ?"
        db.execute(
            "INSERT INTO sessions SELECT site, device, 0, captured, recorded, 0, seen_ms FROM sessions"
            f" {which} ON CONFLICT DO UPDATE SET captured = min(captured + excluded.captured, {MAX_COUNT}),"
            f" recorded = min(recorded + excluded.recorded, {MAX_COUNT})",
            key,
        )
        db.execute(  # without the reasons, which would be as many as a device cares to think of
            "INSERT INTO folded SELECT site, device, 0, outcome, '', sum(frames) FROM folded"
            f" {which} GROUP BY site, device, outcome"
            f" ON CONFLICT DO UPDATE SET frames = min(frames + excluded.frames, {MAX_COUNT})",
            key,
        )
        db.execute(f"DELETE FROM sessions {which}", key)
        db.execute(f"DELETE FROM folded {which}", key)


def _drop(db: sqlite3.Connection, measurement: Measurement, condition: str, bound: int) -> int:
    name = measurement.name
    if measurement is INFERENCE:
        db.execute(
            "UPDATE sessions SET trimmed_frame = max(trimmed_frame, gone.frame) FROM"
            f" (SELECT site, device, session, max(frame) AS frame FROM {name} WHERE {condition}"
            "  GROUP BY site, device, session) AS gone"
            " WHERE sessions.site = gone.site AND sessions.device = gone.device"
            " AND sessions.session = gone.session",
            (bound,),
        )
    cursor = db.execute("SELECT value FROM meta WHERE key = 'cursor'").fetchone()
    if cursor is not None:
        (unforwarded,) = db.execute(
            f"SELECT count(*) FROM {name} WHERE {condition} AND number > ?", (bound, *cursor)
        ).fetchone()
        db.execute("UPDATE meta SET value = value - ? WHERE key = 'waiting'", (unforwarded,))
        db.execute("UPDATE meta SET value = value + ? WHERE key = 'trimmed_unforwarded'", (unforwarded,))
    return _delete(db, name, condition, bound)


def _delete(db: sqlite3.Connection, table: str, condition: str, bound: int) -> int:
    dropped = db.execute(f"DELETE FROM {table} WHERE {condition}", (bound,)).rowcount
    if dropped:
        db.execute(
            "INSERT INTO trimmed VALUES (?, ?) ON CONFLICT DO UPDATE SET rows = rows + excluded.rows",
            (table, dropped),
        )
    return dropped


def _last_of_share(db: sqlite3.Connection, table: str) -> int | None:
    """Return the highest number in the oldest share of a table's rows."""
    rows = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    row = db.execute(
        f"SELECT number FROM {table} ORDER BY number LIMIT 1 OFFSET ?", (int(rows * TRIM_SHARE),)
    ).fetchone()
    return None if row is None else int(row[0])
