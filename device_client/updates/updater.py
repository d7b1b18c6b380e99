"""How a board comes to a new version: the states of an update. Disk, key and self-test are passed in; nothing waits.

Every method takes what happened and the monotonic time, and returns what is to be done.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from device_client.settings import UpdateSettings
from device_client.updates.shelf import Shelf
from device_client.updates.trial import Board, Trial, unfit
from wire.bundle import BundleError, Manifest, read_manifest
from wire.messages import Chunk, Fetch, Installed, Update, UpdateStage, UpdateState

log = logging.getLogger(__name__)

S = UpdateStage
UNDER_WAY = frozenset({S.QUEUED, S.DOWNLOADING, S.VERIFYING, S.TESTING, S.TRIAL})
FIRST_PATIENCE_S, LAST_PATIENCE_S = 5.0, 60.0
"""How long to wait for bytes that were asked for."""
SILENT_ASKS = 3
TELL_EVERY_S = 2.0
AGAIN_S = 5.0
"""Between attempts to write down, on a full disk, that a version is kept."""
MAX_DAMAGED = 3
"""Files that may arrive damaged: a power cut can spoil one, more is not chance."""
MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Prove the bundle in a folder."""

    kind: str
    folder: Path
    tolerance: float


@dataclass(frozen=True, slots=True)
class Switch:
    """Serve what the shelf's catalog now says; ``trial`` names the version whose frames are to be told."""

    trial: str | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """Start the client anew: it runs with other settings, or is another release."""


Effect = UpdateState | Fetch | SelfTest | Switch | Restart
Verify = Callable[[bytes, bytes], None]
"""Raises ``BundleError`` unless a manifest has the site's signature."""


