"""``splitfleet policy compare | export | promote | status | rollback`` as a user types them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from policy.errors import PolicyError
from policy.learned import WEIGHTS
from policy.promotion_desk import PromotionDesk
from policy.promotion_evidence import BLOCK_S, KNOWN_BLOCKS, LAG_S
from policy.transitions import site_traces
from tests.policy.builders import BOARD, HEAVY_LOCAL, HEAVY_WEBP, edge_profile, small_catalog
from tests.policy.recorded import Recording
from tflite_models.catalog import MANIFEST, MODEL, version_to_json
from tflite_models.profile import save_profile
from tools import policy_site

AT = (int(time.time()) - 660) // 60 * 60_000
"""The record's first minute: a store stamps what it takes in by today's clock."""
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in a folder with models, profiles and a record; returns what it printed."""
    for version in small_catalog():
        folder = tmp_path / "models" / version.name
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text(version_to_json(version))
        (folder / MODEL).write_bytes(b"")
    save_profile(BOARD, tmp_path / "profiles" / "board.json")
    save_profile(edge_profile(), tmp_path / "profiles" / "edge.json")
    recording = Recording(tmp_path / "recorder.sqlite")
    recording.device("cam-1")
    for minute in range(10):
        at = AT + minute * 60_000
        recording.telemetry("cam-1", at, uplink_bps=2e6, rtt_ms=20.0, estimate_age_ms=0)
        recording.ended("cam-1", [at + 1_000], latency_ms=250.0, energy_mj=260.0)
        recording.shadow(at, ("cam-1", HEAVY_LOCAL, HEAVY_WEBP, 0.4, 0.45))
    recording.close()
    shutil.copyfile(WEIGHTS, tmp_path / "tuned.npz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPLITFLEET_HOME", str(tmp_path / "home"))
    app = typer.Typer()
    for command in (
        policy_site.compare, policy_site.export, policy_site.promote, policy_site.status, policy_site.rollback
    ):  # fmt: skip
        app.command()(command)

    def run(*words: object) -> str:
        result = CliRunner().invoke(app, [*map(str, words)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    return run


def test_compare_tells_difference_and_trust(run: Run) -> None:
    told = json.loads(
        run("compare", "--store", "recorder.sqlite", "--models", "models", "--profiles", "profiles", "--json")
    )
    (one,) = told["comparisons"]
    assert one["estimate"] == pytest.approx(0.05)
    assert one["difference"]["low"] == pytest.approx(0.05)
    assert told["modelled"] is True
    # usual weights: 0.34 for the most accurate version, 0.33 for half of the deadline, 0.33 for half of the energy
    assert told["acting_predicted_against_measured"]["measured"] == pytest.approx(0.34 + 0.33 * 0.5 + 0.33 * 0.5)
    words = run("compare", "--store", "recorder.sqlite", "--models", "models", "--profiles", "profiles")
    assert "a2c (shadow) − greedy (acting): +0.0500" in words
    assert "predictions of the cost model" in words


def test_compare_without_profiles_says_what_is_missing(run: Run) -> None:
    assert "could not be held against measured ones: there is no" in run("compare", "--store", "recorder.sqlite")
    with pytest.raises(PolicyError, match="there is no"):
        run("compare", "--store", "recorder.sqlite", "--profiles", "nowhere")


@pytest.mark.parametrize("since", ["", "h", "1", "1y", "-3h", "nanh", "infd"])
def test_times_that_cannot_be_are_refused(run: Run, since: str) -> None:
    with pytest.raises(PolicyError, match="write a time such as"):
        run("compare", "--store", "recorder.sqlite", f"--since={since}")


def test_export_writes_what_training_reads(run: Run, tmp_path: Path) -> None:
    told = json.loads(
        run("export", "--store", "recorder.sqlite", "--out", "out/site.npz", "--models", "models", "--profiles",
            "profiles", "--period", 60, "--json")
    )  # fmt: skip
    assert (told["devices"], told["periods"], told["frames"], told["without_reward"]) == (1, 10, 10, 0)
    assert site_traces(tmp_path / "out" / "site.npz").uplink_bps.tolist() == [[2e6] * 10]


def test_a_promotion_from_request_to_rollback(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "promotion"
    assert "no promotion yet" in run("status", "--state", "promotion")
    assert "asked to promote tuned-" in run("promote", "tuned.npz", "--state", "promotion", "--stages", "50,100")
    assert "waits for the decision service" in run("status", "--state", "promotion")
    desk, now_s = PromotionDesk(folder), 1_700_000_040.0
    desk.turn(now_s)
    assert "0 of 30 minutes" in run("status", "--state", "promotion")
    for minute in range(KNOWN_BLOCKS + 15):
        for i in range(4):
            desk.promotion.observe(now_s, f"cam-{i}", 0.1 * i + 0.001 * (minute * (i + 2) % 5), 10)
        now_s += BLOCK_S
        desk.turn(now_s + LAG_S)
    told = json.loads(run("status", "--state", "promotion", "--json"))
    assert (told["state"]["phase"], told["state"]["stage_percent"]) == ("stage", 50.0)
    assert len(told["state"]["promoted_devices"]) == 2
    assert abs(told["state"]["verdict"]["effect"]["estimate"]) < 0.01
    words = run("status", "--state", "promotion")
    assert "50 %: 2 of 4 devices" in words
    assert "next: on to 100 %" in words
    run("rollback", "--state", "promotion", "--reason", "cameras moved")
    desk.turn(now_s + LAG_S)
    words = run("status", "--state", "promotion")
    assert "cameras moved" in words
    assert "no promotion is in progress" in words


def test_stages_that_cannot_be_are_refused(run: Run) -> None:
    for stages in ("a,b", "50,10,100", "10,50", ""):
        with pytest.raises(PolicyError, match="such as 10,50,100"):
            run("promote", "tuned.npz", "--state", "promotion", "--stages", stages)


def test_what_the_service_could_not_use_is_refused_at_once(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", layer=np.ones(3))
    with pytest.raises(PolicyError, match=r"other\.npz is not a file of weights"):
        run("promote", "other.npz", "--state", "promotion")
    with pytest.raises(PolicyError, match="elsewhere is no folder of promotions"):
        run("rollback", "--state", "elsewhere")
    assert not (tmp_path / "promotion").exists() and not (tmp_path / "elsewhere").exists()
