"""Starts, watches and ends the processes of a site on this machine; none outlives the one who started it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

LAST_WORDS_BYTES = 4096
"""Of a log's end; the rest may be long."""
MAX_LOG_BYTES = 10 << 20
"""A longer log is emptied; what was in it is kept beside it, as ``<name>.log.before``, in place of what was there."""


class SupervisorError(Exception):
    """A process of the site ended by itself; the message has its last words."""


@dataclass(slots=True)
class Running:
    """One process and where its output goes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    output: IO[bytes]

    def last_words(self, lines: int = 3) -> str:
        """Return the end of its log."""
        with self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            text = file.read(LAST_WORDS_BYTES).decode(errors="replace").strip().splitlines()
        return " | ".join(text[-lines:]) or "it said nothing"

    def bound_log(self) -> None:
        """Keep its log within bounds. The process goes on writing to the same file, at its end as it is then."""
        with suppress(OSError):  # a full disk is told by whoever needs the room
            if self.log.stat().st_size >= MAX_LOG_BYTES:
                shutil.copyfile(self.log, self.log.with_suffix(".log.before"))
                os.truncate(self.log, 0)


class Supervisor:
    """Processes by name, in the order they were started; a context manager that leaves none behind."""

    def __init__(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._running: dict[str, Running] = {}

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(self.names())

    def start(self, name: str, module: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        """Start ``python -m module arguments``, its output in ``<logs>/<name>.log``."""
        log = self._logs / f"{name}.log"
        output = log.open("ab")
        # A session of its own: Ctrl-C reaches us alone, and we end the processes in their order.
        process = subprocess.Popen(
            [sys.executable, "-m", "tools.lifeline", str(os.getpid()), module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        self._running[name] = Running(name, process, log, output)

    def names(self) -> list[str]:
        """Return the processes under supervision, in the order they were started."""
        return list(self._running)

    def pid(self, name: str) -> int:
        """Return the process id of one."""
        return self._running[name].process.pid

    def check(self) -> None:
        """Raise ``SupervisorError`` when a process has ended by itself."""
        for running in self._running.values():
            running.bound_log()
            code = running.process.poll()
            if code is not None:
                raise SupervisorError(f"{running.name} ended by itself with code {code}: {running.last_words()}")

    def ended(self) -> dict[str, str]:
        """Forget the processes that have ended by themselves; return their last words by name."""
        told = {}
        for running in list(self._running.values()):
            running.bound_log()
            code = running.process.poll()
            if code is not None:
                told[running.name] = f"code {code}: {running.last_words()}"
                running.output.close()
                del self._running[running.name]
        return told

    def kill(self, name: str) -> None:
        """End a process at once, as a power cut would, and forget it."""
        running = self._running.pop(name)
        running.process.kill()
        running.process.wait()
        running.output.close()

    def stop(self, names: Sequence[str], timeout_s: float = 15.0) -> dict[str, int]:
        """Ask these processes to end, together; kill what has not ended in time. Returns their exit codes."""
        chosen = [self._running.pop(name) for name in names if name in self._running]
        for running in chosen:
            if running.process.poll() is None:
                running.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        for running in chosen:
            try:
                running.process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()
            running.output.close()
        return {running.name: running.process.returncode for running in chosen}
