"""Reads what the recorder stored of a site, read-only: the few tables and columns that the policy learns from."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policy import plausible
from policy.errors import PolicyError
from policy.table import Array, Index

_WHO = ("site", "device")
_PLAN = ("version", "cut", "codec")
TEXTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "inference": {"device": _WHO, "plan": _PLAN, "outcome": ("outcome",), "energy_source": ("energy_source",)},
    "telemetry": {"device": _WHO},
    "decision": {"device": _WHO, "plan": _PLAN},
    "worker": {"site": ("site",)},
    "policy": {"site": ("site",)},
    "shadow": {
        "device": _WHO,
        **{name: (name,) for name in ("acting", "shadow", "acting_plan", "shadow_plan")},
    },
}
"""By table: a text's name here and the columns it is joined from, with ``/`` between."""
NUMBERS: Mapping[str, tuple[str, ...]] = {
    "inference": (
        *("latency_ms", "head_ms", "encode_ms", "wait_ms", "tail_ms"),
        *("energy_mj", "batch", "sent_bytes", "label", "truth"),
    ),
    "telemetry": ("fps", "head_ms_per_plan_ms", "rtt_ms", "uplink_bps", "estimate_age_ms", "battery_share"),
    "decision": ("deadline_ms",),
    "worker": ("queued", "served", "period_ms", "utilisation"),
    "policy": ("edge_calibration",),
    "shadow": ("acting_reward", "shadow_reward"),
}
CLOCK_AHEAD_MS = 60_000
"""A sender's stamp this far beyond the recorder's newest is a wrong clock: its rows have no place in time."""
MAX_ROWS = 5_000_000
"""Of one table; with a dozen figures each they fill half a gigabyte."""
CHUNK_ROWS = 50_000
_LATEST = (
    " OR number IN (SELECT max(number) FROM {table} WHERE stored_ms <= :until AND at_ms < :since GROUP BY site, device)"
)


@dataclass(frozen=True)
class Texts:
    """One text per row, as its place in a short list of words."""

    words: tuple[str, ...]
    code: Index


@dataclass(frozen=True)
class Rows:
    """Rows of one table, oldest first; numbers are NaN where the record has none."""

    at_ms: Index
    texts: Mapping[str, Texts]
    numbers: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.at_ms)

    def places(self, name: str, index: Mapping[str, int], missing: int = -1) -> Index:
        """Return the place of each row's text in an index of one's own; ``missing`` where it is not in it."""
        texts = self.texts[name]
        places = np.array([index.get(word, missing) for word in texts.words], np.int64)
        return places[texts.code] if len(places) else np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class RecordedDevice:
    """What a device said of itself, as far as the policy needs it."""

    name: str
    """``site/device``."""
    device_class: str
    slowdown: float
    deadline_ms: float


