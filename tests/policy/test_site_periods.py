"""From the recorder's store to periods, to a file, to traces."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from policy.errors import PolicyError
from policy.interface import Weights
from policy.rules import DeviceRules
from policy.site_periods import FIGURES, SitePeriods, collect, filled_forward
from policy.site_record import SiteRecord
from policy.site_rewards import RewardFeed
from policy.table import Array
from policy.transitions import load_periods, save_periods, site_traces
from tests.policy.builders import HEAVY_LOCAL, HEAVY_WEBP, LIGHT_LOCAL
from tests.policy.recorded import WEBP, Recording, known
from wire.messages import EnergySource, Outcome

AT = 1_700_000_000_000
WEIGHTS = Weights(0.5, 0.3, 0.2)


def site(tmp_path: Path) -> Path:
    """Ten seconds of one device with a profile and one of an unknown class."""
    recording = Recording(tmp_path / "recorder.sqlite")
    recording.device("cam-1")
    recording.device("cam-2", "nobody-profiled-it")
    recording.decision("cam-1", AT - 5_000, 1, HEAVY_LOCAL, 500.0)
    recording.decision("cam-1", AT + 4_000, 2, HEAVY_WEBP, 400.0)
    metered = EnergySource.MEASURED
    # on the device: 260 ms of 520 mJ, exactly as profiled
    recording.ended("cam-1", [AT + 100, AT + 600], latency_ms=260.0, head_ms=260.0, energy_mj=520.0)
    # at the edge: 4 ms of codec, 1,000 bytes at 1 Mbit/s and 20 ms of round trip, 5 ms of wait, a tail of 60 ms
    recording.ended(
        "cam-1", [AT + 5_100], Outcome.EDGE, WEBP, latency_ms=196.0, encode_ms=4.0, wait_ms=5.0, tail_ms=60.0, batch=1,
        sent_bytes=1000, energy_mj=40.0, energy_source=metered, label=1, truth=1,
    )  # fmt: skip
    recording.ended("cam-1", [AT + 7_100], Outcome.FALLBACK, WEBP, latency_ms=450.0, reason="late")
    recording.ended("cam-1", [AT + 8_100], Outcome.DROPPED, WEBP, reason="busy")
    recording.ended("cam-2", [AT + 9_900])
    recording.telemetry("cam-1", AT + 2_000, uplink_bps=1e6, rtt_ms=20.0, estimate_age_ms=100)
    recording.telemetry("cam-1", AT + 6_000, uplink_bps=9e6, rtt_ms=10.0, estimate_age_ms=60_000, fps=3.0)
    recording.telemetry("cam-1", AT + 7_000, uplink_bps=float("inf"), rtt_ms=-3.0)  # cannot be
    recording.worker(AT + 1_500, queued=4, served=10, utilisation=0.5)
    return recording.close()


def periods(path: Path) -> SitePeriods:
    with SiteRecord(path) as record:
        return collect(record, known(DeviceRules(weights=WEIGHTS)), AT - 1_000, 1_000)


def test_every_figure_is_in_its_place(tmp_path: Path) -> None:
    found = periods(site(tmp_path))
    figure = {name: values[0] for name, values in found.figures.items()}
    plan = {plan: found.plans.index(str(plan)) for plan in (HEAVY_LOCAL, HEAVY_WEBP)}
    assert found.devices == ("plant/cam-1", "plant/cam-2")
    assert (found.start_ms, found.periods) == (AT, 10)
    assert figure["frames"].tolist() == [2, 0, 0, 0, 0, 1, 0, 1, 1, 0]
    assert figure["decided_plan"].tolist() == [plan[HEAVY_LOCAL]] * 4 + [plan[HEAVY_WEBP]] * 6
    assert figure["deadline_ms"].tolist() == [500.0] * 4 + [400.0] * 6
    assert figure["plan"][[0, 1, 5]].tolist() == [plan[HEAVY_LOCAL], -1, plan[HEAVY_WEBP]]
    assert figure["uplink_bps"][[2, 6]].tolist() == [1e6, 9e6]
    assert np.isnan(figure["uplink_bps"][[0, 7]]).all()
    assert figure["fps"][6] == 3.0
    assert found.figures["edge_utilisation"][:, 1].tolist() == [0.5, 0.5]
    assert found.figures["edge_backlog_ms"][0, 1] == pytest.approx(4 * 0.5 * 1000 / 10)
    assert figure["late"][[5, 7]].tolist() == [0.0, 1.0]
    assert figure["dropped"][8] == 1.0
    assert figure["right"][5] == 1.0


def test_rewards_follow_the_formula(tmp_path: Path) -> None:
    reward = periods(site(tmp_path)).figures["reward"]
    # the most accurate version, 260 of 500 ms, the energy of the heaviest local plan
    assert reward[0, 0] == pytest.approx(0.5 * 1 + 0.3 * (1 - 260 / 500) + 0.2 * 0)
    # 196 of 400 ms; metered energy is taken as it is
    assert reward[0, 5] == pytest.approx(0.5 * 1 + 0.3 * (1 - 196 / 400) + 0.2 * (1 - 40 / 520))
    assert np.isnan(reward[1]).all()  # no profile, no scale


def test_factors_tell_measured_over_profiled(tmp_path: Path) -> None:
    figures = periods(site(tmp_path)).figures
    assert figures["latency_factor"][0, 0] == pytest.approx(1.0)
    assert figures["tail_factor"][0, 5] == pytest.approx(60 / 40)
    # 4 ms codec, 8 ms sending, 20 ms round trip, 1 ms handling, 5 ms wait, 40 ms tail; a fallback tells nothing
    assert figures["latency_factor"][0, 5] == pytest.approx(196 / 78)
    assert np.isnan(figures["latency_factor"][0, 7])


def test_wrong_clocks_have_no_place(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "recorder.sqlite")
    recording.device("cam-1")
    recording.ended("cam-1", [AT, 2**45])
    with SiteRecord(recording.close()) as record:
        assert collect(record, known(), AT - 1_000, 1_000).periods == 1


def test_the_file_holds_what_was_collected(tmp_path: Path) -> None:
    found = periods(site(tmp_path))
    save_periods(found, tmp_path / "site.npz")
    again = load_periods(tmp_path / "site.npz")
    assert (again.devices, again.plans, again.start_ms) == (found.devices, found.plans, found.start_ms)
    for name in FIGURES:
        np.testing.assert_allclose(again.figures[name], found.figures[name], rtol=1e-6)
    np.testing.assert_array_equal(again.weights, [[0.5, 0.3, 0.2]] * 2)
    with np.load(tmp_path / "site.npz", allow_pickle=False) as file:
        assert "splitfleet-transitions" in str(file["header"])


def test_traces_fill_gaps_and_mark_them(tmp_path: Path) -> None:
    save_periods(periods(site(tmp_path)), tmp_path / "site.npz")
    traces = site_traces(tmp_path / "site.npz")
    assert (traces.devices, traces.left_out) == (("plant/cam-1",), ("plant/cam-2",))
    assert traces.uplink_bps[0].tolist() == [1e6] * 6 + [9e6] * 4
    assert traces.rtt_ms[0].tolist() == [20.0] * 6 + [10.0] * 4
    assert np.flatnonzero(traces.observed[0]).tolist() == [2]  # the later one was a minute old
    assert traces.tail_factor[0] == pytest.approx(1.5)
    assert np.isnan(traces.head_factor[0])
    assert traces.period_s == 1.0


def test_traces_need_an_uplink(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "recorder.sqlite")
    recording.ended("cam-1", [AT])
    save_periods(periods(recording.close()), tmp_path / "site.npz")
    with pytest.raises(PolicyError, match="measured its uplink"):
        site_traces(tmp_path / "site.npz")


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.npz"
    with pytest.raises(PolicyError, match="there is no"):
        load_periods(path)
    path.write_bytes(b"PK but no archive")
    with pytest.raises(PolicyError, match="not a file of splitfleet policy export"):
        load_periods(path)
    np.savez(path, header=np.array('{"format": "other", "schema": 1}'))
    with pytest.raises(PolicyError, match="holds other"):
        load_periods(path)
    np.savez(path, header=np.array([{"an": "object"}], dtype=object))
    with pytest.raises(PolicyError, match="not a file"):
        load_periods(path)
    found = periods(site(tmp_path))
    save_periods(dataclasses.replace(found, figures={**found.figures, "fps": found.figures["fps"][:, :3]}), path)
    with pytest.raises(PolicyError, match="fps are not of the shape"):
        load_periods(path)


def test_stores_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with pytest.raises(PolicyError, match="name the recorder's store"):
        SiteRecord(path)
    path.write_text("no database at all, but long enough to be read as one" * 20)
    with pytest.raises(PolicyError, match="cannot be read"):
        SiteRecord(path)
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE telemetry (at_ms INTEGER, site TEXT)")
    db.close()
    with SiteRecord(path) as record, pytest.raises(PolicyError, match="no table decision"):
        record.rows("decision", 0)
    with SiteRecord(path) as record, pytest.raises(PolicyError, match=r"telemetry has no .*uplink_bps"):
        record.rows("telemetry", 0)


def test_an_empty_time_is_told(tmp_path: Path) -> None:
    path = site(tmp_path)
    with SiteRecord(path) as record, pytest.raises(PolicyError, match="longer --since"):
        collect(record, known(), AT + 100_000, 1_000)


def test_too_many_periods_are_refused(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "recorder.sqlite")
    recording.ended("cam-1", [AT, AT + 86_400_000 * 60])
    with SiteRecord(recording.close()) as record, pytest.raises(PolicyError, match="longer --period"):
        collect(record, known(), AT, 1_000)


def test_a_feed_gives_every_block_once(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "recorder.sqlite")
    recording.device("cam-1")
    minute = AT // 60_000 * 60_000
    recording.ended("cam-1", [minute + 1_000, minute + 59_000], latency_ms=250.0, energy_mj=260.0)
    recording.ended("cam-1", [minute + 61_000])
    feed = RewardFeed(recording.close(), known(DeviceRules(weights=WEIGHTS)), "plant")
    assert feed.new((minute + 74_000) / 1000) == []  # outcomes may still come in
    (one,) = feed.new((minute + 76_000) / 1000)
    assert (one.device, one.frames, one.at_s) == ("cam-1", 2, minute / 1000 + 30)
    assert one.reward == pytest.approx(0.5 + 0.3 * 0.5 + 0.2 * 0.5)
    assert feed.new((minute + 77_000) / 1000) == []
    assert [r.frames for r in feed.new((minute + 136_000) / 1000)] == [1]
    assert RewardFeed(tmp_path / "recorder.sqlite", known(), "elsewhere").new((minute + 76_000) / 1000) == []


def test_a_catalog_without_the_plan_leaves_it_unknown(tmp_path: Path) -> None:
    found = periods(site(tmp_path))
    assert found.plans.index(str(LIGHT_LOCAL)) not in found.figures["plan"]


@given(arrays.arrays(np.float64, (3, 7), elements=st.sampled_from([np.nan, 1.0, 2.0, 3.0])))
def test_gaps_take_the_last_value_before(values: Array) -> None:
    filled = filled_forward(values)
    for row, out in zip(values, filled, strict=True):
        last = np.nan
        for value, got in zip(row, out, strict=True):
            last = value if not np.isnan(value) else last
            assert got == last or (np.isnan(got) and np.isnan(last))
