"""The store: each frame once, whatever is repeated; bounded without losing count; whole after damage."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_broker_side.points import (
    DECISION,
    INFERENCE,
    MEASUREMENTS,
    Kind,
    Point,
    decision_point,
    inference_points,
    ledger_point,
    policy_point,
    recorder_point,
    shadow_points,
    telemetry_point,
    to_cell,
    to_line,
    worker_point,
)
from edge_broker_side.store import (
    Presence,
    SessionCount,
    Store,
    StoreCorrupt,
    StoreError,
    StoreSettings,
    open_store,
)
from edge_broker_side.store_bounds import MAX_FOLDED
from edge_broker_side.totals import totals
from wire.errors import PayloadError
from wire.messages import (
    Compared,
    Decision,
    EnergySource,
    FrameOutcome,
    Outcome,
    Outcomes,
    PlanShare,
    PolicyState,
    RecorderState,
    Shadow,
    Telemetry,
    WorkerLoad,
)
from wire.plan import Plan

PLAN = Plan("net", "c2", "q8")
LOCAL = Plan("net", "output", "none")


def outcome(frame: int, kind: Outcome = Outcome.EDGE, **more: object) -> FrameOutcome:
    return FrameOutcome(frame, kind, 0, 1_700_000_000_000 + frame, 10.0 * frame, **more)  # type: ignore[arg-type]


def batch(*rows: FrameOutcome, session: int = 1, captured: int = 0, plans: tuple[Plan, ...] = (PLAN,)) -> Outcomes:
    return Outcomes(session, 1, captured or len(rows), plans, rows)


def put(store: Store, message: Outcomes, device: str = "cam", folded: tuple[tuple[str, str, int], ...] = ()) -> int:
    count = SessionCount("plant", device, message.session, message.captured, folded)
    return store.write(inference_points("plant", device, message), [count])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.sqlite"


def open_at(path: Path, **more: float) -> Store:
    return Store(StoreSettings(str(path), **more))  # type: ignore[arg-type]


def test_totals_of_a_small_story(path: Path) -> None:
    store = open_at(path)
    rows = [
        outcome(1, label=4, truth=4, energy_mj=2.0, sent_bytes=100),
        outcome(2, label=4, truth=5, energy_mj=4.0, sent_bytes=300),
        outcome(3, Outcome.DEVICE, label=1),
        outcome(4, Outcome.DROPPED, reason="overrun"),
    ]
    put(store, batch(*rows, captured=7))
    put(store, Outcomes(2, 1, 3), folded=(("dropped", "full", 2),))
    put(store, batch(outcome(1, Outcome.FALLBACK), captured=1), "other")
    store.close()
    site = totals(path, "plant")
    cam = site.devices["cam"]
    assert cam.outcomes == {"edge": 2, "device": 1, "fallback": 0, "dropped": 3}
    assert (cam.captured, cam.gap) == (10, 4)
    assert (cam.latency_ms_p50, cam.latency_ms_p95) == (20.0, 30.0)
    assert (cam.accuracy, cam.energy_mj_mean, cam.bytes_mean) == (0.5, 1.5, 100.0)
    assert site.fleet.captured == 11 and site.fleet.outcomes["fallback"] == 1
    assert totals(path, "elsewhere").fleet.captured == 0


frames = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=8, unique=True), max_size=8)


@settings(max_examples=12, deadline=None)
@given(frames, st.booleans())
def test_repeats_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], reopen: bool
) -> None:
    path = tmp_path_factory.mktemp("repeat") / "s.sqlite"
    store = open_at(path)
    told: set[int] = set()
    for numbers in batches:
        assert put(store, batch(*map(outcome, numbers))) == len(set(numbers) - told)
        told |= set(numbers)
        if reopen:
            store.close()
            store = open_at(path)
        assert put(store, batch(*map(outcome, numbers))) == 0
    store.close()
    assert totals(path, "plant").fleet.outcomes["edge"] == len(told)


def test_trimming_by_size_keeps_totals_and_never_counts_twice(path: Path) -> None:
    store = open_at(path, max_bytes=512 * 1024)
    sent = []
    for start in range(1, 10_001, 500):
        sent.append(batch(*(outcome(n, reason="r" * 100) for n in range(start, start + 500)), captured=start + 499))
        put(store, sent[-1])
        store.trim()
    assert put(store, sent[0]) == 0, "trimmed frames were counted again"
    store.close()
    site = totals(path, "plant")
    assert site.fleet.captured == 10_000 and site.fleet.outcomes["edge"] == 10_000 and site.fleet.gap == 0
    with sqlite3.connect(path) as db:
        (kept,), (oldest,) = (
            db.execute("SELECT count(*) FROM inference"),
            db.execute("SELECT min(frame) FROM inference"),
        )
        (trimmed,) = db.execute("SELECT rows FROM trimmed WHERE measurement = 'inference'")
    assert kept[0] + trimmed[0] == 10_000 and oldest[0] == trimmed[0] + 1 and trimmed[0] > 0
    assert path.stat().st_size < 2 * 512 * 1024
    db.close()


def test_trimming_by_age_goes_by_when_it_was_stored(path: Path) -> None:
    store = open_at(path)
    put(store, batch(FrameOutcome(1, Outcome.EDGE, 0, captured_ms=5, latency_ms=1.0)))  # a board without a clock
    assert store.trim() == 0
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE inference SET stored_ms = stored_ms - 100 * 86400000")
    db.close()
    store = open_at(path)
    assert store.trim() == 1
    store.close()
    assert totals(path, "plant").fleet.outcomes["edge"] == 1


def test_old_sessions_are_added_up(path: Path) -> None:
    store = open_at(path)
    for session in range(1, 1011):
        put(store, batch(outcome(1), session=session, captured=2), folded=(("dropped", "full", 1),))
    store.trim()
    store.close()
    told = totals(path, "plant").fleet
    assert (told.captured, told.outcomes["edge"], told.outcomes["dropped"], told.gap) == (2020, 1010, 1010, 0)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*), min(session) FROM sessions").fetchone() == (1001, 0)
    db.close()


def test_a_full_disk_stores_nothing_and_heals(path: Path) -> None:
    store = open_at(path)
    put(store, batch(outcome(1)))
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    big = batch(*(outcome(n, reason="r" * 200) for n in range(2, 500)), captured=499)
    with pytest.raises(StoreError, match="full"):
        put(store, big)
    assert totals(path, "plant").fleet.outcomes["edge"] == 1
    store._db.execute("PRAGMA max_page_count = 1000000")
    assert put(store, big) == 498
    store.close()
    assert totals(path, "plant").fleet.gap == 0


@pytest.mark.parametrize("damage", ["noise", "page"])
def test_a_damaged_store_is_set_aside_and_a_new_one_begun(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_at(path)
    put(store, batch(*(outcome(n) for n in range(1, 2000))))
    store.close()
    data = bytearray(path.read_bytes())
    data[:] = b"noise" * 1000 if damage == "noise" else data[:8192] + b"\xff" * 8192 + data[16384:]
    path.write_bytes(data)
    with pytest.raises(StoreCorrupt):
        open_at(path)
    fresh = open_store(StoreSettings(str(path)))
    assert put(fresh, batch(outcome(1))) == 1
    fresh.close()
    assert (path.parent / "records.damaged-1.sqlite").read_bytes() == data
    assert "records.damaged-1.sqlite" in caplog.text


def test_a_store_of_a_newer_release_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="newer release"):
        open_store(StoreSettings(str(path)))
    assert path.exists()


def test_a_late_will_does_not_bury_a_newer_session(path: Path) -> None:
    store = open_at(path)
    store.write(presence=[Presence("plant", "cam", "device", 2, "ready", "", 10)])
    store.write(presence=[Presence("plant", "cam", "device", 2, about='{"board": "pi"}')])
    store.write(presence=[Presence("plant", "cam", "device", 1, "lost", "gone", 11)])
    store.close()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT session, state, about FROM presence").fetchall() == [(2, "ready", '{"board": "pi"}')]
    db.close()


def test_lines_go_on_where_they_stopped(path: Path) -> None:
    store = open_at(path)
    for n in range(1, 6):
        put(store, batch(outcome(n)))
        store.write([decision_point("plant", "cam", Decision(n, LOCAL, 100.0, "fixed", "because", 5))])
    first = list(store.lines(0, 4))
    rest = list(store.lines(first[-1][0], 100))
    numbers = [number for number, _ in first + rest]
    assert len(first) == 4 and len(numbers) == 15 and numbers == sorted(set(numbers))  # with the ledger's points
    store.close()
    reopened = open_at(path)
    assert list(reopened.lines(0, 100)) == first + rest
    put(reopened, batch(outcome(6)))
    assert [number > numbers[-1] for number, _ in reopened.lines(numbers[-1], 100)] == [True, True]
    reopened.close()


def test_line_protocol_of_one_frame() -> None:
    row = FrameOutcome(
        7, Outcome.FALLBACK, 0, 1_700_000_000_123, 31.5, head_ms=2.0, sent_bytes=640, truth=3, reason='said "no"\nlate'
    )
    (point,) = inference_points("plant", "cam", Outcomes(4, 1, 7, (Plan("my net", "c=2", "q8"),), (row,)))
    cells = [to_cell(column, point.values.get(column.name)) for column in INFERENCE.columns]
    assert to_line(INFERENCE, 42, point.at_ms, cells) == (
        r"inference,site=plant,device=cam,version=my\ net,cut=c\=2,codec=q8,outcome=fallback"
        r',reason=said\ "no"_late'
        ",energy_source=modelled session=4i,frame=7i,latency_ms=31.5,head_ms=2.0,encode_ms=0.0,network_ms=0.0,"
        "wait_ms=0.0,tail_ms=0.0,"
        "energy_mj=0.0,batch=0i,sent_bytes=640i,truth=3i 1700000000123000042"
    )


@given(st.text(), st.text())
def test_no_text_breaks_out_of_its_line(version: str, reason: str) -> None:
    decision = Decision(1, Plan(version, "c1", "q8"), 100.0, "fixed", reason)
    point = decision_point("plant", "cam", decision)
    cells = [to_cell(column, point.values.get(column.name)) for column in DECISION.columns]
    line = to_line(DECISION, 1, 1, cells)
    assert "\n" not in line and "\r" not in line
    assert line.startswith("decision,site=plant,device=cam,") and line.endswith(" 1000001")


def test_frames_of_the_same_millisecond_have_stamps_of_their_own(path: Path) -> None:
    store = open_at(path)
    put(store, batch(*(FrameOutcome(n, Outcome.EDGE, 0, 5, 1.0) for n in range(1, 101))))
    stamps = {line.rsplit(" ", 1)[1] for _, line in store.lines(0, 1000) if line.startswith("inference")}
    store.close()
    assert len(stamps) == 100


@pytest.mark.parametrize("at_ms", [2**63 - 1, -(2**63)])
def test_a_clock_beyond_all_calendars_still_gives_a_stamp_of_64_bits(at_ms: int) -> None:
    row = FrameOutcome(1, Outcome.EDGE, 0, at_ms, 1.0)
    (point,) = inference_points("plant", "cam", batch(row))
    cells = [to_cell(column, point.values.get(column.name)) for column in INFERENCE.columns]
    stamp_ns = int(to_line(INFERENCE, 999_999, point.at_ms, cells).rsplit(" ", 1)[1])
    assert 0 <= stamp_ns < 2**63


def test_every_message_fills_its_columns() -> None:
    """A renamed message field would otherwise be recorded as nothing at all."""
    energy = EnergySource.MEASURED
    full = FrameOutcome(1, Outcome.EDGE, 0, 1, 1.0, label=1, score=1.0, truth=1, energy_source=energy)
    (inference,) = inference_points("s", "d", Outcomes(1, 1, 1, (PLAN,), (full,)))
    telemetry = telemetry_point(
        "s", "d",
        Telemetry(1, 1, 1, PLAN, 1, 1.0, 1, 1, 1.0, 1.0, 1.0, 1.0, 1, 1.0, 1.0, 1.0, 1.0, 1.0, energy, {"late": 1},
                  False, 1.0, 1, 1.0),
    )  # fmt: skip
    worker = worker_point("s", "w", WorkerLoad(1, 1, 1.0, 1, 1, 1, 1, 0.5, 1.0, 1.0, {"net/c2": 1.5}, {"x": 2}))
    decision = decision_point("s", "d", Decision(1, PLAN, 1.0, "p", "r", 1))
    share = PlanShare(PLAN, 1, 1.0)
    state = PolicyState(
        1, 1, 1.0, "p", "q", 1, 1, {"x": 1}, (share,), 1.0, 1.0, 1.0, True, "c", 1.0, 1.0, "w", 1.0, {"x": 1}, ("y",)
    )
    policy = policy_point("s", "policy", state)
    (shadow,) = shadow_points("s", Shadow(1, "p", "q", (PLAN,), (Compared("d", 0, 0, 0.5, 0.25),)))
    assert (shadow.values["acting_reward"], shadow.values["shadow_reward"]) == (0.5, 0.25)
    recorder = recorder_point(
        "s", "recorder", RecorderState(1, 1, 1.0, 1, 1, "http://db", True, "p", 1, 1.0, 1, 1, {"points": 1})
    )
    ledger = ledger_point("s", "d", 1, 5, 4, {"dropped": 1})
    assert ledger.values["gap"] == 1
    for point in (inference, telemetry, decision, worker, policy, shadow, recorder, ledger):
        assert [c.name for c in point.measurement.columns if point.values.get(c.name) is None] == []
    cells = [to_cell(column, worker.values.get(column.name)) for column in worker.measurement.columns]
    assert "service_ms_net/c2=1.5,counters_x=2i" in to_line(worker.measurement, 1, 1, cells)


def test_a_comparison_with_an_unknown_plan_is_refused() -> None:
    for one, other in ((0, 1), (-1, 0)):
        with pytest.raises(PayloadError):
            list(shadow_points("s", Shadow(1, "p", "q", (PLAN,), (Compared("d", one, other),))))


def test_a_store_of_before_the_policys_tables_gets_them_and_keeps_its_rows(path: Path) -> None:
    store = open_at(path)
    put(store, batch(outcome(1)))
    store.close()
    with sqlite3.connect(path) as db:
        db.executescript("DROP TABLE policy; DROP TABLE shadow; PRAGMA user_version = 1;")
    db.close()
    store = open_at(path)
    assert put(store, batch(outcome(1), outcome(2))) == 1
    rows = list(shadow_points("plant", Shadow(7, "p", "q", (LOCAL,), (Compared("cam", 0, 0, 0.5, None),))))
    assert [store.write(rows), store.write(rows)] == [1, 0]
    store.close()
    with sqlite3.connect(path) as db:
        names = "at_ms, site, device, acting, shadow, acting_plan, shadow_plan, acting_reward, shadow_reward"
        told = db.execute(f"SELECT {names} FROM shadow").fetchall()
    db.close()
    assert told == [(7, "plant", "cam", "p", "q", str(LOCAL), str(LOCAL), 0.5, None)]


def test_a_store_of_before_the_boards_new_figures_gets_their_columns_and_keeps_its_rows(path: Path) -> None:
    new = ("disk_free_mb", "throttled", "uptime_s")
    old, told = (telemetry_point("plant", "cam", Telemetry(1, seq, 1, PLAN, 1, 1.0, 1, 1)) for seq in (1, 2))
    store = open_at(path)
    store.write([old])
    store.close()
    with sqlite3.connect(path) as db:
        db.executescript(
            "".join(f"ALTER TABLE telemetry DROP COLUMN {name};" for name in new) + "PRAGMA user_version = 3;"
        )
    db.close()
    store = open_at(path)
    full = Point(told.measurement, told.at_ms, {**told.values, "disk_free_mb": 7.5, "throttled": 5, "uptime_s": 1.5})
    assert [store.write([old]), store.write([full])] == [0, 1]
    store.close()
    with sqlite3.connect(path) as db:
        rows = db.execute(f"SELECT seq, {', '.join(new)} FROM telemetry ORDER BY seq").fetchall()
    db.close()
    assert rows == [(1, None, None, None), (2, 7.5, 5, 1.5)]


def test_ids_are_never_tags() -> None:
    tags = {column.name for measurement in MEASUREMENTS for column in measurement.columns if column.kind is Kind.TAG}
    plans = {"version", "cut", "codec"}
    policies = {"policy", "deciding", "acting", "shadow", "service"}
    assert tags == {"site", "device", "worker", "recorder", "outcome", "reason", "energy_source"} | plans | policies


def test_a_frame_with_an_unknown_plan_is_refused() -> None:
    for plan in (-1, 1):
        row = FrameOutcome(1, Outcome.EDGE, plan, 1, 1.0)
        with pytest.raises(PayloadError):
            list(inference_points("s", "d", Outcomes(1, 1, 1, (PLAN,), (row,))))


def test_a_second_writer_is_refused_since_both_would_give_the_same_numbers(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_broker_side.store.LOCK_PATIENCE_S", 0.1)
    first = open_at(path)
    with pytest.raises(StoreError, match="another recorder"):
        open_at(path)
    first.close()
    open_at(path).close()


def test_a_device_that_thinks_of_ever_new_reasons_neither_stops_nor_fills_the_store(path: Path) -> None:
    store = open_at(path)
    most = 2**40
    for n in range(5):
        put(store, batch(session=1, captured=most), folded=tuple(("dropped", f"r{n}-{i}", most) for i in range(90)))
    put(store, batch(outcome(1)), device="honest")
    for session in range(1, 1105):  # so many sessions are added up
        put(store, batch(session=session, captured=most), folded=(("dropped", f"s{session}", most),))
    store.trim()
    put(store, batch(outcome(2), session=2000))
    store.close()
    told = totals(path, "plant")
    assert told.devices["honest"].outcomes["edge"] == 1
    with sqlite3.connect(path) as db:
        by_session = dict(db.execute("SELECT session, count(*) FROM folded GROUP BY session"))
    db.close()
    assert by_session[0] == 1, "without the reasons"
    assert max(by_session.values()) <= MAX_FOLDED
