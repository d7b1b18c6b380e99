"""Runs the self-test of a bundle in a child process with little priority and a time limit, without waiting for it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from device_client.settings import DeviceSettings
from device_client.updates.start import environment_of
from device_client.updates.updater import SelfTest
from wire.bundle import CLIENT, ONLY_FILE, VERSION

LIMIT_S = 180.0
NICENESS = 10
"""Frames come first."""


def command_of(wanted: SelfTest, settings: DeviceSettings, file: Path | None) -> tuple[list[str], dict[str, str]]:
    """Return Python's arguments and environment that prove a bundle on this board.

    A version gives its golden answers; a client, or other settings, must get as far as a start does before frames.
    Raises ``OSError`` where there is no settings file to start from.
    """
    # The same modules from the same places, also where the client is one zip file.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if wanted.kind == VERSION:
        command = ["-m", "device_client.updates.selftest", str(wanted.folder), "--tolerance", repr(wanted.tolerance)]
        command += ["--threads", str(settings.threads)]
        return command + (["--runtime", settings.runtime] if settings.runtime else []), environment
    if file is None:
        raise OSError(f"a bundle of kind '{wanted.kind}' needs a client that was started from a settings file")
    only = wanted.folder / ONLY_FILE[wanted.kind]
    if wanted.kind == CLIENT:
        return ["-P", "-m", "device_client", "--check", str(file)], environment_of(only)
    return ["-m", "device_client", "--check", str(file), "--over", str(only)], environment


class Test:
    """One self-test under way."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it; raises ``OSError``."""
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed with the test
        self._until_s = time.monotonic() + LIMIT_S
        self._process = subprocess.Popen(
            ["nice", "-n", str(NICENESS), sys.executable, *command],
            stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said, env=environment,
        )  # fmt: skip

    def outcome(self) -> str | None:
        """Return ``None`` while it runs, an empty text when the bundle works, else what is wrong."""
        code = self._process.poll()
        if code is None:
            if time.monotonic() < self._until_s:
                return None
            self.stop()
            return f"the self-test took more than {LIMIT_S:.0f} s"
        self._said.seek(0)
        words = self._said.read()[-2000:].decode(errors="replace").strip().splitlines()
        self._said.close()
        if code == 0:
            return ""
        if code < 0:
            return f"the self-test crashed on this board (signal {-code})"
        return f"the self-test failed: {words[-1] if words else f'exit code {code}'}"[:500]

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._said.close()
