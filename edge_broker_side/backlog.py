"""What of a store waits for the metrics server: the cursor, the dead letters, and what puts points back."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edge_broker_side.points import MEASUREMENTS
from edge_broker_side.store import StoreError, translated
from edge_broker_side.store_file import SCHEMA, Row, rows_after, version_of

MAX_NUMBER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Refusal:
    """Dead letters that were refused alike."""

    measurement: str
    reason: str
    points: int
    last_at_ms: int


class Backlog:
    """A store's file as its forwarder sees it, beside the recorder that writes it. Used by one thread."""

    def __init__(self, path: Path) -> None:
        """Open a store that is there; raises ``StoreError``."""
        self._path = path
        self._cursor = 0
        self._db = _opened(path, "rw")
        try:
            with self._transaction():
                new = self._db.execute("INSERT OR IGNORE INTO meta VALUES ('cursor', 0)").rowcount
                if new:
                    self._db.execute("INSERT INTO meta VALUES ('waiting', 0), ('trimmed_unforwarded', 0)")
                    self._move(0)
        except StoreError:
            self._db.close()
            raise

    def close(self) -> None:
        """Close it."""
        self._db.close()

    def next(self, points: int, size_bytes: int) -> list[Row]:
        """Return what is to be sent next: dead letters to try again, else points from the cursor on, rising.

        At most ``points``, and lines of ``size_bytes`` together, but at least one where any waits.
        """
        with self._transaction("DEFERRED"):  # one view of all tables: a row that comes in between would never be sent
            again = self._db.execute(
                "SELECT number, measurement, line FROM dead_letters WHERE again ORDER BY number LIMIT ?", (points,)
            ).fetchall()
            self._cursor = _meta(self._db, "cursor")
            rows = [Row(number, measurement, line, True) for number, measurement, line in again]
            rows = rows or list(rows_after(self._db, self._cursor, points))
        for place, row in enumerate(rows):
            size_bytes -= len(row.line) + 1
            if size_bytes < 0:
                return rows[: max(place, 1)]
        return rows

    def settle(self, rows: Sequence[Row], reason: str | None = None) -> bool:
        """Note what became of rows that ``next`` gave, in their order: the server has them, or refused them for good.

        Returns False where a replay moved the cursor meanwhile: nothing is noted then, and ``next`` begins there.
        """
        numbers = [(row.number,) for row in rows]
        with self._transaction():
            if not rows[0].again:
                if _meta(self._db, "cursor") != self._cursor:
                    return False
                last = rows[-1].number
                passed = sum(self._count(measurement.name, self._cursor, last) for measurement in MEASUREMENTS)
                self._db.execute("UPDATE meta SET value = ? WHERE key = 'cursor'", (last,))
                self._db.execute("UPDATE meta SET value = value - ? WHERE key = 'waiting'", (passed,))
                self._cursor = last
            if reason is None:
                self._db.executemany("DELETE FROM dead_letters WHERE number = ?", numbers)
            else:
                self._db.executemany(
                    "INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?, ?, ?, 0)",
                    [(row.number, row.measurement, row.line, reason, _now_ms()) for row in rows],
                )
        return True

    def replay_dead(self) -> int:
        """Let every dead letter be tried again; return how many there are."""
        with self._transaction():
            return self._db.execute("UPDATE dead_letters SET again = 1").rowcount

    def replay_since(self, stored_ms: int) -> int:
        """Move the cursor back before everything stored since then; return how many points wait now."""
        with self._transaction():
            firsts = [
                self._db.execute(f"SELECT min(number) FROM {one.name} WHERE stored_ms >= ?", (stored_ms,)).fetchone()[0]
                for one in MEASUREMENTS
            ]
            first = min((number for number in firsts if number is not None), default=None)
            if first is not None and first <= _meta(self._db, "cursor"):
                self._move(first - 1)
            return _meta(self._db, "waiting")

    def _move(self, cursor: int) -> None:
        waiting = sum(self._count(measurement.name, cursor, MAX_NUMBER) for measurement in MEASUREMENTS)
        self._db.execute("UPDATE meta SET value = ? WHERE key = 'cursor'", (cursor,))
        self._db.execute("UPDATE meta SET value = ? WHERE key = 'waiting'", (waiting,))

    def _count(self, table: str, after: int, last: int) -> int:
        sql = f"SELECT count(*) FROM {table} WHERE number > ? AND number <= ?"
        return int(self._db.execute(sql, (after, last)).fetchone()[0])

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        with translated(self._path):
            self._db.execute(f"BEGIN {kind}")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk rolls back by itself
                    self._db.execute("ROLLBACK")
                raise


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a store to read it, beside whoever writes; raises ``StoreError``."""
    db = _opened(path, "ro")
    try:
        with translated(path):
            db.execute("BEGIN")  # one view
            yield db
    finally:
        db.close()


def read_refusals(db: sqlite3.Connection) -> list[Refusal]:
    """Return why dead letters are dead, the commonest reason first."""
    sql = (
        "SELECT measurement, reason, count(*), max(at_ms) FROM dead_letters GROUP BY measurement, reason"
        " ORDER BY count(*) DESC"
    )
    return [Refusal(*row) for row in db.execute(sql)]


def read_stored(db: sqlite3.Connection) -> dict[str, int]:
    """Return how many points of each measurement are kept."""
    return {one.name: int(db.execute(f"SELECT count(*) FROM {one.name}").fetchone()[0]) for one in MEASUREMENTS}


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    """Open a file that is there and of today's schema."""
    if not path.is_file():
        raise StoreError(f"there is no store {path}: its recorder makes it")
    with translated(path):
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=5.0)
        try:
            # A cursor lost to a power cut only means that points are sent once more.
            db.execute("PRAGMA synchronous = NORMAL")
            if version_of(db) != SCHEMA:
                raise StoreError(f"{path} is not of this release: start its recorder once, which brings it up to date")
        except BaseException:
            db.close()
            raise
    return db


def _meta(db: sqlite3.Connection, key: str) -> int:
    return int(db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
