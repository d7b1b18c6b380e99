"""Frames that wait for the edge: deadlines, late twins, and when to stop asking an edge that does not answer. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wire.plan import Plan

SILENT_AFTER = 3
"""Unanswered frames in a row before the edge counts as silent."""
TRIAL_MIN_MS = 500.0
TRIAL_MAX_MS = 8000.0


@dataclass(slots=True)
class InFlight:
    """One frame on its way: all that is needed to close it, or to finish it here."""

    frame: int
    plan: Plan
    image: Any
    truth: int | None
    captured_ns: int
    captured_ms: int
    sent_ns: int
    give_up_ns: int
    """When the device finishes the frame itself."""
    token: int
    head_ms: float
    encode_ms: float
    sent_bytes: int
    energy_mj: float
    alone: bool
    """Nothing else of ours was on its way when it left: its round trip measures the link."""


class Flight:
    """The frames in flight, by number."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._frames: dict[int, InFlight] = {}
        self._by_token: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def full(self) -> bool:
        """Whether no further frame may be sent."""
        return len(self._frames) >= self._limit

    def add(self, entry: InFlight) -> None:
        """Take a frame that was just sent."""
        self._frames[entry.frame] = entry
        self._by_token[entry.token] = entry.frame

    def answered(self, frame: int) -> InFlight | None:
        """Remove and return the frame an answer is for; ``None`` for a late twin or a stranger."""
        entry = self._frames.pop(frame, None)
        if entry is not None:
            del self._by_token[entry.token]
        return entry

    def not_sent(self, token: int) -> InFlight | None:
        """Remove and return the frame of a publication that will never leave."""
        frame = self._by_token.get(token)
        return None if frame is None else self.answered(frame)

    def overdue(self, now_ns: int) -> list[InFlight]:
        """Remove and return the frames whose answer is no longer waited for, oldest first."""
        late = [entry for entry in self._frames.values() if entry.give_up_ns <= now_ns]
        for entry in late:
            self.answered(entry.frame)
        return late

    def clear(self) -> list[InFlight]:
        """Remove and return all, oldest first."""
        entries = list(self._frames.values())
        self._frames.clear()
        self._by_token.clear()
        return entries

    def next_wake_ns(self) -> int | None:
        """When ``overdue`` will have something to return."""
        return min((entry.give_up_ns for entry in self._frames.values()), default=None)


class Breaker:
    """Stops sending to an edge that does not answer, but for a trial frame now and then."""

    def __init__(self) -> None:
        self._silent = 0
        self._trial_ms = TRIAL_MIN_MS
        self._next_trial_ns = 0

    @property
    def open(self) -> bool:
        """Whether the edge counts as silent."""
        return self._silent >= SILENT_AFTER

    def may_send(self, now_ns: int) -> bool:
        """Whether the next frame may go to the edge; while it is silent, a True is the trial of this period."""
        if not self.open:
            return True
        if now_ns < self._next_trial_ns:
            return False
        self._next_trial_ns = now_ns + int(self._trial_ms * 1e6)
        self._trial_ms = min(self._trial_ms * 2, TRIAL_MAX_MS)
        return True

    def answered(self) -> None:
        """The edge answered, whatever it said."""
        self._silent = 0
        self._trial_ms = TRIAL_MIN_MS

    def missed(self, now_ns: int) -> None:
        """A frame was given up."""
        self._silent += 1
        if self._silent == SILENT_AFTER:
            self._next_trial_ns = now_ns + int(self._trial_ms * 1e6)

    def reconnected(self) -> None:
        """A fresh connection deserves a fresh try."""
        self.answered()
