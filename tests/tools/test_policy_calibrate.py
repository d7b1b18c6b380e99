"""``splitfleet policy calibrate``: every frame is accounted for, each plan has a predicted and a measured time."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from policy.costs import CostModel
from policy.errors import PolicyError
from policy.interface import Prediction
from tests.device_client.stores import BIG, LOCAL, SHIP, SPLIT, write_store
from tflite_models.catalog import Catalog, load_catalog
from tflite_models.profile import DeviceProfile, EdgeProfile, HeadCost, TailCost
from tools.calibration_plan import check_covered, choose_plans, emulated, predict
from tools.calibration_report import figures, rank_correlation, summarise_plans
from tools.calibration_site import BoardSetup, CalibrationSite, PlanRun
from tools.policy_calibrate import calibrate
from tools.supervisor import SupervisorError
from wire.messages import FrameOutcome, Outcome, Telemetry

BOARD = DeviceProfile(
    "b", "board", "none", "modelled", idle_power_mw=100.0, active_power_mw=1000.0, tx_power_mw=500.0,
    heads=(HeadCost("tiny", "output", 4.0, 5.0, 4.0),), codecs=(), frame_overhead_ms=0.5,
)  # fmt: skip
EDGE = EdgeProfile("edge", "none", 1, 1.5, (TailCost("tiny", "input", ((1, 2.0),)),))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The versions ``tiny`` and ``big`` with heads and tails."""
    return write_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def catalog(store: Path) -> Catalog:
    """What the store holds."""
    return load_catalog(store)


