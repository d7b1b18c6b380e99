"""The pilot as a user runs it, on the demo's emulated fleet: the arms really differ, and nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_demo import left_running

KPI = Path(__file__).parents[2] / "docs" / "examples" / "kpi.toml"


def start_pilot(home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tools.cli", "pilot", *arguments],
        env={**os.environ, "SPLITFLEET_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.timeout(200)
def test_arms_take_turns_on_the_emulated_fleet(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "pilot.json"
    process = start_pilot(
        home, "--demo", "--devices", "2", "--rounds", "1", "--block", "3s", "--wash-out", "1s", "--listen", "1s",
        "--kpi", str(KPI), "--json", str(out),
    )  # fmt: skip
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    told: dict[str, Any] = json.loads(out.read_text())
    assert (told["complete"], told["notes"], told["policy"]) == (True, [], "a2c")
    frames = told["frames"]
    assert frames["never_came"] == frames["without_a_clock"] == frames["unreadable_messages"] == 0
    parts = ("measured", "wash_out", "interrupted_block", "before_and_after", "without_a_clock")
    assert frames["came"] == sum(frames[part] for part in parts)
    outcomes = {arm: {name for name, count in told["arms"][arm]["outcomes"].items() if count} for arm in told["arms"]}
    assert outcomes["local"] == {"device"}
    assert outcomes["remote"] <= {"edge", "fallback"} and outcomes["remote"]
    assert all(frames["by_arm"][arm] >= 4 for arm in ("local", "remote", "greedy", "current"))
    assert told["arms"]["local"]["sent_bytes"] == 0 < told["arms"]["remote"]["sent_bytes"]
    assert [one["energy_source"] for one in told["devices"]] == ["modelled"] * 2
    weights = told["kpi"]["weights"]["cam-1"]
    assert sum(weights.values()) == pytest.approx(1)
    assert "too few rounds for intervals" in said and "[defaults.weights]" in said
    log = (home / "sites" / "pilot" / "logs" / "policy.log").read_text()
    events = [json.loads(line[line.index("{") :]) for line in log.splitlines() if '"event": "deciding"' in line]
    assert {event["policy"] for event in events if event["on_trial"]} == {"local", "remote", "greedy"}
    assert (events[-1]["policy"], events[-1]["on_trial"]) == ("a2c", False), "the rules were taken back"
    assert not left_running(home)


@pytest.mark.timeout(200)
def test_ctrl_c_gives_a_partial_report_and_exit_code_1(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "pilot.json"
    process = start_pilot(home, "--demo", "--devices", "1", "--block", "60s", "--listen", "1s", "--json", str(out))
    assert process.stdout is not None
    for line in process.stdout:
        if "block 1 of 16" in line:
            break
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert "partial: it was stopped" in said
    told = json.loads(out.read_text())
    assert (told["complete"], told["interrupted"], told["frames"]["measured"]) == (False, "it was stopped", 0)
    assert not left_running(home)
