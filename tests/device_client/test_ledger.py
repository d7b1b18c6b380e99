"""The ledger: whatever happens to client, recorder or file, every captured frame is in exactly one place."""

from __future__ import annotations

import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from device_client import ledger as ledger_module
from device_client import ledger_file
from device_client.ledger import BATCH_ROWS, DIED, FOLD_ROWS, Ledger
from device_client.ledger_file import LedgerError
from wire import channels, codec
from wire.messages import EnergySource, FrameOutcome, Outcome, Outcomes
from wire.plan import Plan

PLANS = [Plan("light", "op3", "q8"), Plan("light", "output", "none"), Plan("heavy", "input", "webp50")]
LEAST_ROWS = 100


def line(frame: int, outcome: Outcome = Outcome.EDGE, reason: str = "") -> FrameOutcome:
    """Return a closed frame's line."""
    return FrameOutcome(frame, outcome, 0, 1000 + frame, 12.5, head_ms=3.25, energy_mj=1.5, label=3, reason=reason)


class Recorder:
    """What a recorder keeps: unique lines, and the totals of what was folded."""

    def __init__(self) -> None:
        self.lines: dict[tuple[int, int], tuple[FrameOutcome, Plan]] = {}
        self.folded: dict[tuple[int, Outcome, str], int] = {}
        self.captured: Counter[int] = Counter()

    def store(self, batch: Outcomes) -> None:
        """Store a batch as it comes off the wire; one that is repeated must not contradict what was stored."""
        batch = codec.decode(channels.OUTCOMES, codec.encode(channels.OUTCOMES, batch))
        for row in batch.rows:
            stored = (row, batch.plans[row.plan])
            known = self.lines.setdefault((batch.session, row.frame), stored)
            assert (known[0].outcome, known[0].reason, known[1]) == (row.outcome, row.reason, stored[1])
        for folded in batch.folded:
            key = (batch.session, folded.outcome, folded.reason)
            assert folded.frames >= self.folded.get(key, 0)
            self.folded[key] = folded.frames
        self.captured[batch.session] = max(self.captured[batch.session], batch.captured)


def drain(ledger: Ledger, recorder: Recorder) -> None:
    """Hand everything over that is closed."""
    while (batch := ledger.batch()) is not None:
        recorder.store(batch)
        assert ledger.recorded(batch.session, batch.batch)


