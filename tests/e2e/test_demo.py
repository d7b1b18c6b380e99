"""The demo as a user runs it: exit code, figures, and nothing left running however it ends."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tools.metrics_servers import MetricsServer

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
def test_demo_accounts_for_every_frame(
    home: Path, tmp_path: Path, broker: tuple[str, ...], influxd: MetricsServer
) -> None:
    out, picture = tmp_path / "out.json", tmp_path / "demo.svg"
    server = ("--influx", influxd.url, "--database", "mosquitto" if not broker else "rumqttd")
    process = start_demo(home, "--seconds", "25", "--json", str(out), "--svg", str(picture), *server, *broker)
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
    for source in ("sqlite", "influx"):
        told = json.loads(ask_report(home, "--since", "1h", "--source", source, "--json"))
        agrees(told["fleet"], told["fleet"]["decisions"], report)
        assert sorted(one["device"] for one in told["devices"]) == sorted(DEVICES)
        for one in told["devices"]:
            agrees(one, one["decisions"]["count"], report["devices"][one["device"]])
    page = tmp_path / "report.html"
    ask_report(home, "--format", "html", "--out", str(page))
    assert f"every one of {report['frames_captured']:,} captured frames is accounted for" in page.read_text()


def ask_report(home: Path, *arguments: str) -> str:
    """Report as a user does after the demo: the site is found by itself."""
    return subprocess.run(
        [sys.executable, "-m", "tools.cli", "report", *arguments],
        env={**os.environ, "SPLITFLEET_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def agrees(told: dict[str, Any], decisions: int, seen: dict[str, Any]) -> None:
    """Hold the figures of a report against those that the demo's subscriber saw."""
    figures, ledger = told["figures"], told["ledger"]
    assert (ledger["captured"], ledger["gap"]) == (seen["frames_captured"], seen["unaccounted"])
    assert (figures["frames"], figures["outcomes"]) == (seen["frames_captured"], seen["outcomes"])
    assert figures["reasons"] == seen["reasons"]
    assert figures["times"]["latency_ms"]["p50"] == seen["latency_ms_p50"]
    assert figures["times"]["latency_ms"]["p95"] == seen["latency_ms_p95"]
    assert figures["accuracy"] == seen["accuracy"]
    (energy,) = figures["energy"]
    assert (energy["source"], energy["mean_mj"]) == (seen["energy_source"], pytest.approx(seen["energy_mj_mean"]))
    assert figures["bytes_mean"] == pytest.approx(seen["bytes_mean"])
    assert decisions == seen["decisions"]


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