class SiteRecord:
    """An open store of the recorder, which may go on writing it. Raises ``PolicyError`` for what is not one."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise PolicyError(f"there is no {path}: name the recorder's store, such as recorder.sqlite")
        self._path = path
        with self._told():
            self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
            self._db.execute("SELECT count(*) FROM sqlite_master")

    def close(self) -> None:
        """Close it."""
        self._db.close()

    def __enter__(self) -> SiteRecord:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def newest_ms(self) -> int:
        """Return when the recorder last stored a point, in Unix ms of its clock; 0: it never did."""
        tables = [name for name in TEXTS if self._columns(name)]
        with self._told():
            newest = [self._db.execute(f"SELECT max(stored_ms) FROM {name}").fetchone()[0] for name in tables]
        return max((int(at) for at in newest if at is not None), default=0)

    def rows(self, table: str, since_ms: int, until_ms: int | None = None, *, and_latest_before: bool = False) -> Rows:
        """Return the rows of one of the tables named above with a sender's stamp from ``since_ms`` to ``until_ms``.

        ``and_latest_before``: and for each device the latest one before, which still holds at ``since_ms``.
        """
        texts, numbers = TEXTS[table], NUMBERS[table]
        self._check(table, ("at_ms", "stored_ms", *(c for joined in texts.values() for c in joined), *numbers))
        joined = [" || '/' || ".join(f"coalesce({c}, '')" for c in columns) for columns in texts.values()]
        newest_ms = self.newest_ms() + CLOCK_AHEAD_MS
        known: list[dict[str, int]] = [{} for _ in texts]
        at: list[Index] = [np.empty(0, np.int64)]
        codes: list[Index] = [np.empty((len(texts), 0), np.int64)]
        figures: list[Array] = [np.empty((len(numbers), 0))]
        with self._told():
            cursor = self._db.execute(
                f"SELECT at_ms, {', '.join((*joined, *numbers))} FROM {table}"
                " WHERE stored_ms >= :since AND at_ms BETWEEN :since AND :until"
                + (_LATEST.format(table=table) if and_latest_before else "")
                + " ORDER BY at_ms, number LIMIT :most",
                {"since": since_ms, "until": min(newest_ms, until_ms or newest_ms), "most": MAX_ROWS + 1},
            )
            while chunk := cursor.fetchmany(CHUNK_ROWS):
                stamps, *columns = zip(*chunk, strict=True)
                at.append(np.array(stamps, np.int64))
                words = zip(known, columns, strict=False)
                codes.append(np.array([[seen.setdefault(w, len(seen)) for w in c] for seen, c in words], np.int64))
                figures.append(np.array(columns[len(texts) :], np.float64))
        at_ms, code, figure = np.concatenate(at), np.concatenate(codes, axis=1), np.concatenate(figures, axis=1)
        if len(at_ms) > MAX_ROWS:
            raise PolicyError(f"{self._path}: more than {MAX_ROWS:,} rows of {table}; take less with --since")
        return Rows(
            at_ms,
            {name: Texts(tuple(seen), code[i]) for i, (name, seen) in enumerate(zip(texts, known, strict=True))},
            dict(zip(numbers, figure, strict=True)),
        )

    def any_frames(self, since_ms: int, until_ms: int) -> bool:
        """Whether any frame of that time is recorded."""
        self._check("inference", ("at_ms", "stored_ms"))
        with self._told():
            row = self._db.execute(
                "SELECT 1 FROM inference WHERE stored_ms >= ? AND at_ms BETWEEN ? AND ? LIMIT 1",
                (since_ms, since_ms, until_ms),
            ).fetchone()
        return row is not None

    def has(self, table: str) -> bool:
        """Whether the store has that table at all; older releases have no ``shadow`` and ``policy``."""
        return bool(self._columns(table))

    def devices(self) -> dict[str, RecordedDevice]:
        """Return what each device said of itself, by ``site/device``."""
        self._check("presence", ("site", "name", "role", "about"))
        with self._told():
            rows = self._db.execute("SELECT site, name, about FROM presence WHERE role = 'device'").fetchall()
        out = {}
        for site, name, about in rows:
            told = json.loads(about) if about else {}
            key = f"{site}/{name}"
            out[key] = RecordedDevice(
                key,
                str(told.get("device_class", "")),
                _plausible(told.get("slowdown"), plausible.SLOWDOWN, 1.0),
                _plausible(told.get("deadline_ms"), plausible.DEADLINE_MS, plausible.USUAL_DEADLINE_MS),
            )
        return out

    def _columns(self, table: str) -> set[str]:
        with self._told():
            return {row[1] for row in self._db.execute(f"PRAGMA table_info({table})")}

    def _check(self, table: str, needed: tuple[str, ...]) -> None:
        there = self._columns(table)
        if not there:
            raise PolicyError(f"{self._path} has no table {table}: no recorder of this release has written to it")
        missing = [name for name in needed if name not in there]
        if missing:
            raise PolicyError(
                f"{self._path}: table {table} has no {', '.join(missing)}: another release's recorder made it"
            )

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise PolicyError(f"{self._path} cannot be read as a recorder's store: {error}") from error


def _plausible(value: object, bounds: tuple[float, float], usual: float) -> float:
    return float(value) if isinstance(value, int | float) and bounds[0] <= value <= bounds[1] else usual
