"""What the store tells of a site: frames by outcome, what is missing, and the figures of the frames that are kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_broker_side.reporting.rank import rank
from edge_broker_side.store import StoreError
from wire.messages import Outcome


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts cover everything ever recorded, figures only rows not trimmed since. ``None``: there is no such row."""

    captured: int
    outcomes: Mapping[str, int]
    gap: int
    """Captured, but with no outcome here: still under way, or lost."""
    latency_ms_p50: float | None
    latency_ms_p95: float | None
    """Of the frames that were answered."""
    accuracy: float | None
    """Share of right answers among answered frames whose true label is known."""
    energy_mj_mean: float | None
    bytes_mean: float | None
    plan_switches: int
    decisions: int


@dataclass(frozen=True, slots=True)
class SiteTotals:
    """A site as a whole, and each of its devices."""

    fleet: Totals
    devices: Mapping[str, Totals]


def totals(path: Path, site: str) -> SiteTotals:
    """Read the totals of a site from a store file, also while a recorder writes it; raises ``StoreError``."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as db:
            db.execute("BEGIN")  # one consistent view
            names = [row[0] for row in db.execute("SELECT DISTINCT device FROM sessions WHERE site = ?", (site,))]
            devices = {name: _totals(db, "site = ? AND device = ?", (site, name)) for name in sorted(names)}
            return SiteTotals(_totals(db, "site = ?", (site,)), devices)
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}") from error


def last_stored_ms(path: Path) -> int | None:
    """Return when telemetry was last stored, in Unix milliseconds; ``None``: never. Raises ``StoreError``."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as db:
            newest = db.execute("SELECT max(stored_ms) FROM telemetry").fetchone()[0]
            return None if newest is None else int(newest)
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}") from error


def _totals(db: sqlite3.Connection, where: str, key: tuple[Any, ...]) -> Totals:
    def one(sql: str) -> Any:
        row = db.execute(f"{sql} WHERE {where}", key).fetchone()
        return None if row is None else row[0]

    outcomes = {str(outcome): 0 for outcome in Outcome}
    for table in ("totals", "folded"):
        for outcome, frames in db.execute(
            f"SELECT outcome, sum(frames) FROM {table} WHERE {where} GROUP BY outcome", key
        ):
            outcomes[outcome] = outcomes.get(outcome, 0) + frames
    captured = one("SELECT coalesce(sum(captured), 0) FROM sessions")
    answered = f"{where} AND outcome <> '{Outcome.DROPPED}'"
    known = f"{answered} AND truth IS NOT NULL AND label IS NOT NULL"
    return Totals(
        captured=captured,
        outcomes=outcomes,
        gap=captured - sum(outcomes.values()),
        latency_ms_p50=_percentile(db, answered, key, 50),
        latency_ms_p95=_percentile(db, answered, key, 95),
        accuracy=db.execute(f"SELECT avg(label = truth) FROM inference WHERE {known}", key).fetchone()[0],
        energy_mj_mean=one("SELECT avg(energy_mj) FROM inference"),
        bytes_mean=one("SELECT avg(sent_bytes) FROM inference"),
        plan_switches=_plan_switches(db, where, key),
        decisions=one("SELECT count(*) FROM decision"),
    )


def _percentile(db: sqlite3.Connection, where: str, key: tuple[Any, ...], percent: float) -> float | None:
    """Return the nearest-rank percentile of the latency, see ``rank``."""
    rows = db.execute(f"SELECT count(*) FROM inference WHERE {where}", key).fetchone()[0]
    if not rows:
        return None
    row = db.execute(
        f"SELECT latency_ms FROM inference WHERE {where} ORDER BY latency_ms LIMIT 1 OFFSET ?",
        (*key, rank(rows, percent)),
    ).fetchone()
    return float(row[0])


def _plan_switches(db: sqlite3.Connection, where: str, key: tuple[Any, ...]) -> int:
    """Count neighbouring frames of one session that were captured under different plans."""
    row = db.execute(
        "SELECT count(*) FROM (SELECT version || '/' || cut || '/' || codec AS plan, lag(version || '/' || cut || '/'"
        " || codec) OVER (PARTITION BY site, device, session ORDER BY frame) AS before FROM inference"
        f" WHERE {where}) WHERE plan <> before",
        key,
    ).fetchone()
    return int(row[0])
