"""The tests that load TensorFlow, in a process of their own: no TensorFlow Lite runtime may share one with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def test_with_tensorflow() -> None:
    files = sorted(str(file) for file in HERE.glob("apart_*.py"))
    assert files
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short", *files]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, f"{told.stdout}\n{told.stderr}"
