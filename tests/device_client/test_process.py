"""The client as a process of its own: signals, sudden death, and a board that has the device's packages alone."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device_client.ledger import DIED
from edge_broker_side.broker import Broker
from tests.device_client.edge import DEVICE, Edge, answer_ok, keep_silent
from tests.device_client.stores import SPLIT
from tflite_models.profile import load_device_profile
from tools.bench.board import make_board, on_board
from wire.messages import DeviceState, Outcome
from wire.plan import Plan

ROOT = Path(__file__).parents[2]


def write_settings(tmp_path: Path, site: str, models: Path, pack: Path, *, port: int | None, extra: str = "") -> Path:
    """Write a settings file and return its path."""
    path = tmp_path / "device.toml"
    path.write_text(
        f"""
site = "{site}"
name = "{DEVICE}"
models = "{models}"
state = "{tmp_path / "state"}"
broker = {"true" if port else "false"}
telemetry_period_s = 0.2
{extra}
[camera]
path = "{pack}"
fps = {50 if port else 0}
{"" if port else "limit = 200"}
[link]
port = {port or 1}
backoff_min_s = 0.05
backoff_max_s = 0.2
"""
    )
    return path


@contextmanager
def process(settings: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a client, ended at the latest here."""
    with (settings.parent / "client.log").open("ab") as log:
        child = subprocess.Popen(
            [*(command or (sys.executable, "-m", "device_client")), str(settings)], stderr=log, cwd=ROOT
        )
        try:
            yield child
        finally:
            child.kill()
            child.wait()


def test_sigterm_closes_every_frame_and_hands_the_ledger_over(
    tmp_path: Path, any_broker: Broker, site: str, models: Path, pack: Path
) -> None:
    settings = write_settings(
        tmp_path, site, models, pack, port=any_broker.port, extra=f'safe_plan = "{SPLIT}"\ndeadline_ms = 30000'
    )
    with Edge(site, any_broker.port, models) as edge:
        with process(settings) as child:
            edge.wait(lambda: edge.count(Outcome.EDGE) >= 3, "answers")
            edge.answering = keep_silent
            edge.wait(lambda: len(edge.held) >= 3, "frames in flight")
            child.send_signal(signal.SIGTERM)
            assert child.wait(30) == 0
        edge.wait(lambda: edge.states[-1].state is DeviceState.STOPPED, "the goodbye")
        assert edge.count(Outcome.FALLBACK, "stopping") >= 3
    edge.assert_every_frame_once()


def test_after_sigkill_the_next_session_completes_the_ledger(
    tmp_path: Path, any_broker: Broker, site: str, models: Path, pack: Path
) -> None:
    settings = write_settings(
        tmp_path, site, models, pack, port=any_broker.port, extra=f'safe_plan = "{SPLIT}"\ndeadline_ms = 30000'
    )
    with Edge(site, any_broker.port, models) as edge:
        edge.answering = keep_silent
        with process(settings) as child:
            edge.wait(lambda: len(edge.held) >= 3, "frames in flight")
            child.send_signal(signal.SIGKILL)
            child.wait()
        first = edge.held[0].session
        edge.answering = answer_ok
        with process(settings) as child:
            edge.wait(lambda: any(owner > first for owner, _ in edge.lines), "a second session")
            child.send_signal(signal.SIGTERM)
            assert child.wait(30) == 0
        died = edge.outcomes(first)[Outcome.DROPPED, DIED]
        assert died >= 3
    edge.assert_every_frame_once()
    assert {activation.frame for activation in edge.held} <= {frame for owner, frame in edge.lines if owner == first}


def test_a_will_tells_of_a_sudden_death(tmp_path: Path, mosquitto: Broker, site: str, models: Path, pack: Path) -> None:
    settings = write_settings(tmp_path, site, models, pack, port=mosquitto.port)
    with Edge(site, mosquitto.port, models) as edge:
        with process(settings) as child:
            edge.wait(lambda: len(edge.states) >= 1, "the birth")
            child.send_signal(signal.SIGKILL)
            child.wait()
        edge.wait(lambda: edge.states[-1].state is DeviceState.LOST, "the will")
        assert edge.states[-1].session == edge.states[0].session


def test_without_a_broker_it_works_alone_and_keeps_the_ledger(tmp_path: Path, models: Path, pack: Path) -> None:
    settings = write_settings(tmp_path, "lab", models, pack, port=None)
    with process(settings) as child:
        assert child.wait(60) == 0
    assert "200 frame lines wait" in (tmp_path / "client.log").read_text()


# -- light: only what the device extra installs ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what is flashed and what it depends on, and nothing else."""
    return make_board(tmp_path_factory.mktemp("board"))


@pytest.mark.parametrize("plan", [Plan("tiny", "output", "none"), SPLIT])
def test_a_board_with_the_device_packages_alone_classifies(
    tmp_path: Path, board: Path, models: Path, pack: Path, plan: Plan
) -> None:
    for absent in ("tensorflow", "typer", "rich", "influxdb_client", "psutil", "ai_edge_litert", "edge_broker_side"):
        assert not (board / absent).exists()
    settings = write_settings(tmp_path, "lab", models, pack, port=None, extra=f'safe_plan = "{plan}"')
    done = run_on(board, tmp_path, "device_client", str(settings))
    assert done.returncode == 0, done.stderr
    assert "200 frame lines wait" in done.stderr


def test_nothing_else_of_this_environment_is_in_reach(tmp_path: Path, board: Path) -> None:
    for module in ("psutil", "typer", "edge_broker_side", "tools"):
        done = run_on(board, tmp_path, module)
        assert f"No module named {module}" in done.stderr


def test_the_board_can_profile_itself_without_the_command_line(tmp_path: Path, board: Path, models: Path) -> None:
    out = tmp_path / "board.json"
    options = ["--models", str(models), "--runs", "3", "--class", "b", "--out", str(out)]
    done = run_on(board, tmp_path, "device_client.profiling", *options)
    assert done.returncode == 0, done.stderr
    assert load_device_profile(out).device_class == "b"


def run_on(board: Path, folder: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module on the board."""
    command = on_board(board, module, *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=folder)