class LedgerLife(RuleBasedStateMachine):
    """Frames open and close, batches go and are lost, clients die: the ledger against a plain dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.recorder = Recorder()
        self.open: set[int] = set()
        self.ended: dict[tuple[int, int], Outcome] = {}
        self.plan_of: dict[tuple[int, int], Plan] = {}
        self.unanswered: Outcomes | None = None

    @initialize()
    def begin(self) -> None:
        self.ledger = Ledger(Path(self.folder.name) / "state" / "ledger.sqlite", LEAST_ROWS)

    @rule(plan=st.sampled_from(PLANS), count=st.sampled_from([1, 2, 40, 230]))
    def capture(self, plan: Plan, count: int) -> None:
        for _ in range(count):
            frame = self.ledger.open_frame(plan, 1000)
            assert frame == self.ledger.captured
            self.open.add(frame)
            self.plan_of[self.ledger.session, frame] = plan
            if count > 2:
                self._close(frame, Outcome.DEVICE)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome))
    def close(self, data: st.DataObject, outcome: Outcome) -> None:
        self._close(data.draw(st.sampled_from(sorted(self.open))), outcome)

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def close_again(self, data: st.DataObject) -> None:
        session, frame = data.draw(st.sampled_from(sorted(self.ended)))
        if session == self.ledger.session:
            assert not self.ledger.close_frame(line(frame, Outcome.DROPPED, "again"))

    @rule()
    def send(self) -> None:
        batch = self.ledger.batch()
        if self.unanswered is not None:
            assert batch == self.unanswered, "stop and wait: the same batch until it is recorded"
        self.unanswered = batch
        if batch is not None:
            assert len(batch.rows) <= BATCH_ROWS

    @precondition(lambda self: self.unanswered)
    @rule(answered=st.booleans())
    def arrive(self, answered: bool) -> None:
        assert self.unanswered is not None
        self.recorder.store(self.unanswered)
        if answered:
            assert not self.ledger.recorded(self.unanswered.session, self.unanswered.batch + 1)
            assert self.ledger.recorded(self.unanswered.session, self.unanswered.batch)
            assert not self.ledger.recorded(self.unanswered.session, self.unanswered.batch)
            self.unanswered = None

    @rule(goodbye=st.booleans())
    def restart(self, goodbye: bool) -> None:
        before = self.ledger.session
        self.ledger.close()
        self.ledger = Ledger(Path(self.folder.name) / "state" / "ledger.sqlite", LEAST_ROWS)
        assert self.ledger.session > before
        for frame in self.open:
            self.ended[before, frame] = Outcome.DROPPED
        self.open.clear()
        self.unanswered = None

    def _close(self, frame: int, outcome: Outcome) -> None:
        assert self.ledger.close_frame(line(frame, outcome))
        self.open.discard(frame)
        self.ended[self.ledger.session, frame] = outcome

    @invariant()
    def it_stays_bounded(self) -> None:
        if hasattr(self, "ledger"):
            assert self.ledger.unrecorded <= LEAST_ROWS + len(self.open) + BATCH_ROWS + 1

    def teardown(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for frame in sorted(self.open):
            self._close(frame, Outcome.FALLBACK)
        drain(self.ledger, self.recorder)
        self._account()
        self.ledger.close()
        self.folder.cleanup()

    def _account(self) -> None:
        by_session: dict[int, Counter[Outcome]] = {}
        for (session, _), outcome in self.ended.items():
            by_session.setdefault(session, Counter())[outcome] += 1
        for session, expected in by_session.items():
            found: Counter[Outcome] = Counter()
            for (owner, frame), (row, plan) in self.recorder.lines.items():
                if owner == session:
                    found[row.outcome] += 1
                    assert self.ended[session, frame] == row.outcome
                    assert self.plan_of[session, frame] == plan
            for (owner, outcome, _), frames in self.recorder.folded.items():
                found[outcome] += frames if owner == session else 0
            assert found == expected
            assert self.recorder.captured[session] == sum(expected.values())


LedgerLife.TestCase.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLedgerLife = LedgerLife.TestCase


def test_lines_keep_what_they_say(tmp_path: Path) -> None:
    with_all = FrameOutcome(
        1, Outcome.FALLBACK, 0, 5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7, 8, 9.5, EnergySource.MEASURED, 3, 0.25, 4, "busy"
    )
    ledger = Ledger(tmp_path / "ledger", LEAST_ROWS)
    ledger.open_frame(PLANS[0], 5)
    ledger.close_frame(with_all)
    batch = ledger.batch()
    assert batch is not None
    assert batch.rows == (with_all,)
    assert batch.plans == (PLANS[0],)
    assert ledger.counts[Outcome.FALLBACK] == 1
    ledger.close()


def test_folding_keeps_the_totals(tmp_path: Path) -> None:
    ledger, recorder = Ledger(tmp_path / "ledger", LEAST_ROWS), Recorder()
    frames = LEAST_ROWS + 3 * FOLD_ROWS
    for number in range(frames):
        frame = ledger.open_frame(PLANS[0], number)
        ledger.close_frame(line(frame, Outcome.FALLBACK, "offline") if number % 3 else line(frame, Outcome.DEVICE))
        assert ledger.unrecorded <= LEAST_ROWS + 1
    drain(ledger, recorder)
    session = ledger.session
    totals = Counter({key[1]: count for key, count in recorder.folded.items()})
    totals.update(row.outcome for row, _ in recorder.lines.values())
    assert totals[Outcome.DEVICE] == -(-frames // 3)
    assert totals.total() == frames == recorder.captured[session]
    assert {frame for _, frame in recorder.lines} == set(range(frames - len(recorder.lines) + 1, frames + 1))
    ledger.close()


def test_a_batch_under_way_is_not_folded(tmp_path: Path) -> None:
    ledger, recorder = Ledger(tmp_path / "ledger", LEAST_ROWS), Recorder()
    for number in range(LEAST_ROWS):
        ledger.close_frame(line(ledger.open_frame(PLANS[0], number)))
    sent = ledger.batch()
    assert sent is not None
    for number in range(300):
        ledger.close_frame(line(ledger.open_frame(PLANS[0], number)))
    assert ledger.batch() == sent
    recorder.store(sent)
    assert ledger.recorded(sent.session, sent.batch)
    drain(ledger, recorder)
    assert len(recorder.lines) + sum(recorder.folded.values()) == LEAST_ROWS + 300
    ledger.close()


def test_sessions_rise_and_finished_ones_are_forgotten(tmp_path: Path) -> None:
    sessions = []
    for _ in range(5):
        ledger, recorder = Ledger(tmp_path / "ledger", LEAST_ROWS), Recorder()
        sessions.append(ledger.session)
        for number in range(300):
            ledger.close_frame(line(ledger.open_frame(PLANS[0], number)))
        drain(ledger, recorder)
        ledger.close()
    assert sessions == sorted(set(sessions))
    with sqlite3.connect(tmp_path / "ledger") as db:
        assert [session for (session,) in db.execute("SELECT session FROM sessions")] == sessions[-1:]
        assert {session for (session,) in db.execute("SELECT session FROM folded")} <= {sessions[-1]}
    db.close()


def test_the_session_rises_even_when_the_clock_jumps_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Ledger(tmp_path / "ledger", LEAST_ROWS)
    first.close()
    monkeypatch.setattr("device_client.ledger.time.time_ns", lambda: 5)
    second = Ledger(tmp_path / "ledger", LEAST_ROWS)
    assert second.session == first.session + 1
    second.close()


_CHILD = """
import os, sys
from pathlib import Path
from device_client.ledger import Ledger
from wire.messages import FrameOutcome, Outcome
from wire.plan import Plan
ledger = Ledger(Path(sys.argv[1]), 10_000)
plan = Plan("light", "op3", "q8")
while True:
    frame = ledger.open_frame(plan, 1)
    if frame % 3:
        ledger.close_frame(FrameOutcome(frame, Outcome.EDGE, 0, 1, 2.0))
    print(ledger.session, frame, flush=True)
