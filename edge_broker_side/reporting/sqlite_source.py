"""A report's figures from the recorder's store: rows stream into arrays, for sorting in SQL takes minutes."""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_broker_side.points import tag_text
from edge_broker_side.reporting.assembly import CELL, Cell, Key, Times
from edge_broker_side.reporting.figures import (
    ANSWERED_TIMES,
    DECISIONS_KEPT,
    EDGE_TIMES,
    PERCENTS,
    TIMES,
    Bucket,
    Decided,
    Decisions,
    Ledger,
    Missing,
    Quantiles,
    Reported,
    Scope,
    WorkerFigures,
)
from edge_broker_side.reporting.rank import rank
from edge_broker_side.store import StoreError
from edge_broker_side.store_file import SCHEMA
from wire.messages import Outcome

_FRAME = {
    "at_ms": ("at_ms", np.int64),
    **{name: (f"ifnull({name}, 9e999)", np.float32) for name in TIMES},  # what the wire carries: 32 bits
    "energy_mj": ("ifnull(energy_mj, 0)", np.float32),
    "sent_bytes": ("ifnull(sent_bytes, 0)", np.float64),
    "right": ("ifnull(label = truth, -1)", np.int8),
}
"""What is read of a frame and as what; infinite: no such time; -1: no label or no truth."""
_STAMP = "at_ms * 1000000 + number % 1000000"
"""The stamp in line protocol, see ``to_line``; of a group's rows, SQLite gives the one with the highest."""


@dataclass(frozen=True)
class _Frames:
    """One row per frame, and the few different tags they have."""

    keys: Sequence[Key]
    code: NDArray[np.int32]
    """Index into ``keys``."""
    values: NDArray[np.void]


@contextmanager
def open_store_source(path: Path, scope: Scope) -> Iterator[StoreSource]:
    """Read a store file at one moment, also while a recorder writes it; raises ``StoreError``."""
    if not path.is_file():
        raise StoreError(f"there is no {path}: name the recorder's store with --store, or its settings with --settings")
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0, isolation_level=None)
        try:
            db.execute("BEGIN")  # one consistent view
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version != SCHEMA:
                raise StoreError(
                    f"{path} has schema {version}, and reports read {SCHEMA}: "
                    + ("use a newer release" if version > SCHEMA else "start the recorder once, which brings it up")
                )
            yield StoreSource(db, path, scope)
        finally:
            db.close()
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}") from error


