"""The recorder's memory: SQLite tables after the schema of ``points``, bounded, idempotent, whole after a power cut."""

from __future__ import annotations

import fcntl
import itertools
import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edge_broker_side.errors import EdgeError
from edge_broker_side.points import INFERENCE, MEASUREMENTS, Point, ledger_point, to_cell
from edge_broker_side.store_bounds import MAX_FOLDED, drop_older, drop_share, fold_sessions, used_bytes
from edge_broker_side.store_file import (
    SCHEMA,
    Standing,
    insert_into,
    make_tables,
    read_standing,
    rows_after,
    version_of,
)

log = logging.getLogger(__name__)

LOCK_PATIENCE_S = 15.0
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_INSERT = {measurement.name: insert_into(measurement) for measurement in MEASUREMENTS}
_Group = tuple[str, str, str, int]
"""Measurement; of frames also site, device and session."""


class StoreError(EdgeError):
    """The store cannot be read or written now; what was to be written is not in it."""


class StoreCorrupt(StoreError):
    """The store's file is damaged."""


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where the store is and what bounds it."""

    path: str
    max_bytes: int = 1024 * 1024 * 1024
    max_age_days: float = 90.0

    def __post_init__(self) -> None:
        if self.max_bytes < 256 * 1024:
            raise ValueError(f"store.max_bytes is {self.max_bytes}, allowed is 262144 and more")
        if self.max_age_days <= 0:
            raise ValueError(f"store.max_age_days is {self.max_age_days}, allowed is more than 0")


@dataclass(frozen=True, slots=True)
class SessionCount:
    """What one ``outcomes`` message says of its session as a whole."""

    site: str
    device: str
    session: int
    captured: int
    folded: tuple[tuple[str, str, int], ...]
    """(outcome, reason, frames so far)."""


@dataclass(frozen=True, slots=True)
class Presence:
    """The latest word of a device or worker about itself; ``about`` is JSON."""

    site: str
    name: str
    role: str
    session: int
    state: str | None = None
    reason: str | None = None
    at_ms: int = 0
    about: str | None = None


class Store:
    """An open store. Used by one thread; other processes may read the file meanwhile."""

    def __init__(self, settings: StoreSettings) -> None:
        """Open or make it; raises ``StoreCorrupt`` for a damaged file, ``StoreError`` for one not to be used."""
        self._settings = settings
        path = Path(settings.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with translated(path):
            self._lock = _locked(path)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
            try:
                version = self._open()
                self._numbers = itertools.count(self._meta("next_number") or 1)
                if 0 < version < SCHEMA:
                    self._tell_everybodys_ledger()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close it; the write-ahead log is merged into the file."""
        self._db.close()
        self._lock.close()

    def write(
        self, points: Iterable[Point] = (), counts: Iterable[SessionCount] = (), presence: Iterable[Presence] = ()
    ) -> int:
        """Store everything in one transaction, on disk when it returns; return how many points were new.

        Raises ``StoreError`` and then has stored nothing of it.
        """
        now_ms = time.time_ns() // 1_000_000
        devices: dict[tuple[str, str], None] = {}
        with self._transaction():
            new = sum(self._insert(key, list(group), now_ms) for key, group in itertools.groupby(points, _group))
            for count in counts:
                self._count(count, now_ms)
                devices[count.site, count.device] = None
            told = self._tell_ledgers(devices, now_ms)
            for one in presence:
                self._note(one)
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('next_number', ?)", (next(self._numbers),))
            self._db.execute("UPDATE meta SET value = value + ? WHERE key = 'waiting'", (new + told,))
        return new

    def trim(self) -> int:
        """Drop the oldest rows beyond the bounds and return how many; totals keep their counts."""
        oldest_ms = time.time_ns() // 1_000_000 - int(self._settings.max_age_days * 86_400_000)
        with self._transaction():
            gone = drop_older(self._db, oldest_ms)
            fold_sessions(self._db)
        while self.used_bytes() > self._settings.max_bytes:
            with self._transaction():
                dropped = drop_share(self._db)
            if not dropped:
                break
            gone += dropped
        return gone

    def lines(self, after: int, limit: int) -> Iterator[tuple[int, str]]:
        """Yield (number, line protocol) of points numbered above ``after``, rising, at most ``limit``."""
        with translated(Path(self._settings.path)):
            for row in rows_after(self._db, after, limit):
                yield row.number, row.line

    def standing(self) -> Standing | None:
        """Return how far the forwarding is; ``None`` where it never began."""
        with translated(Path(self._settings.path)):
            return read_standing(self._db, time.time_ns() // 1_000_000)

    def used_bytes(self) -> int:
        """Return the size of what is stored, free pages of the file not counted."""
        with translated(Path(self._settings.path)):
            return used_bytes(self._db)

    # -- one transaction -------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with translated(Path(self._settings.path)):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk rolls back by itself
                    self._db.execute("ROLLBACK")
                raise

    def _insert(self, key: _Group, points: Sequence[Point], now_ms: int) -> int:
        """Store points of one group; return how many were new."""
        measurement = points[0].measurement
        if measurement is INFERENCE:
            points = self._not_trimmed(key, points)
        rows = [(next(self._numbers), point.at_ms or now_ms, now_ms, *_cells(point)) for point in points]
        if not rows:
            return 0
        new = self._db.executemany(_INSERT[measurement.name], rows).rowcount
        if new and measurement is INFERENCE:
            self._count_frames(key, (rows[0][0], rows[-1][0]), new, now_ms)
        return new

    def _not_trimmed(self, key: _Group, points: Sequence[Point]) -> Sequence[Point]:
        """Leave out frames that were counted before and whose lines were trimmed since: they must not count twice."""
        row = self._db.execute(
            "SELECT trimmed_frame FROM sessions WHERE site = ? AND device = ? AND session = ?", key[1:]
        ).fetchone()
        return points if row is None else [point for point in points if point.values["frame"] > row[0]]

    def _count_frames(self, key: _Group, numbers: tuple[int, int], new: int, now_ms: int) -> None:
        """Count the frames that were just added under these numbers (first, last)."""
        _, site, device, session = key
        outcomes = self._db.execute(
            "SELECT outcome, count(*) FROM inference WHERE number BETWEEN ? AND ? GROUP BY outcome", numbers
        ).fetchall()
        self._db.executemany(
            "INSERT INTO totals VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET frames = frames + excluded.frames",
            [(site, device, outcome, frames) for outcome, frames in outcomes],
        )
        self._db.execute(
            "INSERT INTO sessions (site, device, session, recorded, seen_ms) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET recorded = recorded + excluded.recorded, seen_ms = excluded.seen_ms",
            (site, device, session, new, now_ms),
        )

    def _count(self, count: SessionCount, now_ms: int) -> None:
        key = (count.site, count.device, count.session)
        self._db.execute(
            "INSERT INTO sessions (site, device, session, captured, seen_ms) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET captured = max(captured, excluded.captured), seen_ms = excluded.seen_ms",
            (*key, count.captured, now_ms),
        )
        self._db.executemany(
            "INSERT INTO folded SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE"
            f" (SELECT count(*) FROM folded WHERE (site, device, session) = (?1, ?2, ?3)) < {MAX_FOLDED}"
            " OR EXISTS (SELECT 1 FROM folded WHERE (site, device, session, outcome, reason) = (?1, ?2, ?3, ?4, ?5))"
            " ON CONFLICT DO UPDATE SET frames = max(frames, excluded.frames)",
            [(*key, *one) for one in count.folded],
        )

    def _tell_ledgers(self, devices: Iterable[tuple[str, str]], now_ms: int) -> int:
        """Store a point of each device whose counts have changed; return how many had."""
        points = []
        for key in devices:
            captured, recorded = self._db.execute(
                "SELECT sum(captured), sum(recorded) FROM sessions WHERE site = ? AND device = ?", key
            ).fetchone()
            folded = dict(
                self._db.execute(
                    "SELECT outcome, sum(frames) FROM folded WHERE site = ? AND device = ? GROUP BY outcome", key
                )
            )
            points.append(ledger_point(*key, now_ms, captured, recorded + sum(folded.values()), folded))
        return self._insert(_group(points[0]), points, now_ms) if points else 0

    def _tell_everybodys_ledger(self) -> None:
        """Store a first ledger point of each device in a file that had none."""
        with self._transaction():
            devices = self._db.execute("SELECT DISTINCT site, device FROM sessions").fetchall()
            self._tell_ledgers(devices, time.time_ns() // 1_000_000)
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('next_number', ?)", (next(self._numbers),))

    def _note(self, one: Presence) -> None:
        """Keep the word of the latest session; a late last will of an older one changes nothing."""
        self._db.execute(
            "INSERT INTO presence VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " session = excluded.session, state = coalesce(excluded.state, state),"
            " reason = coalesce(excluded.reason, reason), at_ms = max(at_ms, excluded.at_ms),"
            " about = coalesce(excluded.about, about) WHERE excluded.session >= session",
            (one.site, one.name, one.role, one.session, one.state, one.reason, one.at_ms, one.about),
        )

    # -- reading and making ----------------------------------------------------------------------------------------

    def _open(self) -> int:
        """Check the file and make its tables; return the schema it had."""
        version = version_of(self._db)
        if version > SCHEMA:
            raise StoreError(f"{self._settings.path} was made by a newer release (schema {version}, we read {SCHEMA})")
        damage = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise StoreCorrupt(f"{self._settings.path} is damaged: {damage}")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA journal_size_limit = 16777216")
        if version < SCHEMA:
            make_tables(self._db)
        return version

    def _meta(self, key: str) -> int | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])


