"""The command line as a user types it, in this process: importing it anew for each command would take long."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tools import cli


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


class Home:
    """A home of its own, and what is typed there."""

    def __init__(self, path: Path, said: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.path, self._said, self._patch = path, said, patch
        patch.setenv("SPLITFLEET_HOME", str(path))

    def run(self, *words: str) -> Done:
        """Run ``splitfleet words``."""
        self._said.readouterr()
        self._patch.setattr(sys, "argv", ["splitfleet", *words])
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Done(code, *self._said.readouterr())

    def told(self, *words: str, code: int = 0) -> Any:
        """Run it with ``--json``, demand an exit code, and return the document."""
        done = self.run(*words, "--json")
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)