"""


def test_killed_at_any_moment_it_loses_no_frame(tmp_path: Path) -> None:
    told: dict[int, int] = {}
    for frames in (7, 100, 313):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(tmp_path / "ledger")], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(frames):
            session, frame = map(int, child.stdout.readline().split())
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        told[session] = frame
    ledger, recorder = Ledger(tmp_path / "ledger", 10_000), Recorder()
    drain(ledger, recorder)
    ledger.close()
    assert set(recorder.captured) == set(told)
    for session, frame in told.items():
        lines = {number: row for (owner, number), (row, _) in recorder.lines.items() if owner == session}
        assert recorder.captured[session] >= frame
        assert set(lines) == set(range(1, recorder.captured[session] + 1))
        for number in range(1, frame + 1):
            died = (lines[number].outcome, lines[number].reason) == (Outcome.DROPPED, DIED)
            assert died == (number % 3 == 0)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _scramble(path: Path, _data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[4096:8192] = bytes(range(256)) * 16
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "data"), [(_write, b"not a database at all" * 400), (_scramble, b""), (_write, b"SQLite format 3\0" * 9)]
)
def test_a_corrupt_file_is_set_aside(tmp_path: Path, spoil: object, data: bytes) -> None:
    path = tmp_path / "ledger"
    ledger = Ledger(path, 10_000)
    for number in range(500):
        ledger.open_frame(PLANS[0], number)
    ledger.close()
    spoil(path, data)  # type: ignore[operator]
    fresh = Ledger(path, 10_000)
    assert fresh.open_frame(PLANS[0], 1) == 1
    assert fresh.unrecorded == 1
    assert fresh.session > ledger.session, "the recorder must not take the new frames for the old ones"
    assert [p for p in tmp_path.iterdir() if ".corrupt-" in p.name]
    fresh.close()


def test_a_second_client_on_the_same_ledger_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", LEAST_ROWS)
    ledger.open_frame(PLANS[0], 1)
    with pytest.raises(LedgerError, match="another client"):
        Ledger(tmp_path / "ledger", LEAST_ROWS)
    ledger.close_frame(line(1))
    batch = ledger.batch()
    assert batch is not None
    assert batch.rows == (line(1),)
    ledger.close()


def test_a_state_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(LedgerError, match="state"):
        Ledger(tmp_path / "state" / "ledger", LEAST_ROWS)


def test_the_spool_is_bounded_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "SPOOL_ROWS", 10)
    ledger = Ledger(tmp_path / "ledger", LEAST_ROWS)
    for number in range(25):
        ledger.spool(str(number).encode())
    assert ledger.lost_to_spool_bound == 15
    ledger.close()
    again = Ledger(tmp_path / "ledger", LEAST_ROWS)
    replayed = []
    while (oldest := again.unspool()) is not None:
        replayed.append(int(oldest[1]))
        again.drop_spooled(oldest[0])
    assert replayed == list(range(15, 25))
    again.remember("decision", "a")
    again.remember("decision", "b")
    assert (again.recall("decision"), again.recall("other")) == ("b", None)
    again.close()


@contextmanager
def full_disk(room_bytes: int = 4096) -> Iterator[None]:
    """Let no file of this process grow beyond so much."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_costs_neither_the_client_nor_a_frame(tmp_path: Path) -> None:
    """The disk fills up in the middle of a frame, and has room again later."""
    path = tmp_path / "ledger" / "ledger.sqlite"
    ledger, recorder = Ledger(path, 10_000), Recorder()
    for _ in range(5):
        ledger.close_frame(line(ledger.open_frame(PLANS[0], 1)))
    batch = ledger.batch()
    assert batch is not None
    begun = ledger.open_frame(PLANS[1], 1)
    with full_disk():
        assert ledger.close_frame(line(begun))
        for _ in range(300):
            frame = ledger.open_frame(PLANS[1], 1)
            assert ledger.close_frame(line(frame, Outcome.DEVICE))
            assert not ledger.close_frame(line(frame, Outcome.DEVICE))
        ledger.remember("key", "value")
        ledger.spool(b"telemetry")
        recorder.store(batch)
        assert not ledger.recorded(batch.session, batch.batch), "it could not be forgotten, and is sent again"
        assert ledger.batch() == batch
    drain(ledger, recorder)
    assert (ledger.captured, ledger.unrecorded, ledger.not_written) == (306, 0, 0)
    assert {frame for _, frame in recorder.lines} == set(range(1, 307))
    assert (ledger.recall("key"), ledger.lost_to_spool_bound) == ("value", 1)
    ledger.close()