def _locked(path: Path) -> IO[bytes]:
    """Keep the file for one writer, since two would give the same numbers; raises ``StoreError`` for the second.

    The one before may be on its way out: it is waited for.
    """
    lock = path.with_name(f"{path.name}.lock").open("ab")
    end_s = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() >= end_s:
                lock.close()
                raise StoreError(f"another recorder has {path} open: one store, one recorder") from None
        time.sleep(0.05)


def open_store(settings: StoreSettings) -> Store:
    """Open a store; a damaged file is set aside under a name that the log tells, and a new one begun."""
    try:
        return Store(settings)
    except StoreCorrupt as error:
        aside = set_aside(Path(settings.path))
        log.error("%s; it is kept as %s and a new store begun", error, aside)
        return Store(settings)


def set_aside(path: Path) -> Path:
    """Rename a damaged store and what belongs to it; return its new name."""
    aside = next(
        name
        for n in itertools.count(1)
        if not (name := path.with_name(f"{path.stem}.damaged-{n}{path.suffix}")).exists()
    )
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def _group(point: Point) -> _Group:
    """Return what points must share to be stored together: the measurement, of frames also their session."""
    if point.measurement is INFERENCE:
        return (INFERENCE.name, point.values["site"], point.values["device"], point.values["session"])
    return (point.measurement.name, "", "", 0)


def _cells(point: Point) -> list[Any]:
    get = point.values.get
    return [to_cell(column, get(column.name)) for column in point.measurement.columns]


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise errors of the database and of the file as ``StoreError`` or ``StoreCorrupt``."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _CORRUPT:
            raise StoreCorrupt(f"{path} is damaged: {error}") from error
        raise StoreError(f"{path} cannot be used: {error}") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be used: {error.strerror}") from error
