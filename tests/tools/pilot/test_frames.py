"""Frames find the block they were captured in by their device's own clock, and each is counted once."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.pilot.frames import AFTER, BEFORE, COLUMNS, UNPLACED, WASH_OUT, FrameBook, captured_at
from tools.pilot.schedule import Block, Stretch
from wire.errors import PayloadError
from wire.messages import FoldedCount, FrameOutcome, Outcome, Outcomes, Telemetry
from wire.plan import Plan

LOCAL = Plan("light", "output", "none")
STRETCHES = (
    Stretch(Block(0, 0, "local"), 100.0, 105.0, 120.0),
    Stretch(Block(1, 0, "remote"), 120.5, 125.5, 140.5),
    Stretch(Block(2, 1, "remote"), 141.0, 146.0, 161.0),
)


def line(frame: int, captured_ms: float) -> FrameOutcome:
    return FrameOutcome(frame, Outcome.DEVICE, 0, round(captured_ms), 10.0)


def batch(number: int, captured: int, lines: list[FrameOutcome], session: int = 1, folded: int = 0) -> Outcomes:
    told = (FoldedCount(Outcome.DEVICE, "", folded),) if folded else ()
    return Outcomes(session, number, captured, (LOCAL,), tuple(lines), told)


def telemetry(at_ms: float, seq: int = 1, *, session: int = 1, replayed: bool = False) -> Telemetry:
    return Telemetry(session, seq, round(at_ms), LOCAL, 0, 5.0, 0, 0, replayed=replayed)


def truth(at_s: float) -> int:
    """Where a frame captured at that moment of the pilot's clock belongs."""
    if at_s < STRETCHES[0].began_s:
        return BEFORE
    for one in STRETCHES:
        if one.from_s <= at_s < one.until_s:
            return one.block.number
    return AFTER if at_s >= STRETCHES[-1].until_s else WASH_OUT


