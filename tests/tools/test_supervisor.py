"""Processes are watched, ended in time, and their last words are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.supervisor import Supervisor, SupervisorError


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules the supervised processes can import."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def wait_for_log(log: Path, words: str) -> None:
    while words not in (log.read_text() if log.exists() else ""):
        pass


def test_a_process_that_ends_by_itself_is_told_with_its_last_words(module: Path, tmp_path: Path) -> None:
    (module / "brief.py").write_text("print('the disk is full'); raise SystemExit(3)\n")
    with Supervisor(tmp_path / "logs") as supervisor:
        supervisor.start("writer", "brief")
        with pytest.raises(SupervisorError, match="writer ended by itself with code 3: the disk is full"):
            while True:
                supervisor.check()


def test_a_deaf_process_is_killed_in_the_end(module: Path, tmp_path: Path) -> None:
    (module / "deaf.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)\n"
    )
    with Supervisor(tmp_path / "logs") as supervisor:
        supervisor.start("deaf", "deaf")
        wait_for_log(tmp_path / "logs" / "deaf.log", "up")
        assert supervisor.stop(["deaf"], timeout_s=0.2) == {"deaf": -9}
        assert supervisor.names() == []


def test_arguments_and_environment_reach_the_module(module: Path, tmp_path: Path) -> None:
    (module / "echo.py").write_text("import os, sys\nprint(sys.argv[1:], os.environ['FLEET'], __name__, flush=True)\n")
    with Supervisor(tmp_path / "logs") as supervisor:
        supervisor.start("echo", "echo", "a", "--b", env={"FLEET": "north"})
        wait_for_log(tmp_path / "logs" / "echo.log", "\n")
    assert (tmp_path / "logs" / "echo.log").read_text() == "['a', '--b'] north __main__\n"
