"""The recorder's memory: SQLite tables after the schema of ``points``, bounded, idempotent, whole after a power cut."""

from __future__ import annotations

import heapq
import itertools
import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edge_broker_side.errors import EdgeError
from edge_broker_side.points import INFERENCE, MEASUREMENTS, Kind, Measurement, Point, to_cell, to_line

log = logging.getLogger(__name__)

SCHEMA = 4
"""1 had no tables of the policy, 2 none of ledger and recorder, 3 fewer columns of telemetry; what is missing is added
when such a store is opened."""
TRIM_SHARE = 0.05
"""Of a measurement's rows, per step of trimming by size."""
MAX_SESSIONS = 1000
"""Per device; older ones are added up in one row, with session 0."""
_TYPES = {Kind.INT: "INTEGER", Kind.BOOL: "INTEGER", Kind.FLOAT: "REAL"}
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (site TEXT, device TEXT, session INTEGER, captured INTEGER NOT NULL DEFAULT 0,
 recorded INTEGER NOT NULL DEFAULT 0, trimmed_frame INTEGER NOT NULL DEFAULT 0, seen_ms INTEGER NOT NULL,
 PRIMARY KEY (site, device, session)) WITHOUT ROWID;
CREATE TABLE folded (site TEXT, device TEXT, session INTEGER, outcome TEXT, reason TEXT, frames INTEGER NOT NULL,
 PRIMARY KEY (site, device, session, outcome, reason)) WITHOUT ROWID;
CREATE TABLE totals (site TEXT, device TEXT, outcome TEXT, frames INTEGER NOT NULL,
 PRIMARY KEY (site, device, outcome)) WITHOUT ROWID;