@given(
    offset_ms=st.floats(-1e11, 1e11),
    drift=st.floats(-1e-4, 1e-4),
    delay_ms=st.floats(0.0, 400.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_frame_is_taken_for_another_arms(offset_ms: float, drift: float, delay_ms: float, seed: int) -> None:
    """Whatever the device's clock shows and however its telemetry is held up, by up to five seconds."""
    rng = random.Random(seed)
    book = FrameBook()

    def theirs(at_s: float) -> float:
        return offset_ms + 1.7e12 + 1000 * at_s * (1 + drift)

    for second in range(90, 180):
        late_s = (delay_ms + (rng.random() < 0.5) * 5000 * rng.random()) / 1000
        book.telemetry("cam", telemetry(theirs(second)), second + late_s)
    moments = [95.05 + 0.2 * i for i in range(400)]
    lines = [line(i + 1, theirs(at_s)) for i, at_s in enumerate(moments)]
    batches = [batch(i, len(lines), lines[i : i + 50]) for i in range(0, len(lines), 50)]
    for told in rng.choices(batches, k=20) + batches:
        book.outcomes("cam", told)
    frames = book.placed(STRETCHES)
    assert frames.columns["frame"].tolist() == list(range(1, 401)), "each once, however often it was told"
    assert (len(frames.missing), frames.tail) == (0, 0)
    for at_s, place in zip(moments, frames.place, strict=True):
        if place >= 0:
            assert STRETCHES[place].began_s <= at_s < STRETCHES[place].until_s
        # A frame seems late by a delay at most: what is well inside a measured stretch stays there.
        if truth(at_s + 2.0) == truth(at_s) >= 0:
            assert place == truth(at_s)


def test_a_clock_that_is_set_costs_only_the_frames_beside_it() -> None:
    book = FrameBook()

    def theirs(at_s: float) -> float:
        return 1000 * at_s + (1e6 if at_s < 130 else 3e6)

    for second in range(90, 170):
        book.telemetry("cam", telemetry(theirs(second)), second + 0.01)
    moments = [100.0 + 0.5 * i for i in range(120)]
    book.outcomes("cam", batch(1, 120, [line(i + 1, theirs(at_s)) for i, at_s in enumerate(moments)]))
    placed = book.placed(STRETCHES)
    assert [truth(at_s + 0.01) for at_s in moments] == placed.place.tolist()


def test_what_never_came_is_known_by_its_number() -> None:
    book = FrameBook()
    for second in range(90, 170):
        book.telemetry("cam", telemetry(1000 * second), second)
    kept = [i for i in range(1, 101) if i not in (31, 32, 33, 60, 61)]
    book.outcomes("cam", batch(1, 110, [line(i, 1000 * (95 + 0.5 * i)) for i in kept], folded=5))
    placed = book.placed(STRETCHES)
    assert placed.missing.tolist() == [truth(95 + 0.5 * i) for i in (31, 32, 33, 60, 61)]
    assert placed.tail == 10, "captured, and the last that came is not from after the end"
    book.outcomes("cam", batch(2, 160, [line(i, 1000 * (95 + 0.5 * i)) for i in range(101, 161)]))
    assert book.placed(STRETCHES).tail == 0
    assert book.is_told_until("cam", 161.0) and not book.is_told_until("cam", 176.0)
    assert not book.is_told_until("dog", 0.0)


def test_without_telemetry_near_it_a_frame_has_no_place_and_is_counted() -> None:
    book = FrameBook()
    book.telemetry("cam", telemetry(110_000), 110.0)
    book.telemetry("cam", telemetry(150_000, replayed=True), 110.0)
    book.outcomes("cam", batch(1, 3, [line(1, 110_000), line(2, 119_900), line(3, 150_000)]))
    book.outcomes("dog", batch(1, 1, [line(1, 110_000)]))
    assert book.placed(STRETCHES).place.tolist() == [0, 0, UNPLACED, UNPLACED]


def test_sessions_and_devices_are_kept_apart() -> None:
    book = FrameBook()
    for name, ahead_ms in (("cam", 0.0), ("dog", 7e6)):
        for session in (1, 2):
            book.telemetry(name, telemetry(110_000 + ahead_ms + session, session=session), 110.0)
            book.outcomes(name, batch(session, 1, [line(1, 110_000 + ahead_ms)], session=session))
    placed = book.placed(STRETCHES)
    assert placed.place.tolist() == [0] * 4
    assert placed.columns["session"].tolist() == [1, 2, 1, 2]


def test_a_pilot_that_never_began_has_only_frames_before_it() -> None:
    book = FrameBook()
    assert book.placed(()).place.tolist() == []
    book.telemetry("cam", telemetry(110_000), 110.0)
    book.outcomes("cam", batch(1, 1, [line(1, 110_000)]))
    assert book.placed(()).place.tolist() == [BEFORE]


def test_there_is_an_end_to_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.pilot.frames.MOST_FRAMES", 3)
    book = FrameBook()
    book.outcomes("cam", batch(1, 5, [line(1, 0), line(2, 0)]))
    book.outcomes("cam", batch(2, 5, [line(3, 0), line(4, 0)]))
    placed = book.placed(STRETCHES)
    assert (len(placed.place), placed.beyond) == (2, 2)
    assert set(placed.columns) == set(COLUMNS)


def test_a_batch_that_cannot_be_is_refused_whole() -> None:
    book = FrameBook()
    with pytest.raises(PayloadError, match="a plan that is not in the list"):
        book.outcomes("cam", Outcomes(1, 1, 2, (LOCAL,), (line(1, 0), FrameOutcome(2, Outcome.EDGE, 1, 0, 1.0))))
    assert len(book.placed(STRETCHES).place) == 0


def test_no_telemetry_at_all_is_no_moment_at_all() -> None:
    assert np.isnan(captured_at(np.array([5.0]), np.zeros(0), np.zeros(0))).all()
    assert captured_at(np.zeros(0), np.array([1.0]), np.array([1.0])).shape == (0,)