class StoreSource:
    """The frames of a scope take 50 bytes of memory each; the store's bounds bound them."""

    def __init__(self, db: sqlite3.Connection, path: Path, scope: Scope) -> None:
        self._db = db
        self._path = path
        self._scope = scope

    @property
    def words(self) -> str:
        """The source as the reader is told of it."""
        return f"the recorder's store ({self._path.name})"

    @property
    def scope(self) -> Scope:
        """What it was opened for."""
        return self._scope

    @cached_property
    def _frames(self) -> _Frames:
        where, values = self._where("inference")
        columns = ", ".join(sql for sql, _ in _FRAME.values())
        kinds = np.dtype([(name, kind) for name, (_, kind) in _FRAME.items()])
        rows = np.fromiter(self._db.execute(f"SELECT {columns} FROM inference WHERE {where}", values), kinds)
        # A second scan of the same view gives the same rows in the same order; it costs less than sorting them out.
        codes: defaultdict[Key, int] = defaultdict(lambda: len(codes))
        found = self._db.execute(f"SELECT {', '.join(CELL)} FROM inference WHERE {where}", values)
        code = np.fromiter(map(codes.__getitem__, found), np.int32, len(rows))
        told = [tuple(tag_text(tag or "") for tag in key) for key in codes]
        keys = list(dict.fromkeys(told))
        places = {key: place for place, key in enumerate(keys)}
        merged = np.array([places[key] for key in told], np.int32)
        return _Frames(keys, merged[code] if len(code) else code, rows)

    def cells(self) -> Sequence[Cell]:
        """Count frames by every tag."""
        frames, count = self._frames, len(self._frames.keys)
        answered = self._by_outcome(lambda outcome: outcome != Outcome.DROPPED)
        sums = [
            np.bincount(frames.code, weights, count)
            for weights in (
                None,
                frames.values["energy_mj"],
                frames.values["sent_bytes"],
                answered & (frames.values["right"] >= 0),
                answered & (frames.values["right"] > 0),
            )
        ]
        return [
            Cell(key, int(n), float(energy), int(sent), int(judged), int(right))
            for key, n, energy, sent, judged, right in zip(frames.keys, *sums, strict=True)
        ]

    def times(self, tags: Sequence[str]) -> Mapping[Key, Times]:
        """Return the percentiles of frames grouped by some tags."""
        frames = self._frames
        groups, group = self._regrouped(tags)
        found: dict[Key, dict[str, Quantiles]] = {key: {} for key in groups}
        for names, chosen in (
            (ANSWERED_TIMES, self._by_outcome(lambda outcome: outcome != Outcome.DROPPED)),
            (EDGE_TIMES, self._by_outcome(lambda outcome: outcome == Outcome.EDGE)),
        ):
            rows = np.flatnonzero(chosen)
            rows = rows[np.argsort(group[rows], kind="stable")]
            ends = np.cumsum(np.bincount(group[rows], minlength=len(groups)))
            for name in names:
                column = frames.values[name][rows]
                for key, mine in zip(groups, np.split(column, ends[:-1]), strict=True) if len(groups) else ():
                    if (quantiles := _quantiles(mine[np.isfinite(mine)])) is not None:
                        found[key][name] = quantiles
        return found

    def span(self) -> tuple[int, int] | None:
        """Return when the first and the last frame was captured, in Unix milliseconds."""
        at_ms = self._frames.values["at_ms"]
        return (int(at_ms.min()), int(at_ms.max())) if len(at_ms) else None

    def buckets(self, width_ms: int, devices: Sequence[str]) -> Mapping[str, Sequence[Bucket]]:
        """Return latency over time; a bucket begins at a multiple of its width."""
        frames = self._frames
        groups, group = self._regrouped(("device",))
        answered = self._by_outcome(lambda outcome: outcome != Outcome.DROPPED)
        found: dict[str, list[Bucket]] = {}
        for place, (device,) in enumerate(groups):
            if device not in devices:
                continue
            mine = frames.values[answered & (group == place)]
            bucket = mine["at_ms"] // width_ms
            order = np.argsort(bucket, kind="stable")
            starts, first = np.unique(bucket[order], return_index=True)
            parts = np.split(mine["latency_ms"][order], first[1:])
            found[device] = [
                Bucket(int(start) * width_ms, len(part), quantiles.p50)
                for start, part in zip(starts, parts, strict=False)
                if (quantiles := _quantiles(part)) is not None
            ]
        return found

    def ledgers(self) -> Mapping[str, Ledger]:
        """Return the account of each device at the end of the window."""
        where, values = self._where("ledger", since=False)
        rows = self._db.execute(
            f"SELECT device, captured, counted, gap, folded, max({_STAMP}) FROM ledger WHERE {where} GROUP BY device",
            values,
        )
        return {
            device: Ledger(captured, counted, gap, json.loads(folded or "{}"))
            for device, captured, counted, gap, folded, _ in rows
        }

    def decisions(self) -> Mapping[str, Decisions]:
        """Return the decisions for each device."""
        where, values = self._where("decision")
        rows = self._db.execute(
            "SELECT device, count, at_ms, version, cut, codec, policy, reason FROM (SELECT *, count(*) OVER (PARTITION"
            f" BY device) AS count, row_number() OVER (PARTITION BY device ORDER BY {_STAMP} DESC) AS place"
            f" FROM decision WHERE {where}) WHERE place <= {DECISIONS_KEPT} ORDER BY device, place DESC",
            values,
        )
        found = {}
        for (device, count), mine in groupby(rows, key=itemgetter(0, 1)):
            newest = [
                Decided(at_ms, "/".join(map(tag_text, plan)), tag_text(policy), _one_line(reason))
                for _, _, at_ms, *plan, policy, reason in mine
            ]
            found[device] = Decisions(count, tuple(newest))
        return found

    def reported(self) -> Mapping[str, Reported]:
        """Return what each device's telemetry said."""
        where, values = self._where("telemetry")
        newest = self._db.execute(
            f"SELECT device, battery_share, max({_STAMP}) FROM telemetry"
            f" WHERE {where} AND battery_share IS NOT NULL GROUP BY device",
            values,
        )
        battery = {device: share for device, share, _ in newest}
        rates: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        for device, rate in self._db.execute(f"SELECT device, uplink_bps FROM telemetry WHERE {where}", values):
            mine = rates[device]
            if rate is not None:
                mine.append(rate)
        return {
            device: Reported(None if (found := _quantiles(np.array(mine))) is None else found.p50, battery.get(device))
            for device, mine in rates.items()
        }

    def workers(self) -> Sequence[WorkerFigures]:
        """Return every worker's figures, by name."""
        where, values = self._where("worker", device=False)
        rows = self._db.execute(
            "SELECT worker, avg(utilisation), max(utilisation), avg(CASE WHEN served > 0 THEN batch_mean END),"
            f" avg(queued), max(queued), sum(served), sum(busy) FROM worker WHERE {where} GROUP BY worker",
            values,
        )
        return [WorkerFigures(*row) for row in rows]

    def missing(self) -> Missing | None:
        """Return what the store no longer has, and what the metrics server does not have."""
        trimmed = dict(self._db.execute("SELECT measurement, rows FROM trimmed WHERE rows > 0"))
        kept = dict(self._db.execute("SELECT key, value FROM meta"))
        dead = self._db.execute("SELECT count(*) FROM dead_letters").fetchone()[0]
        return Missing(trimmed, kept.get("waiting"), kept.get("trimmed_unforwarded", 0), dead)

    def _where(self, table: str, *, since: bool = True, device: bool = True) -> tuple[str, list[Any]]:
        """Return a condition and its values. The plus keeps SQLite from reading a whole table by way of an index."""
        scope = self._scope
        parts: list[tuple[str, tuple[Any, ...]]] = [(f"+{table}.site = ?", (scope.site,))]
        if since and scope.since_ms is not None:
            parts.append(("at_ms >= ?", (scope.since_ms,)))
        if scope.until_ms is not None:
            parts.append(("at_ms < ?", (scope.until_ms,)))
        if device and scope.devices:
            parts.append((f"device IN ({', '.join('?' * len(scope.devices))})", scope.devices))
        return " AND ".join(sql for sql, _ in parts), [value for _, values in parts for value in values]

    def _by_outcome(self, wanted: Callable[[str], bool]) -> NDArray[np.bool_]:
        """Return which frames have an outcome that is wanted."""
        of_key = np.array([wanted(key[CELL.index("outcome")]) for key in self._frames.keys], np.bool_)
        return of_key[self._frames.code]

    def _regrouped(self, tags: Sequence[str]) -> tuple[list[Key], NDArray[Any]]:
        """Return the groups that some tags make, and each frame's."""
        keys = [tuple(key[CELL.index(tag)] for tag in tags) for key in self._frames.keys]
        groups = list(dict.fromkeys(keys))
        places = {key: place for place, key in enumerate(groups)}
        # As narrow as can be: of up to 16 bits, numpy sorts by radix, several times faster.
        narrow = np.min_scalar_type(len(groups))
        return groups, np.array([places[key] for key in keys], narrow)[self._frames.code]


def _quantiles(values: NDArray[Any]) -> Quantiles | None:
    """Return the percentiles of values in any order."""
    if not len(values):
        return None
    places = [rank(len(values), percent) for percent in PERCENTS]
    ordered = np.partition(values, places)
    return Quantiles(*(float(ordered[place]) for place in places))


def _one_line(text: str | None) -> str:
    """Return a text as line protocol keeps it."""
    return (text or "").replace("\n", " ").replace("\r", " ")