CREATE TABLE trimmed (measurement TEXT PRIMARY KEY, rows INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE presence (site TEXT, name TEXT, role TEXT, session INTEGER, state TEXT, reason TEXT, at_ms INTEGER,
 about TEXT, PRIMARY KEY (site, name, role)) WITHOUT ROWID;
"""


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
        with _translated(path):
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
            try:
                self._open()
            except BaseException:
                self._db.close()
                raise
        self._numbers = itertools.count(self._meta("next_number") or 1)

    def close(self) -> None:
        """Close it; the write-ahead log is merged into the file."""
        self._db.close()

    def write(
        self, points: Iterable[Point] = (), counts: Iterable[SessionCount] = (), presence: Iterable[Presence] = ()
    ) -> int:
        """Store everything in one transaction, on disk when it returns; return how many points were new.

        Raises ``StoreError`` and then has stored nothing of it.
        """
        now_ms = time.time_ns() // 1_000_000
        with self._transaction():
            new = sum(self._insert(point, now_ms) for point in points)
            for count in counts:
                self._count(count, now_ms)
            for one in presence:
                self._note(one)
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('next_number', ?)", (next(self._numbers),))
        return new

    def trim(self) -> int:
        """Drop the oldest rows beyond the bounds and return how many; totals keep their counts."""
        oldest_ms = time.time_ns() // 1_000_000 - int(self._settings.max_age_days * 86_400_000)
        gone = 0
        with self._transaction():
            for measurement in MEASUREMENTS:
                gone += self._drop(measurement, "stored_ms < ?", oldest_ms)
            self._fold_sessions()
        with _translated(Path(self._settings.path)):
            while self._used_bytes() > self._settings.max_bytes and (dropped := self._drop_share()):
                gone += dropped
        return gone

    def lines(self, after: int, limit: int) -> Iterator[tuple[int, str]]:
        """Yield (number, line protocol) of points numbered above ``after``, rising, at most ``limit``."""
        with _translated(Path(self._settings.path)):
            found = [self._numbered_lines(measurement, after, limit) for measurement in MEASUREMENTS]
            yield from itertools.islice(heapq.merge(*found), limit)

    # -- one transaction -------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _translated(Path(self._settings.path)):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk rolls back by itself
                    self._db.execute("ROLLBACK")
                raise

    def _insert(self, point: Point, now_ms: int) -> int:
        measurement = point.measurement
        if measurement is INFERENCE and self._was_trimmed(point):
            return 0
        cells = [to_cell(column, point.values.get(column.name)) for column in measurement.columns]
        row = (next(self._numbers), point.at_ms or now_ms, now_ms, *cells)
        sql = f"INSERT OR IGNORE INTO {measurement.name} VALUES ({', '.join('?' * len(row))})"
        new = self._db.execute(sql, row).rowcount
        if new and measurement is INFERENCE:
            key = (point.values["site"], point.values["device"])
            self._db.execute(
                "INSERT INTO totals VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET frames = frames + 1",
                (*key, str(point.values["outcome"])),
            )
            self._db.execute(
                "INSERT INTO sessions (site, device, session, recorded, seen_ms) VALUES (?, ?, ?, 1, ?)"
                " ON CONFLICT DO UPDATE SET recorded = recorded + 1, seen_ms = excluded.seen_ms",
                (*key, point.values["session"], now_ms),
            )
        return new

    def _was_trimmed(self, point: Point) -> bool:
        """Whether the frame was counted before and its line trimmed since: it must not count twice."""
        row = self._db.execute(
            "SELECT trimmed_frame FROM sessions WHERE site = ? AND device = ? AND session = ?",
            (point.values["site"], point.values["device"], point.values["session"]),
        ).fetchone()
        return row is not None and int(row[0]) >= point.values["frame"]

    def _count(self, count: SessionCount, now_ms: int) -> None:
        key = (count.site, count.device, count.session)
        self._db.execute(
            "INSERT INTO sessions (site, device, session, captured, seen_ms) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET captured = max(captured, excluded.captured), seen_ms = excluded.seen_ms",
            (*key, count.captured, now_ms),
        )
        self._db.executemany(
            "INSERT INTO folded VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET frames = max(frames, excluded.frames)",
            [(*key, *one) for one in count.folded],
        )

    def _note(self, one: Presence) -> None:
        """Keep the word of the latest session; a late last will of an older one changes nothing."""
        self._db.execute(
            "INSERT INTO presence VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " session = excluded.session, state = coalesce(excluded.state, state),"
            " reason = coalesce(excluded.reason, reason), at_ms = max(at_ms, excluded.at_ms),"
            " about = coalesce(excluded.about, about) WHERE excluded.session >= session",
            (one.site, one.name, one.role, one.session, one.state, one.reason, one.at_ms, one.about),
        )

    # -- bounds ----------------------------------------------------------------------------------------------------

    def _drop(self, measurement: Measurement, condition: str, bound: int) -> int:
        name = measurement.name
        if measurement is INFERENCE:
            self._db.execute(
                "UPDATE sessions SET trimmed_frame = max(trimmed_frame, gone.frame) FROM"
                f" (SELECT site, device, session, max(frame) AS frame FROM {name} WHERE {condition}"
                "  GROUP BY site, device, session) AS gone"
                " WHERE sessions.site = gone.site AND sessions.device = gone.device"
                " AND sessions.session = gone.session",
                (bound,),
            )
        dropped = self._db.execute(f"DELETE FROM {name} WHERE {condition}", (bound,)).rowcount
        if dropped:
            self._db.execute(
                "INSERT INTO trimmed VALUES (?, ?) ON CONFLICT DO UPDATE SET rows = rows + excluded.rows",
                (name, dropped),
            )
        return dropped

    def _drop_share(self) -> int:
        """Drop the oldest share of each measurement's rows."""
        dropped = 0
        with self._transaction():
            for measurement in MEASUREMENTS:
                rows = self._db.execute(f"SELECT count(*) FROM {measurement.name}").fetchone()[0]
                place = int(rows * TRIM_SHARE)
                last = self._db.execute(
                    f"SELECT number FROM {measurement.name} ORDER BY number LIMIT 1 OFFSET ?", (place,)
                ).fetchone()
                if last is not None:
                    dropped += self._drop(measurement, "number <= ?", last[0])
        return dropped

    def _fold_sessions(self) -> None:
        """Add up the sessions of a device beyond the newest ones in a row with session 0."""
        old = self._db.execute(
            "SELECT site, device, session FROM (SELECT site, device, session, row_number() OVER"
            " (PARTITION BY site, device ORDER BY session DESC) AS place FROM sessions WHERE session > 0)"
            " WHERE place > ?",
            (MAX_SESSIONS,),
        ).fetchall()
        for key in old:
            which = "WHERE site = ? AND device = ? AND session = ?"
            self._db.execute(
                "INSERT INTO sessions SELECT site, device, 0, captured, recorded, 0, seen_ms FROM sessions"
                f" {which} ON CONFLICT DO UPDATE SET captured = captured + excluded.captured,"
                " recorded = recorded + excluded.recorded",
                key,
            )
            self._db.execute(
                "INSERT INTO folded SELECT site, device, 0, outcome, reason, frames FROM folded"
                f" {which} ON CONFLICT DO UPDATE SET frames = frames + excluded.frames",
                key,
            )
            self._db.execute(f"DELETE FROM sessions {which}", key)
            self._db.execute(f"DELETE FROM folded {which}", key)

    def _used_bytes(self) -> int:
        pages, free, size = (self._pragma(name) for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size

    # -- reading and making ----------------------------------------------------------------------------------------

    def _numbered_lines(self, measurement: Measurement, after: int, limit: int) -> Iterator[tuple[int, str]]:
        names = ", ".join(column.name for column in measurement.columns)
        rows = self._db.execute(
            f"SELECT number, at_ms, {names} FROM {measurement.name} WHERE number > ? ORDER BY number LIMIT ?",
            (after, limit),
        )
        for number, at_ms, *cells in rows:
            yield number, to_line(measurement, number, at_ms, cells)

    def _open(self) -> None:
        version = self._pragma("user_version")
        if version > SCHEMA:
            raise StoreError(f"{self._settings.path} was made by a newer release (schema {version}, we read {SCHEMA})")
        damage = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise StoreCorrupt(f"{self._settings.path} is damaged: {damage}")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA journal_size_limit = 16777216")
        if version < SCHEMA:
            new = (_TABLES if version == 0 else "") + "".join(map(_table, MEASUREMENTS))
            new += "".join(f"ALTER TABLE {table} ADD COLUMN {column};" for table, column in self._missing_columns())
            self._db.executescript(f"BEGIN IMMEDIATE; {new} PRAGMA user_version = {SCHEMA}; COMMIT;")

    def _missing_columns(self) -> Iterator[tuple[str, str]]:
        """Yield the columns that tables of an older release lack, with their type; new columns stand at the end."""
        for measurement in MEASUREMENTS:
            held = {row[1] for row in self._db.execute(f"PRAGMA table_info({measurement.name})")}
            for column in measurement.columns if held else ():
                if column.name not in held:
                    yield measurement.name, f"{column.name} {_TYPES.get(column.kind, 'TEXT')}"

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    def _meta(self, key: str) -> int | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])


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


def _table(measurement: Measurement) -> str:
    columns = ", ".join(f"{column.name} {_TYPES.get(column.kind, 'TEXT')}" for column in measurement.columns)
    return (
        f"CREATE TABLE IF NOT EXISTS {measurement.name} (number INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, "
        f"stored_ms INTEGER NOT NULL, {columns}, UNIQUE ({', '.join(measurement.unique)}));"
        f"CREATE INDEX IF NOT EXISTS {measurement.name}_stored ON {measurement.name} (stored_ms);"
    )


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _CORRUPT:
            raise StoreCorrupt(f"{path} is damaged: {error}") from error
        raise StoreError(f"{path} cannot be used: {error}") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be used: {error.strerror}") from error
