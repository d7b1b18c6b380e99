"""What waits for the metrics server: every point once and in order, whatever is trimmed or put back meanwhile."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_broker_side.backlog import Backlog, read_refusals, read_stored, reading
from edge_broker_side.store import Store, StoreError
from edge_broker_side.store_file import Standing
from tests.edge_broker_side.points_made import frames, put, store_at

BYTES = 10**6


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = store_at(path)
    yield store
    store.close()


@pytest.fixture
def backlog(path: Path, store: Store) -> Iterator[Backlog]:
    backlog = Backlog(path)
    yield backlog
    backlog.close()


def standing(store: Store) -> Standing:
    found = store.standing()
    assert found is not None
    return found


def drain(backlog: Backlog, points: int = 1000) -> list[str]:
    lines = []
    while rows := backlog.next(points, BYTES):
        lines += [row.line for row in rows]
        assert backlog.settle(rows)
    return lines


def counted(path: Path) -> int:
    """Count what waits, row by row."""
    with reading(path) as db:
        (cursor,) = db.execute("SELECT value FROM meta WHERE key = 'cursor'").fetchone()
        tables = read_stored(db)
        return sum(
            db.execute(f"SELECT count(*) FROM {table} WHERE number > ?", (cursor,)).fetchone()[0] for table in tables
        )


def test_a_store_that_was_never_forwarded_waits_as_a_whole(path: Path, store: Store) -> None:
    put(store, frames(1, 2, 3))
    assert store.standing() is None
    backlog = Backlog(path)
    assert standing(store).waiting == 4  # with the ledger's point
    assert len(drain(backlog)) == 4
    backlog.close()


def test_everything_comes_once_and_in_order(store: Store, backlog: Backlog) -> None:
    for first in range(1, 30, 3):
        put(store, frames(first, first + 1, first + 2))
    lines = drain(backlog, 7)
    wanted = [line for _, line in store.lines(0, 1000)]
    assert lines == wanted and len(lines) == 40
    assert backlog.next(7, BYTES) == []
    put(store, frames(31))
    assert len(drain(backlog)) == 2
    assert standing(store).waiting == 0 and standing(store).oldest_s == 0.0


def test_a_batch_is_bounded_in_points_and_bytes_and_never_empty(store: Store, backlog: Backlog) -> None:
    put(store, frames(*range(1, 11)))
    length = len(backlog.next(1, BYTES)[0].line) + 1
    assert len(backlog.next(3, BYTES)) == 3
    assert len(backlog.next(100, 2 * length)) == 2
    assert len(backlog.next(100, 1)) == 1


def test_a_settled_place_survives_and_an_unsettled_one_comes_again(path: Path, store: Store) -> None:
    put(store, frames(*range(1, 11)))
    first = Backlog(path)
    rows = first.next(4, BYTES)
    assert first.settle(rows)
    lost = first.next(4, BYTES)  # sent, and then the process dies
    first.close()
    second = Backlog(path)
    assert second.next(4, BYTES) == lost
    second.close()


def test_a_piece_of_a_batch_moves_the_cursor_behind_itself_alone(path: Path, store: Store, backlog: Backlog) -> None:
    put(store, frames(*range(1, 5)))
    rows = backlog.next(10, BYTES)
    assert backlog.settle(rows[:2])
    assert standing(store).waiting == counted(path) == 3
    assert backlog.settle(rows[2:3], "field type conflict")
    assert standing(store).waiting == counted(path) == 2 and standing(store).dead == 1
    assert backlog.settle(rows[3:])
    assert standing(store) == Standing(rows[-1].number, 0, 0.0, 1, 0)
    with reading(path) as db:
        (refusal,) = read_refusals(db)
    assert (refusal.measurement, refusal.reason, refusal.points) == ("inference", "field type conflict", 1)


def test_dead_letters_are_tried_again_when_asked_and_forgotten_when_taken(store: Store, backlog: Backlog) -> None:
    put(store, frames(1, 2, 3))
    rows = backlog.next(10, BYTES)
    backlog.settle(rows[:2], "bad")
    backlog.settle(rows[2:])
    assert backlog.next(10, BYTES) == []
    assert backlog.replay_dead() == 2
    again = backlog.next(10, BYTES)
    assert [(row.number, row.line, bool(row.again)) for row in again] == [(r.number, r.line, True) for r in rows[:2]]
    assert backlog.settle(again[:1], "still bad") and backlog.settle(again[1:])
    assert backlog.next(10, BYTES) == [] and standing(store).dead == 1
    assert standing(store).cursor == rows[-1].number and standing(store).waiting == 0


def test_a_replay_of_everything_also_takes_the_dead_letters_that_are_good_now(store: Store, backlog: Backlog) -> None:
    put(store, frames(1, 2, 3))
    rows = backlog.next(10, BYTES)
    backlog.settle(rows[:1], "bad")
    backlog.settle(rows[1:])
    assert backlog.replay_since(0) == 4
    assert drain(backlog) == [row.line for row in rows]
    assert standing(store).dead == 0 and standing(store).waiting == 0


def test_a_replay_by_another_process_stops_the_batch_under_way(path: Path, store: Store, backlog: Backlog) -> None:
    put(store, frames(1, 2, 3))
    first = backlog.next(2, BYTES)
    assert backlog.settle(first)
    under_way = backlog.next(2, BYTES)
    other = Backlog(path)
    assert other.replay_since(0) == 4
    other.close()
    assert not backlog.settle(under_way), "the cursor would have jumped over what is to be sent again"
    assert backlog.next(2, BYTES) == first
    assert standing(store).waiting == counted(path) == 4


def test_a_replay_since_a_time_begins_there(path: Path, store: Store, backlog: Backlog) -> None:
    put(store, frames(1, 2, 3))
    put(store, frames(4, 5))
    drain(backlog)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE inference SET stored_ms = 1000 * frame")
        db.execute("UPDATE ledger SET stored_ms = 0")
    db.close()
    assert backlog.replay_since(4000) == counted(path) == 3  # frames 4 and 5, and the ledger's point behind them
    assert backlog.replay_since(6000) == 3, "a replay never moves the cursor forward"


def test_what_the_bounds_take_before_it_was_sent_is_counted(path: Path) -> None:
    store = store_at(path, max_bytes=512 * 1024)
    backlog = Backlog(path)
    stored = 0
    for first in range(1, 5001, 500):
        stored += put(store, frames(*range(first, first + 500), reason="r" * 100))
        if first == 1:
            drain(backlog)
        store.trim()
    (kept,) = sqlite3.connect(path).execute("SELECT count(*) FROM inference").fetchone()
    found = standing(store)
    assert 0 < kept < 5000
    assert found.waiting == counted(path)
    (ledgers,) = sqlite3.connect(path).execute("SELECT rows FROM trimmed WHERE measurement = 'ledger'").fetchone()
    assert found.trimmed_unforwarded == (stored - 500 - kept) + (ledgers - 1)
    assert len(drain(backlog)) == found.waiting and standing(store).waiting == 0
    backlog.close()
    store.close()


def test_a_batch_that_was_trimmed_while_under_way_is_settled_all_the_same(path: Path) -> None:
    store = store_at(path)
    put(store, frames(1, 2, 3))
    backlog = Backlog(path)
    rows = backlog.next(2, BYTES)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE inference SET stored_ms = 0 WHERE frame = 1")
    db.close()
    assert store.trim() == 1
    assert backlog.settle(rows)
    assert standing(store).waiting == counted(path) == 2
    assert standing(store).trimmed_unforwarded == 1
    backlog.close()
    store.close()


def test_dead_letters_are_bounded_by_the_stores_bounds(path: Path) -> None:
    store = store_at(path, max_bytes=512 * 1024)
    backlog = Backlog(path)
    for first in range(1, 5001, 500):
        put(store, frames(*range(first, first + 500), reason="r" * 100))
        while rows := backlog.next(1000, BYTES):
            backlog.settle(rows, "bad")
        store.trim()
    assert store.used_bytes() <= 512 * 1024
    assert 0 < standing(store).dead < 5000
    backlog.close()
    store.close()


def test_nothing_is_passed_by_while_the_recorder_writes(path: Path, store: Store, backlog: Backlog) -> None:
    """A cursor that passed a number of one table while a lower one of another was not there yet would lose it."""
    store.close()
    done = threading.Event()

    def write() -> None:
        writer = store_at(path)
        for first in range(1, 401, 2):
            put(writer, frames(first, first + 1))
        writer.close()
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen: list[int] = []
    while rows := backlog.next(3, BYTES) or not done.is_set():
        if isinstance(rows, list):
            seen += [row.number for row in rows]
            assert backlog.settle(rows)
    thread.join()
    after = store_at(path)
    assert seen == [number for number, _ in after.lines(0, 1000)] and len(seen) == 600
    after.close()


def test_a_store_that_is_not_there_or_of_another_release_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        Backlog(tmp_path / "none.sqlite")
    old = tmp_path / "old.sqlite"
    with sqlite3.connect(old) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(StoreError, match="start its recorder once"):
        Backlog(old)
