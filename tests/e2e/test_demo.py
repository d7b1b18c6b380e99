"""The demo as a user runs it: exit code, figures, and nothing left running however it ends."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

DEVICES = ("cam-1", "cam-2", "cam-3", "cam-4")
FIGURES = (
    "frames_captured",
    "outcomes",
    "unaccounted",
    "decisions",
    "plan_switches",
    "latency_ms_p50",
    "latency_ms_p95",
    "accuracy",
    "energy_mj_mean",
    "bytes_mean",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of its own, so that models are cut and profiles measured as on a new machine."""
    yield tmp_path_factory.mktemp("home")


def start_demo(home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tools.cli", "demo", "--headless", *arguments],
        env={**os.environ, "SPLITFLEET_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def left_running(home: Path) -> list[str]:
    return [
        " ".join(process.info["cmdline"])
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"] and any(str(home) in part for part in process.info["cmdline"])
    ]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("broker", [(), ("--embedded",)], ids=["mosquitto", "rumqttd"])
def test_demo_accounts_for_every_frame(home: Path, tmp_path: Path, broker: tuple[str, ...]) -> None:
    out, picture = tmp_path / "out.json", tmp_path / "demo.svg"
    process = start_demo(home, "--seconds", "25", "--json", str(out), "--svg", str(picture), *broker)
    said, _ = process.communicate(timeout=280)
    assert process.returncode == 0, said
    assert ("rumqttd" if broker else "mosquitto") in said
    report: dict[str, Any] = json.loads(out.read_text())
    assert report["unaccounted"] == 0
    assert not report["store_differs"]
    assert sum(report["outcomes"].values()) == report["frames_captured"] > 100
    assert all(report["outcomes"][outcome] >= 1 for outcome in ("edge", "device", "fallback"))
    assert report["plan_switches"] >= 2
    assert sorted(report["devices"]) == sorted(DEVICES)
    for figures in (report, *report["devices"].values()):
        assert set(FIGURES) <= set(figures)
    assert report["accuracy"] > 0.6
    assert picture.read_text().startswith("<svg")
    assert not left_running(home)


@pytest.mark.timeout(200)
def test_ctrl_c_ends_everything_and_still_sums_up(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    process = start_demo(home, "--seconds", "120", "--json", str(out), "--devices", "2")
    assert process.stdout is not None
    for line in process.stdout:
        if "2 devices" in line:  # both are up
            break
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert json.loads(out.read_text())["unaccounted"] == 0
    assert not left_running(home)


def test_killed_demo_takes_its_processes_along(home: Path) -> None:
    process = start_demo(home, "--seconds", "120", "--devices", "1")
    assert process.stdout is not None
    for line in process.stdout:
        if "1 devices" in line:
            break
    children = {child: child.cmdline() for child in psutil.Process(process.pid).children(recursive=True)}
    assert len(children) >= 4
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(list(children), timeout=20)
    assert not [children[child] for child in alive]


def test_a_second_demo_leaves_the_first_alone(home: Path) -> None:
    (home / "sites").mkdir(parents=True, exist_ok=True)
    with (home / "sites" / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = start_demo(home)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a demo already runs" in said


def test_unknown_policy_is_refused_with_what_is_allowed(home: Path) -> None:
    process = start_demo(home, "--policy", "astrology")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "astrology" in said
    assert "a2c" in said
