"""The ledger: every captured frame and how it ended, on disk until the recorder has it.

One SQLite file in WAL mode without syncing: what is written survives the death of the process; a power cut may cost
the last seconds, which the recorder then sees as a gap in the frame numbers of that session. While the disk is full,
what is to be written waits in memory, within bounds.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from dataclasses import fields
from operator import attrgetter
from pathlib import Path

from device_client.ledger_file import Transaction, Writer, open_ledger, unusable
from wire.messages import EnergySource, FoldedCount, FrameOutcome, Outcome, Outcomes
from wire.plan import Plan, parse_plan

log = logging.getLogger(__name__)

BATCH_ROWS = 200
FOLD_ROWS = 500
"""How many of the oldest lines are folded at once when the ledger is full."""
SPOOL_ROWS = 3600
"""Telemetry messages kept while offline: an hour at one per second; the oldest go first."""
DIED = "client-died"

_LINE_FIELDS = tuple(f.name for f in fields(FrameOutcome))
_values = attrgetter(*_LINE_FIELDS)
_OUTCOME = _LINE_FIELDS.index("outcome")
_PLAN = _LINE_FIELDS.index("plan")
_SOURCE = _LINE_FIELDS.index("energy_source")
_REASON = _LINE_FIELDS.index("reason")


class Ledger:
    """Frames of this session and of those before it that nobody has recorded yet. For one thread."""

    def __init__(self, path: Path, max_rows: int) -> None:
        """Open or make the file (a corrupt one is set aside), begin a session, close what died.

        Raises ``LedgerError`` where the file cannot be written or another client has it.
        """
        self._db = open_ledger(path)
        self._writer = Writer(self._db)
        self._open: set[int] = set()
        self._max_rows = max_rows
        self._outstanding: tuple[Outcomes, list[FoldedCount]] | None = None
        self._batch = time.time_ns()
        self.lost_to_spool_bound = 0
        self.captured = 0
        self.counts = dict.fromkeys(Outcome, 0)
        try:
            self._begin()
        except sqlite3.OperationalError as error:
            self._db.close()
            raise unusable(path, error) from error

    def _begin(self) -> None:
        self._close_dead_frames()
        last = self._db.execute("SELECT max(session) FROM sessions").fetchone()[0] or 0
        # The clock keeps sessions rising should the ledger be lost; the ledger does should the clock jump back.
        self.session = max(last + 1, time.time_ns() // 1_000_000)
        self._db.execute("INSERT INTO sessions VALUES (?, 0)", (self.session,))
        self._forget_finished()
        self._rows = self._db.execute("SELECT count(*) FROM frames").fetchone()[0]

    def close(self) -> None:
        """Close the file; nothing is lost by not calling this, but for what waits for a full disk."""
        self._writer.flush()
        self._db.close()

    # -- frames ----------------------------------------------------------------------------------------------------

    def open_frame(self, plan: Plan, captured_ms: int) -> int:
        """Enter a captured frame and return its number in this session."""
        self.captured += 1
        self._open.add(self.captured)
        self._rows += self._writer.write(
            "INSERT INTO frames VALUES (?, ?, ?, ?, NULL, 0)", (self.session, self.captured, str(plan), captured_ms)
        )
        if self._rows > self._max_rows:
            self._fold()
        return self.captured

    @property
    def not_written(self) -> int:
        """Statements lost because the disk was full for long: each a frame that will show as a gap, or as died."""
        return self._writer.lost

    def close_frame(self, line: FrameOutcome) -> bool:
        """Enter how a frame ended; returns False, changing nothing, when it already has an outcome."""
        if line.frame not in self._open:
            return False
        self._open.remove(line.frame)
        self._writer.write(
            "UPDATE frames SET line = ? WHERE session = ? AND frame = ?", (_text(line), self.session, line.frame)
        )
        self.counts[line.outcome] += 1
        return True

    @property
    def unrecorded(self) -> int:
        """Frame lines on this board that the recorder has not acknowledged."""
        return int(self._rows)

    # -- to the recorder -------------------------------------------------------------------------------------------

    def batch(self) -> Outcomes | None:
        """Return the batch to send now: the one not yet acknowledged, or the next; ``None`` when all is recorded."""
        if self._outstanding is None and self._writer.flush():
            try:
                self._outstanding = self._next_batch()
            except sqlite3.OperationalError as error:
                self._writer.complain(error)
        return self._outstanding[0] if self._outstanding else None

    def recorded(self, session: int, batch: int) -> bool:
        """Forget what the recorder has stored; returns False for a receipt of something else.

        Also while the disk is full: the batch is then sent again.
        """
        if self._outstanding is None:
            return False
        message, folded = self._outstanding
        if (message.session, message.batch) != (session, batch):
            return False
        try:
            self._forget(message, folded)
        except sqlite3.OperationalError as error:
            self._writer.complain(error)
            return False
        self._rows -= len(message.rows)
        self._outstanding = None
        return True

    def _forget(self, message: Outcomes, folded: list[FoldedCount]) -> None:
        session = message.session
        with Transaction(self._db):
            watermark = max((row.frame for row in message.rows), default=0)
            self._db.execute("UPDATE sessions SET captured = max(captured, ?) WHERE session = ?", (watermark, session))
            self._db.executemany(
                "DELETE FROM frames WHERE session = ? AND frame = ?", [(session, row.frame) for row in message.rows]
            )
            self._db.executemany(
                "UPDATE folded SET recorded = ? WHERE session = ? AND outcome = ? AND reason = ?",
                [(f.frames, session, f.outcome, f.reason) for f in folded],
            )
            self._forget_finished()

    def _next_batch(self) -> tuple[Outcomes, list[FoldedCount]] | None:
        closed = "SELECT session FROM frames WHERE line IS NOT NULL ORDER BY session, frame LIMIT 1"
        folded_rows = "SELECT session FROM folded WHERE frames > recorded"
        waiting = [*self._db.execute(closed), *self._db.execute(folded_rows)]
        if not waiting:
            return None
        (found,) = min(waiting)
        columns = "SELECT plan, line, frame FROM frames WHERE session = ?"
        # First what an earlier client sent without a receipt: only such lines may be with the recorder already.
        rows = self._db.execute(f"{columns} AND sent", (found,)).fetchall()
        if not rows:
            rows = self._db.execute(
                f"{columns} AND line IS NOT NULL ORDER BY frame LIMIT ?", (found, BATCH_ROWS)
            ).fetchall()
            with Transaction(self._db):
                self._db.executemany(
                    "UPDATE frames SET sent = 1 WHERE session = ? AND frame = ?",
                    [(found, frame) for _, _, frame in rows],
                )
        plans = {text: index for index, text in enumerate(dict.fromkeys(text for text, _, _ in rows))}
        folded = [
            FoldedCount(Outcome(outcome), reason, frames)
            for outcome, reason, frames in self._db.execute(
                "SELECT outcome, reason, frames FROM folded WHERE session = ? AND frames > recorded", (found,)
            )
        ]
        self._batch += 1
        message = Outcomes(
            session=found,
            batch=self._batch,
            captured=self.captured if found == self.session else self._captured_in(found),
            plans=tuple(parse_plan(text) for text in plans),
            rows=tuple(_line(text, plans[plan]) for plan, text, _ in rows),
            folded=tuple(folded),
        )
        return message, folded

    def _captured_in(self, session: int) -> int:
        row = self._db.execute(
            "SELECT max(captured, (SELECT coalesce(max(frame), 0) FROM frames WHERE session = ?1))"
            " FROM sessions WHERE session = ?1",
            (session,),
        ).fetchone()
        return int(row[0]) if row else 0

    def _forget_finished(self) -> None:
        """Drop what is kept of earlier sessions whose every frame is recorded."""
        finished = (
            "SELECT session FROM sessions WHERE session < ? AND session NOT IN (SELECT session FROM frames)"
            " AND session NOT IN (SELECT session FROM folded WHERE frames > recorded)"
        )
        self._db.execute(f"DELETE FROM folded WHERE session IN ({finished})", (self.session,))
        self._db.execute(f"DELETE FROM sessions WHERE session IN ({finished})", (self.session,))

    # -- bounds and crashes ----------------------------------------------------------------------------------------

    def _fold(self) -> None:
        """Turn the oldest closed lines into counts, but for those that the recorder may have without our knowing."""
        oldest = self._db.execute(
            "SELECT session, frame, line FROM frames WHERE line IS NOT NULL AND NOT sent"
            " ORDER BY session, frame LIMIT ?",
            (FOLD_ROWS,),
        ).fetchall()
        try:
            self._turn_into_counts(oldest)
        except sqlite3.OperationalError as error:
            self._writer.complain(error)
            return
        self._rows -= len(oldest)

    def _turn_into_counts(self, oldest: list[tuple[int, int, str]]) -> None:
        with Transaction(self._db):
            for session, frame, line in oldest:
                values = json.loads(line)
                self._db.execute(
                    "INSERT INTO folded(session, outcome, reason, frames) VALUES (?, ?, ?, 1)"
                    " ON CONFLICT DO UPDATE SET frames = frames + 1",
                    (session, values[_OUTCOME], values[_REASON]),
                )
                self._db.execute("DELETE FROM frames WHERE session = ? AND frame = ?", (session, frame))
                self._db.execute("UPDATE sessions SET captured = max(captured, ?) WHERE session = ?", (frame, session))

    def _close_dead_frames(self) -> None:
        dead = self._db.execute("SELECT session, frame, captured_ms FROM frames WHERE line IS NULL").fetchall()
        for session, frame, captured_ms in dead:
            line = FrameOutcome(frame, Outcome.DROPPED, 0, captured_ms, 0.0, reason=DIED)
            self._db.execute(
                "UPDATE frames SET line = ? WHERE session = ? AND frame = ?",
                (_text(line), session, frame),
            )
        if dead:
            log.warning("%d frames had no outcome when the client last died; they count as dropped", len(dead))

    # -- telemetry kept while offline, and small things to remember ------------------------------------------------

    def spool(self, payload: bytes) -> None:
        """Keep a telemetry message for later, pushing out the oldest beyond the bound."""
        try:
            self._db.execute("INSERT INTO spool(payload) VALUES (?)", (payload,))
            gone = "DELETE FROM spool WHERE id <= (SELECT max(id) FROM spool) - ?"
            self.lost_to_spool_bound += self._db.execute(gone, (SPOOL_ROWS,)).rowcount
        except sqlite3.OperationalError as error:
            self._writer.complain(error)
            self.lost_to_spool_bound += 1

    def unspool(self) -> tuple[int, bytes] | None:
        """Return the oldest spooled message with the id to drop it by; ``None`` too while it could not be dropped."""
        if not self._writer.flush():
            return None
        row = self._db.execute("SELECT id, payload FROM spool ORDER BY id LIMIT 1").fetchone()
        return (int(row[0]), bytes(row[1])) if row else None

    def drop_spooled(self, number: int) -> None:
        """Forget a spooled message that was sent."""
        self._writer.write("DELETE FROM spool WHERE id = ?", (number,))

    def remember(self, key: str, value: str) -> None:
        """Keep a small value across restarts."""
        self._writer.write("INSERT OR REPLACE INTO memory VALUES (?, ?)", (key, value))

    def recall(self, key: str) -> str | None:
        """Return a remembered value."""
        row = self._db.execute("SELECT value FROM memory WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else None


def _text(line: FrameOutcome) -> str:
    # Not dataclasses.astuple: its deep copies cost more than everything else that is done for a frame here.
    return json.dumps(_values(line))


def _line(text: str, plan: int) -> FrameOutcome:
    values = json.loads(text)
    values[_PLAN] = plan
    values[_OUTCOME] = Outcome(values[_OUTCOME])
    values[_SOURCE] = EnergySource(values[_SOURCE])
    return FrameOutcome(*values)
