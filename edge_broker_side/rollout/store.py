"""What is kept of roll-outs: a SQLite file that the server and the commands share, so that both outlive a restart."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_broker_side.rollout.campaign import Fate, Member, RolloutError, Status, Terms, spent
from wire.bundle import Manifest
from wire.messages import UpdateStage, UpdateState

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rollouts(
    id INTEGER PRIMARY KEY AUTOINCREMENT, bundle TEXT NOT NULL, slot TEXT NOT NULL, sha256 TEXT NOT NULL,
    selection TEXT NOT NULL, terms TEXT NOT NULL, status TEXT NOT NULL, stage INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '', begun_s REAL NOT NULL, changed_s REAL NOT NULL, judged_s REAL);
CREATE TABLE IF NOT EXISTS members(
    rollout INTEGER NOT NULL, device TEXT NOT NULL, place REAL NOT NULL, told_s REAL, stage TEXT,
    done_bytes INTEGER NOT NULL DEFAULT 0, size_bytes INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
    online_s REAL NOT NULL DEFAULT 0, stood_s REAL NOT NULL DEFAULT 0, fate TEXT NOT NULL DEFAULT 'untold',
    PRIMARY KEY (rollout, device)) WITHOUT ROWID;
"""
_NEWER = ("online_s", "stood_s")
"""Columns of ``members`` that a file of an older release has not."""
OPEN = frozenset({Status.RUNNING, Status.PAUSED, Status.STOPPED})
"""A site has one of these at a time: two would tell a device two things."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One roll-out; ``id`` is the ``rev`` that devices are told."""

    id: int
    bundle: str
    slot: str
    """A version, ``@settings`` or ``@client``."""
    sha256: str
    selection: str
    terms: Terms
    status: Status
    stage: int
    reason: str
    begun_s: float
    changed_s: float
    judged_s: float | None
    """When the server last looked at it."""