class Updater:
    """The update of one board, from its being wanted to its being kept."""

    def __init__(
        self,
        shelf: Shelf,
        board: Board,
        settings: UpdateSettings,
        verify: Verify,
        session: int,
        rng: random.Random,
        wall_ms: Callable[[], int],
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.stage = S.IDLE
        self._shelf = shelf
        self._board = board
        self._settings = settings
        self._verify = verify
        self._session = session
        self._rng = rng
        self._wall_ms = wall_ms
        self._rev = 0
        self._bundle = ""
        self._manifest: Manifest | None = None
        self._frames = 0
        self._offset = 0
        self._reason = ""
        self._damaged = 0
        self._asked: Fetch | None = None
        self._unanswered = 0
        self._due_s = 0.0
        """When to ask for bytes (again), or to try a write again."""
        self._trial: Trial | None = None
        self._restarts = False
        """Whether the client starts anew into what is on trial, and out of it."""
        self._online = False
        self._told_s = float("-inf")
        self._untold = False
        trial, ended = shelf.held.trial, shelf.held.ended
        if trial is not None:
            self._rev, self._bundle, self._frames, self.stage = trial.rev, trial.bundle, trial.frames, S.TRIAL
            self._restarts = trial.slot.startswith("@")
        elif ended is not None:
            self._rev, self._bundle, self.stage, self._reason = ended.rev, ended.bundle, ended.stage, ended.reason

    # -- what is wanted --------------------------------------------------------------------------------------------

    def connected(self, now_s: float) -> list[Effect]:
        """The broker is there: it must hear where we are, and may be asked at once."""
        self._online = True
        self._due_s = min(self._due_s, now_s)
        return [self._state(now_s)]

    def disconnected(self) -> None:
        """Nobody can be asked."""
        self._online = False
        self._asked = None

    def wanted(self, update: Update, now_s: float) -> list[Effect]:
        """Take in what this board should have; twins change nothing."""
        if (update.rev, update.bundle) == (self._rev, self._bundle) and self._knows():
            if self.stage not in UNDER_WAY:
                self._shelf.tidy()
            return []
        effects = self._give_up("another bundle is wanted") if self.stage in UNDER_WAY else []
        self._rev, self._bundle, self._frames = update.rev, update.bundle, update.trial_frames
        self._manifest, self._asked = None, None
        self._offset = self._damaged = self._unanswered = 0
        try:
            self._verify(update.manifest, update.signature)
            manifest = read_manifest(update.manifest)
            if manifest.bundle != update.bundle:
                raise BundleError(f"the manifest is of {manifest.bundle}, not of {update.bundle[:64]}")
            problem = unfit(manifest, self._board)
            if problem:
                raise BundleError(problem)
            self._manifest, self._restarts = manifest, manifest.restarts
            if self._shelf.held.kept.get(manifest.slot) == manifest.bundle:
                self._shelf.end(self._rev, self._bundle, S.ACTIVE)
                return [*effects, *self._enter(S.ACTIVE, now_s)]
            self._offset = self._shelf.receive(manifest)
        except (BundleError, OSError) as error:
            return [*effects, *self._fail(error, now_s)]
        self._due_s = now_s + self._rng.uniform(0, self._settings.spread_s)
        return [*effects, *self._enter(S.VERIFYING if self._offset == manifest.size else S.QUEUED, now_s)]

    def withdrawn(self, now_s: float) -> list[Effect]:
        """Nothing is wanted any more."""
        if self.stage not in UNDER_WAY:
            return []
        effects = self._give_up("withdrawn")
        return [*effects, *self._enter(self._ended_stage(), now_s, "withdrawn")]

    def _knows(self) -> bool:
        """A start in the middle of a trial has no manifest, and needs none; other stages under way do."""
        return self.stage is S.TRIAL or self._manifest is not None or self.stage not in UNDER_WAY | {S.IDLE}

    def _give_up(self, reason: str) -> list[Effect]:
        was_trial = self._shelf.held.trial is not None
        self._shelf.end(self._rev, self._bundle, S.ROLLED_BACK if was_trial else S.FAILED, reason)
        self._manifest = self._trial = self._asked = None
        return self._back() if was_trial else []

    def _back(self) -> list[Effect]:
        return [Restart() if self._restarts else Switch()]

    def _ended_stage(self) -> UpdateStage:
        ended = self._shelf.held.ended
        return S.IDLE if ended is None else ended.stage

    # -- the bytes -------------------------------------------------------------------------------------------------

    def arrived(self, chunk: Chunk, now_s: float) -> list[Effect]:
        """Store bytes that were asked for; all others are counted and forgotten."""
        asked, manifest = self._asked, self._manifest
        if (
            asked is None
            or manifest is None
            or (chunk.bundle, chunk.offset) != (asked.bundle, asked.offset)
            or not 0 < len(chunk.data) <= asked.length
        ):
            self.counters["update_chunks_unasked"] += 1
            return []
        try:
            self._shelf.store(manifest, chunk.offset, chunk.data)
        except OSError as error:
            return self._fail(error, now_s)
        self._offset += len(chunk.data)
        self._asked, self._unanswered, self._reason = None, 0, ""
        self._due_s = now_s + len(chunk.data) / self._settings.rate_bytes_per_s
        if self._offset == manifest.size:
            return self._enter(S.VERIFYING, now_s)
        self._untold = True
        return self._enter(S.DOWNLOADING, now_s) if self.stage is S.QUEUED else []

    def tend(self, now_s: float) -> list[Effect]:
        """Do what is due."""
        effects: list[Effect] = []
        if self.stage in (S.QUEUED, S.DOWNLOADING) and self._online and now_s >= self._due_s:
            effects += self._ask(now_s)
        elif self.stage is S.VERIFYING:
            effects += self._check(now_s)
        elif self.stage is S.TRIAL:
            effects += self._judge(now_s)
        if self._untold and now_s >= self._told_s + TELL_EVERY_S:
            effects.append(self._state(now_s))
        return effects

    def next_wake_s(self, now_s: float) -> float:
        """Return when ``tend`` next has something to do."""
        if self.stage is S.VERIFYING:
            return now_s
        if self.stage in (S.QUEUED, S.DOWNLOADING) and self._online:
            return self._due_s
        return now_s + 1.0

    def _ask(self, now_s: float) -> list[Effect]:
        assert self._manifest is not None
        if self._asked is not None:
            self._unanswered += 1
            self.counters["update_asks_unanswered"] += 1
            if self._unanswered == SILENT_ASKS:
                self._reason, self._untold = "waits for the roll-out server", True
        length = min(self._settings.chunk_bytes, self._manifest.size - self._offset)
        self._asked = Fetch(self._bundle, self._offset, length)
        patience_s = min(FIRST_PATIENCE_S * 2**self._unanswered, LAST_PATIENCE_S)
        self._due_s = now_s + patience_s * self._rng.uniform(0.8, 1.2)
        return [self._asked]

    # -- proof and trial -------------------------------------------------------------------------------------------

    def _check(self, now_s: float) -> list[Effect]:
        assert self._manifest is not None
        try:
            damaged = self._shelf.damaged(self._manifest)
            if damaged is None:
                folder = self._shelf.folder(self._manifest)
                self._shelf.test(self._manifest, self._rev)
                return [
                    *self._enter(S.TESTING, now_s),
                    SelfTest(self._manifest.kind, folder, self._manifest.tolerance),
                ]
            self._damaged += 1
            self.counters["update_files_damaged"] += 1
            if self._damaged >= MAX_DAMAGED:
                raise BundleError(f"{damaged} is not the file that the manifest promises (sha256 differs)")
            self._offset = self._shelf.offset(self._manifest)
        except (BundleError, OSError) as error:
            return self._fail(error, now_s)
        self._asked, self._due_s = None, now_s
        return self._enter(S.DOWNLOADING, now_s, f"{damaged} came damaged and is fetched again")

    def tested(self, problem: str, now_s: float) -> list[Effect]:
        """Take in the self-test's outcome; an empty text means that the version works here."""
        if self.stage is not S.TESTING or self._manifest is None:
            return []
        if problem:
            return self._fail(BundleError(problem), now_s)
        try:
            self._shelf.try_out(self._manifest, self._rev, self._frames)
        except OSError as error:
            return self._fail(error, now_s)
        return [*self._enter(S.TRIAL, now_s), Restart() if self._restarts else Switch(self._manifest.slot)]

    def switched(self, failed_before: float, now_s: float) -> None:
        """What is on trial serves from now on; before it, models failed at this share of the frames."""
        if self.stage is S.TRIAL:
            self._trial = Trial(self._frames, failed_before, now_s, self._settings.trial_limit_s)

    def cannot_switch(self, problem: str, now_s: float) -> list[Effect]:
        """The client cannot serve the version on trial."""
        return self._leave(problem, now_s) if self.stage is S.TRIAL else []

    def served(self, *, ok: bool, now_s: float) -> list[Effect]:
        """A frame of the trial ended."""
        if self._trial is None:
            return []
        self._trial.note(ok=ok)
        return self._judge(now_s)

    def _judge(self, now_s: float) -> list[Effect]:
        if self._trial is None or now_s < self._due_s:
            return []
        verdict = self._trial.verdict(now_s, online=self._online or not self._restarts)
        if verdict is None:
            return []
        if verdict:
            return self._leave(verdict, now_s)
        try:
            self._shelf.keep()
        except OSError as error:
            self._reason, self._untold, self._due_s = _words(error), True, now_s + AGAIN_S
            return []
        self._trial = None
        return [*self._enter(S.ACTIVE, now_s), *([] if self._restarts else [Switch()])]

    def _leave(self, reason: str, now_s: float) -> list[Effect]:
        self._trial = None
        self._shelf.end(self._rev, self._bundle, S.ROLLED_BACK, reason[:MAX_REASON])
        return [*self._enter(S.ROLLED_BACK, now_s, reason), *self._back()]

    # -- small things ----------------------------------------------------------------------------------------------

    def _fail(self, error: Exception, now_s: float) -> list[Effect]:
        reason = _words(error)
        self._shelf.end(self._rev, self._bundle, S.FAILED, reason)
        self._asked = None
        return self._enter(S.FAILED, now_s, reason)

    def _enter(self, stage: UpdateStage, now_s: float, reason: str = "") -> list[Effect]:
        self.stage, self._reason = stage, reason[:MAX_REASON]
        self.counters[f"update_{stage}"] += 1
        level = logging.WARNING if stage in (S.FAILED, S.ROLLED_BACK) else logging.INFO
        log.log(level, "update %s is %s%s", self._bundle, stage, f": {reason}" if reason else "")
        return [self._state(now_s)]

    def _state(self, now_s: float) -> UpdateState:
        self._untold, self._told_s = False, now_s
        size = self._manifest.size if self._manifest else 0
        done = self._offset if self._manifest else 0
        installed = tuple(Installed(slot, bundle) for slot, bundle in sorted(self._shelf.held.kept.items()))
        return UpdateState(
            self._session, self._rev, self._bundle[:64], self.stage, done, size, self._reason, installed,
            self._wall_ms(),
        )  # fmt: skip


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"[:MAX_REASON]
    return str(error)[:MAX_REASON]
