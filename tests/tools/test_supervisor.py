"""Processes are watched, ended in time, and their last words are told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tools.supervisor import Running, Supervisor, SupervisorError


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


def test_a_log_stays_within_bounds_while_its_process_goes_on_writing(
    module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.supervisor.MAX_LOG_BYTES", 1000)
    (module / "talker.py").write_text(
        "import sys\nprint('x' * 1500, flush=True)\nsys.stdin = open('go')\ninput()\nprint('after', flush=True)\n"
        "input()\n"
    )
    os.mkfifo(tmp_path / "go")
    monkeypatch.chdir(tmp_path)
    log, before = tmp_path / "logs" / "talker.log", tmp_path / "logs" / "talker.log.before"
    with Supervisor(tmp_path / "logs") as supervisor:
        supervisor.start("talker", "talker")
        wait_for_log(log, "x\n")
        assert supervisor.ended() == {}
        assert (log.read_text(), before.read_text()) == ("", "x" * 1500 + "\n")
        with (tmp_path / "go").open("w") as go:
            print("go", file=go, flush=True)
            wait_for_log(log, "after")
            supervisor.check()
            assert log.read_bytes() == b"after\n", "no hole where the older part was"


def test_last_words_are_read_from_the_end_of_a_long_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "long.log"
    with log.open("wb") as file:
        file.truncate(1 << 30)  # a hole: reading it whole would need this memory
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe disk\nis full\n")
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("read whole"))
    with log.open("ab") as output, subprocess.Popen(["true"]) as process:
        assert Running("long", process, log, output).last_words(2) == "the disk | is full"
