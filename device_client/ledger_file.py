"""The ledger's SQLite file: opened, or set aside when it is corrupt; and writes that wait while the disk is full."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from device_client.errors import DeviceError

log = logging.getLogger(__name__)

MAX_WAITING = 4000
"""Statements that may wait: two per frame, some 300 bytes each."""
COMPLAIN_EVERY_S = 60.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions(session INTEGER PRIMARY KEY, captured INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS frames(
    session INTEGER NOT NULL, frame INTEGER NOT NULL, plan TEXT NOT NULL, captured_ms INTEGER NOT NULL, line TEXT,
    sent INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (session, frame)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sent_frames ON frames(session) WHERE sent;
CREATE TABLE IF NOT EXISTS folded(
    session INTEGER NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL, frames INTEGER NOT NULL,
    recorded INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (session, outcome, reason)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spool(id INTEGER PRIMARY KEY AUTOINCREMENT, payload BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS memory(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class LedgerError(DeviceError):
    """The ledger's file cannot be used."""


class Writer:
    """Writes at once what can be written at once. For one thread and a connection in autocommit mode."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._waiting: deque[tuple[str, tuple[Any, ...]]] = deque()
        self._complain_at_s = 0.0
        self.lost = 0
        """Statements that found no room to wait."""

    def write(self, sql: str, values: tuple[Any, ...]) -> bool:
        """Run a statement now or as soon as the disk takes it; returns False when it is lost."""
        self._waiting.append((sql, values))
        if self.flush() or len(self._waiting) <= MAX_WAITING:
            return True
        self._waiting.pop()
        self.lost += 1
        return False

    def flush(self) -> bool:
        """Run what waits, oldest first; returns whether nothing waits any more."""
        try:
            self._run()
        except sqlite3.OperationalError:
            try:
                # The log may begin anew once it is merged into the file: that needs no further room.
                self._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
                self._run()
            except sqlite3.OperationalError as error:
                self.complain(error)
        return not self._waiting

    def _run(self) -> None:
        while self._waiting:
            self._db.execute(*self._waiting[0])
            self._waiting.popleft()

    def complain(self, error: sqlite3.Error) -> None:
        """Log, now and then, that the disk takes nothing."""
        now_s = time.monotonic()
        if now_s >= self._complain_at_s:
            self._complain_at_s = now_s + COMPLAIN_EVERY_S
            log.error(
                "the ledger cannot be written (%s): make room on its disk; %d statements wait, %d are lost",
                error, len(self._waiting), self.lost,
            )  # fmt: skip


class Transaction:
    """One transaction on a connection in autocommit mode."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                with suppress(sqlite3.Error):  # a full disk rolls back by itself
                    self._db.execute("ROLLBACK")


def open_ledger(path: Path) -> sqlite3.Connection:
    """Open or make the file for this process alone; a corrupt one is set aside. Raises ``LedgerError``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _connect_or_set_aside(path)
    except (OSError, sqlite3.OperationalError) as error:
        raise unusable(path, error) from error


def unusable(path: Path, error: Exception) -> LedgerError:
    """Return the error that says what to do."""
    problem = "another client uses it" if "locked" in str(error) else str(error)
    return LedgerError(f"cannot use the ledger {path} ({problem}): check the setting 'state' and the room on its disk")


def _connect_or_set_aside(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.OperationalError:  # not the file's fault: no right to write, or locked
        raise
    except sqlite3.DatabaseError as error:
        aside = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
        log.error("the ledger %s is corrupt (%s); set aside as %s", path, error, aside.name)
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=1, isolation_level=None, cached_statements=64)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")  # two clients on one ledger would close each other's frames
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -1024")
        db.executescript(_SCHEMA)
        problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)
    except sqlite3.Error:
        db.close()
        raise
    return db