def test_plans_are_told_and_timed_through_a_real_broker(store: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(calibrate)
    plans = [LOCAL, SHIP, SPLIT]
    out = tmp_path / "out.json"
    done = CliRunner().invoke(
        app,
        ["--models", str(store), "--plans", ",".join(map(str, plans)), "--frames", "10", "--fps", "20",
         "--slowdown", "2", "--uplink-mbps", "20", "--delay-ms", "1", "--json", "--out", str(out)],
        catch_exceptions=False,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    told = json.loads(out.read_text(encoding="utf-8"))
    assert [row["plan"] for row in told["plans"]] == [str(plan) for plan in plans]
    for row in told["plans"]:
        assert sum(row["outcomes"].values()) == 10
        assert row["predicted_ms"] > 0
        assert sum(row["predicted_parts"].values()) == pytest.approx(row["predicted_ms"])
        planned = row["outcomes"]["device"] if row["plan"] == str(LOCAL) else row["outcomes"]["edge"]
        assert planned, f"no frame ended as planned: {row}"
        assert 0 < row["measured_ms"] <= row["measured_p95_ms"]
        assert row["error"] == pytest.approx(row["predicted_ms"] / row["measured_ms"] - 1)
    split = told["plans"][2]["measured_parts"]
    assert split["head"] > 0 and split["encode"] > 0 and split["network"] > 2 and split["tail"] > 0
    assert told["conditions"]["emulated_uplink_bps"] == 20e6
    assert told["conditions"]["slowdown"] == 2
    assert told["summary"]["plans"] == 3
    frames = told["frames"]
    assert frames["unaccounted"] == 0
    assert frames["frames_captured"] == sum(frames["outcomes"].values()) >= 3 * 15


def test_a_device_that_never_answers_is_named_with_its_log(store: Path, tmp_path: Path) -> None:
    setup = BoardSetup(store, BOARD, fps=5.0, link=None)
    with (
        CalibrationSite(tmp_path, setup, embedded=True, patience_s=0.0) as site,
        pytest.raises(SupervisorError, match=r"in vain for the device to report its link: see .*board\.log"),
    ):
        site.wait_ready()


def test_plans_are_chosen_by_number_by_name_or_all(catalog: Catalog) -> None:
    everything = choose_plans(catalog, "all")
    assert set(everything) == {plan for plan, _ in catalog.plans()}
    few = choose_plans(catalog, "4")
    assert len(few) == len(set(few)) == 4
    assert few[0] == LOCAL, "the lightest version, whole, comes first"
    assert {plan.cut for plan in few} >= {"output", "input"}
    assert {plan.version for plan in few} == {"tiny", "big"}
    assert {*choose_plans(catalog, "999")} == set(everything)
    assert choose_plans(catalog, f"{BIG}, {LOCAL},{BIG}") == (BIG, LOCAL)
    for wrong in ("0", "few", "tiny/nowhere/f32", "tiny/output"):
        with pytest.raises(PolicyError, match="--plans"):
            choose_plans(catalog, wrong)


def _telemetry(uplink_bps: float | None) -> Telemetry:
    return Telemetry(1, 1, 0, LOCAL, 0, 5.0, 0, 0, rtt_ms=3.0, uplink_bps=uplink_bps)


def test_a_prediction_uses_what_the_device_reported_before(catalog: Catalog, store: Path) -> None:
    model = CostModel(catalog, EDGE)
    setup = BoardSetup(store, BOARD, fps=5.0, link=None)
    assert predict(model, setup, LOCAL, _telemetry(1e6)).latency_ms == pytest.approx(4.0 + 0.5)
    calibrated = dataclasses.replace(_telemetry(1e6), head_ms_per_plan_ms=2.0)
    assert predict(model, setup, LOCAL, calibrated).latency_ms == pytest.approx(8.0 + 0.5)
    with pytest.raises(PolicyError, match="not measured its link"):
        predict(model, setup, LOCAL, _telemetry(None))
    with pytest.raises(PolicyError, match=f"do not cover {SPLIT}"):
        check_covered(model, BOARD, [LOCAL, SPLIT])


def test_an_emulated_board_is_slower_where_the_client_emulates_it() -> None:
    slow = emulated(BOARD, 10.0)
    assert slow.head("tiny", "output").head_ms_p50 == 40.0
    assert (slow.frame_overhead_ms, slow.idle_power_mw, slow.slowdown) == (0.5, 0.0, 10.0)
    assert emulated(BOARD, 1.0) is BOARD


def _line(frame: int, outcome: Outcome, latency_ms: float) -> FrameOutcome:
    return FrameOutcome(
        frame, outcome, 0, 0, latency_ms, head_ms=1.0, encode_ms=2.0, network_ms=3.0, wait_ms=0.5, tail_ms=2.5,
        energy_mj=6.0,
    )  # fmt: skip


def _predicted(latency_ms: float) -> Prediction:
    return Prediction(
        latency_ms, latency_ms, 1.0, 2.0, 1.0, 3.0, 0.0, 2.0, 3.0, None, 100.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    )


def test_frames_that_fell_back_are_counted_and_not_timed() -> None:
    lines = tuple(_line(n, Outcome.EDGE, 10.0 + n) for n in range(5))
    lines += (_line(5, Outcome.FALLBACK, 9000.0), _line(6, Outcome.DROPPED, 1.0), _line(7, Outcome.DEVICE, 1.0))
    row = figures(PlanRun(SPLIT, _telemetry(1e6), lines), _predicted(15.0), BOARD, EDGE)
    assert row.measured_ms == 12.0
    assert row.error == pytest.approx(0.25)
    assert dict(row.outcomes) == {"edge": 5, "device": 1, "fallback": 1, "dropped": 1}
    assert dict(row.measured_parts) == {
        "own": 3.0, "head": 1.0, "encode": 2.0, "network": 3.0, "wait": 0.5, "tail": 2.5
    }  # fmt: skip
    assert row.predicted_parts["network"] == 1.0 + 3.0 + EDGE.overhead_ms
    nothing = figures(PlanRun(SPLIT, _telemetry(1e6), lines[5:]), _predicted(15.0), BOARD, EDGE)
    assert (nothing.measured_ms, nothing.error, dict(nothing.measured_parts)) == (None, None, {})
    summary = summarise_plans([row, nothing])
    assert summary.error_median == pytest.approx(0.25)
    assert (summary.plans, summary.rank_correlation) == (1, None)
    assert summary.energy_error_median == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(1, 10), (2, 20), (3, 400)], 1.0),
        ([(1, 3), (2, 2), (3, 1)], -1.0),
        # Ranks 1 2 3 4 against 2 1 4 3: 1 − 6·4/(4·15).
        ([(1, 2), (2, 1), (3, 4), (4, 3)], 0.6),
        # Ranks 1.5 1.5 3 against 1 2 3: covariance 1.5 over the root of 1.5·2.
        ([(1, 1), (1, 2), (2, 3)], 1.5 / 3**0.5),
        ([(1, 1), (1, 2)], None),
    ],
)
def test_rank_correlation(pairs: list[tuple[float, float]], expected: float | None) -> None:
    assert rank_correlation(pairs) == (None if expected is None else pytest.approx(expected))