def test_a_ledger_that_is_recorded_needs_no_more_room(tmp_path: Path) -> None:
    """A disk that others fill up leaves the ledger what it has, and that is used over and over."""
    path = tmp_path / "ledger" / "ledger.sqlite"
    ledger, recorder = Ledger(path, 10_000), Recorder()
    for _ in range(100):
        ledger.close_frame(line(ledger.open_frame(PLANS[0], 1)))
    drain(ledger, recorder)
    with full_disk(max(file.stat().st_size for file in path.parent.iterdir())):
        for _ in range(3000):
            ledger.close_frame(line(ledger.open_frame(PLANS[0], 1)))
            if ledger.unrecorded >= BATCH_ROWS:
                drain(ledger, recorder)
    drain(ledger, recorder)
    assert {frame for _, frame in recorder.lines} == set(range(1, 3101))
    assert ledger.not_written == 0
    ledger.close()


def test_a_disk_that_stays_full_shows_as_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_file, "MAX_WAITING", 10)
    path = tmp_path / "ledger" / "ledger.sqlite"
    ledger, recorder = Ledger(path, 10_000), Recorder()
    ledger.close_frame(line(ledger.open_frame(PLANS[0], 1)))
    with full_disk():
        for _ in range(200):
            ledger.close_frame(line(ledger.open_frame(PLANS[0], 1)))
    ledger.close_frame(line(ledger.open_frame(PLANS[0], 1)))
    lost = ledger.not_written
    drain(ledger, recorder)
    assert lost > 0
    assert recorder.captured[ledger.session] == 202
    assert len(recorder.lines) == 202 - lost // 2
    assert ledger.unrecorded == 0
    ledger.close()


def test_a_ledger_that_cannot_begin_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path, 10_000)
    ledger.open_frame(PLANS[0], 1)
    ledger.close()
    with full_disk(0), pytest.raises(LedgerError, match="the room on its disk"):
        Ledger(path, 10_000)