class RolloutStore:
    """The file. For one thread; each process opens it for itself."""

    def __init__(self, path: Path) -> None:
        """Open or make it; raises ``RolloutError``."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=10, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")  # what a power cut takes is told again, and the same
            self._db.executescript(_SCHEMA)
            self._add_newer()
        except (OSError, sqlite3.Error) as error:
            raise RolloutError(f"cannot use {path} ({error}): move it away, and its roll-outs are over") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # -- by the commands -------------------------------------------------------------------------------------------

    def begin(self, manifest: Manifest, selection: str, terms: Terms, now_s: float) -> Rollout:
        """Begin a roll-out; raises ``RolloutError`` while another is open."""
        with self._change():
            open_ones = [rollout for rollout in self.all() if rollout.status in OPEN]
            if open_ones:
                other = open_ones[0]
                raise RolloutError(
                    f"roll-out {other.id} of {other.bundle} is {other.status}: let it end, or splitfleet rollout abort"
                )
            number = self._db.execute(
                "INSERT INTO rollouts(bundle, slot, sha256, selection, terms, status, begun_s, changed_s)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    manifest.bundle, manifest.slot, manifest.sha256, selection, json.dumps(asdict(terms)),
                    Status.RUNNING, now_s, now_s,
                ),
            ).lastrowid  # fmt: skip
            assert number is not None
        return self.get(number)

    def turn(self, rollout: Rollout, status: Status, reason: str, now_s: float) -> Rollout:
        """Pause, resume, stop, abort or end one; raises ``RolloutError`` where that cannot be.

        Whoever was told before a resume has all the time of its terms again: a stopped roll-out hands nothing out.
        """
        allowed = {
            Status.PAUSED: {Status.RUNNING},
            Status.RUNNING: {Status.PAUSED, Status.STOPPED},
            Status.STOPPED: {Status.RUNNING},
            Status.DONE: {Status.RUNNING},
            Status.ABORTED: {*OPEN, Status.DONE},
        }[status]
        with self._change():
            now = self.get(rollout.id)
            if now.status not in allowed:
                raise RolloutError(f"roll-out {now.id} is {now.status}, so it cannot be {status}")
            if status is Status.RUNNING:
                if why := spent(now.terms, self.members(now)):
                    raise RolloutError(
                        f"roll-out {now.id} would stop again: {why}, and that stays so under this roll-out;"
                        " end it with splitfleet rollout abort and start anew"
                    )
                self._db.execute("UPDATE members SET online_s = 0, stood_s = 0 WHERE rollout = ?", (now.id,))
            self._db.execute(
                "UPDATE rollouts SET status = ?, reason = ?, changed_s = ? WHERE id = ?",
                (status, reason, now_s, rollout.id),
            )
        return self.get(rollout.id)

    # -- by the server ---------------------------------------------------------------------------------------------

    def to_stage(self, rollout: Rollout, stage: int, now_s: float) -> None:
        """Enter a stage."""
        self._db.execute("UPDATE rollouts SET stage = ?, changed_s = ? WHERE id = ?", (stage, now_s, rollout.id))

    def enrol(self, rollout: Rollout, members: Iterable[tuple[str, float]]) -> None:
        """Add devices with their places; those that are members stay as they are."""
        with self._change():
            self._db.executemany(
                "INSERT OR IGNORE INTO members(rollout, device, place) VALUES (?, ?, ?)",
                [(rollout.id, device, place) for device, place in members],
            )

    def tell(self, rollout: Rollout, devices: Sequence[str], now_s: float) -> None:
        """Note that devices are told from now on."""
        with self._change():
            self._db.executemany(
                "UPDATE members SET told_s = ?, online_s = 0, stood_s = 0 WHERE rollout = ? AND device = ?",
                [(now_s, rollout.id, device) for device in devices],
            )

    def note(self, device: str, told: UpdateState) -> bool:
        """Take in how far a device is; return whether it is a member that was told of that very attempt."""
        found = self._db.execute(
            "SELECT m.* FROM members m JOIN rollouts r ON r.id = m.rollout"
            " WHERE m.rollout = ? AND m.device = ? AND m.told_s IS NOT NULL AND r.bundle = ?",
            (told.rev, device, told.bundle),
        ).fetchone()
        if found is None:
            return False
        moved = found["stage"] != told.stage or found["done_bytes"] != told.done_bytes
        self._db.execute(
            "UPDATE members SET stage = ?, done_bytes = ?, size_bytes = ?, reason = ?, stood_s = ?"
            " WHERE rollout = ? AND device = ?",
            (
                told.stage, told.done_bytes, told.size_bytes, told.reason[:500],
                0.0 if moved else found["stood_s"], told.rev, device,
            ),
        )  # fmt: skip
        return True

    def were_online(self, rollout: Rollout, devices: Iterable[str], for_s: float) -> None:
        """Count that devices under way were online for so long: kept here, so that a restart forgets none of it."""
        with self._change():
            self._db.executemany(
                "UPDATE members SET online_s = online_s + ?1, stood_s = stood_s + ?1"
                " WHERE rollout = ?2 AND device = ?3",
                [(for_s, rollout.id, device) for device in devices],
            )

    def judged(self, rollout: Rollout, fates: Mapping[str, Fate], now_s: float) -> None:
        """Write down what became of the devices, for whoever asks without hearing them."""
        with self._change():
            self._db.execute("UPDATE rollouts SET judged_s = ? WHERE id = ?", (now_s, rollout.id))
            self._db.executemany(
                "UPDATE members SET fate = ?1 WHERE rollout = ?2 AND device = ?3 AND fate <> ?1",
                [(met, rollout.id, device) for device, met in fates.items()],
            )

    def told(self, device: str | None = None) -> dict[str, list[tuple[Rollout, Member]]]:
        """Return, by device, the roll-outs that it (or each) was told of, the newest first."""
        rollouts = {rollout.id: rollout for rollout in self.all()}
        where, values = ("", ()) if device is None else ("AND device = ?", (device,))
        rows = self._db.execute(f"SELECT * FROM members WHERE told_s IS NOT NULL {where} ORDER BY rollout DESC", values)
        found: dict[str, list[tuple[Rollout, Member]]] = {}
        for row in rows:
            found.setdefault(row["device"], []).append((rollouts[row["rollout"]], _member(row)))
        return found

    def withdraw(self, device: str) -> bool:
        """Note that aborted roll-outs are taken back from a device; return whether any was still with it."""
        ended = (UpdateStage.ACTIVE, UpdateStage.FAILED, UpdateStage.ROLLED_BACK)
        taken = self._db.execute(
            "UPDATE members SET told_s = NULL, fate = ?, reason = 'withdrawn' WHERE device = ? AND told_s IS NOT NULL"
            " AND coalesce(stage, '') NOT IN (?, ?, ?) AND rollout IN (SELECT id FROM rollouts WHERE status = ?)",
            (Fate.UNTOLD, device, *ended, Status.ABORTED),
        )
        return taken.rowcount > 0

    # -- by both ---------------------------------------------------------------------------------------------------

    def all(self) -> list[Rollout]:
        """Return every roll-out, the newest first."""
        return [_rollout(row) for row in self._db.execute("SELECT * FROM rollouts ORDER BY id DESC")]

    def get(self, number: int | None = None) -> Rollout:
        """Return a roll-out, or the newest; raises ``RolloutError`` where there is none."""
        for rollout in self.all():
            if number is None or rollout.id == number:
                return rollout
        there = ", ".join(str(rollout.id) for rollout in self.all())
        if not there:
            raise RolloutError("there is no roll-out yet: begin one with splitfleet rollout start")
        raise RolloutError(f"there is no roll-out {number}: there are {there}")

    def fates(self, rollout: Rollout) -> dict[str, Fate]:
        """Return what became of each device when the server last looked."""
        rows = self._db.execute("SELECT device, fate FROM members WHERE rollout = ?", (rollout.id,))
        return {row["device"]: Fate(row["fate"]) for row in rows}

    def members(self, rollout: Rollout) -> list[Member]:
        """Return the devices of a roll-out in their order."""
        rows = self._db.execute("SELECT * FROM members WHERE rollout = ? ORDER BY place, device", (rollout.id,))
        return [_member(row) for row in rows]

    def _add_newer(self) -> None:
        with self._change():
            there = {row["name"] for row in self._db.execute("PRAGMA table_info(members)")}
            for column in _NEWER:
                if column not in there:
                    self._db.execute(f"ALTER TABLE members ADD COLUMN {column} REAL NOT NULL DEFAULT 0")

    @contextmanager
    def _change(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _rollout(row: sqlite3.Row) -> Rollout:
    told: dict[str, Any] = json.loads(row["terms"])
    terms = Terms(**{**told, "stages": tuple(told["stages"])})
    return Rollout(
        row["id"], row["bundle"], row["slot"], row["sha256"], row["selection"], terms, Status(row["status"]),
        row["stage"], row["reason"], row["begun_s"], row["changed_s"], row["judged_s"],
    )  # fmt: skip


def _member(row: sqlite3.Row) -> Member:
    stage = None if row["stage"] is None else UpdateStage(row["stage"])
    return Member(
        row["device"], row["place"], row["told_s"], stage, row["done_bytes"], row["size_bytes"], row["reason"],
        row["online_s"], row["stood_s"],
    )  # fmt: skip
