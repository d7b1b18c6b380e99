"""What must stay out of a process, asked of real processes: import rules alone cannot see lazy imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"tensorflow", "keras", "tflite_runtime", "ai_edge_litert", "numpy", "paho", "msgpack", "PIL"}


def modules_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh Python has loaded after a statement."""
    code = f"import sys\ntry:\n    {statement}\nexcept SystemExit:\n    pass\nprint('\\n', *sys.modules, sep='\\n')"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return {line.partition(".")[0] for line in told.stdout.splitlines()}


@pytest.mark.parametrize("arguments", [["--help"], ["bench", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    loaded = modules_after(f"import tools.cli; sys.argv[1:] = {arguments}; tools.cli.main()")
    assert "typer" in loaded
    assert not loaded & HEAVY


def test_a_device_loads_no_tensorflow_and_no_command_line() -> None:
    loaded = modules_after("import device_client.__main__, device_client.client")
    assert "wire" in loaded
    assert not loaded & {"tensorflow", "keras", "typer", "rich", "influxdb_client", "edge_broker_side", "policy", "PIL"}


@pytest.mark.parametrize("package", ["edge_broker_side", "policy"])
def test_the_other_processes_load_no_tensorflow_to_start(package: str) -> None:
    loaded = modules_after(f"import {package}.__main__")
    assert "wire" in loaded
    assert not loaded & {"tensorflow", "keras", "typer", "rich", "gymnasium", "matplotlib"}
