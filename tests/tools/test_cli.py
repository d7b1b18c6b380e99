"""The command line: every name leads to a command with an example, and errors are one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.cli import COMMANDS, TOLD, LazyGroup, Pending, Table, build, lazy_commands

ROOT = Path(__file__).parent.parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "tools.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def pending(table: Table, path: str = "") -> Iterator[tuple[str, Pending]]:
    """Return every command of the table that is loaded on use, with the words that lead to it."""
    for command in lazy_commands(table):
        words = f"{path} {command.name}".strip()
        if isinstance(command, LazyGroup):
            inner: Any = table[str(command.name)][0]
            yield from pending(inner, words)
        else:
            yield words, command


@pytest.mark.parametrize("command", [pytest.param(command, id=words) for words, command in pending(COMMANDS)])
def test_every_name_leads_to_a_command_with_an_example(command: Pending) -> None:
    loaded = command.load()
    assert loaded.name == command.name
    for leaf in _leaves(loaded):
        assert "Example" in (leaf.help or ""), f"'{leaf.name}' has no example in its help"


def _leaves(command: Any) -> Iterator[Any]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield command
    else:
        for sub in inner.values():
            yield from _leaves(sub)


def test_help_lists_every_command() -> None:
    told = run("--help")
    assert told.returncode == 0
    for name, (_, summary) in COMMANDS.items():
        assert name in told.stdout
        assert summary in told.stdout


def test_a_typing_error_gets_a_hint() -> None:
    told = run("modles")
    assert told.returncode == 2
    assert "No such command 'modles'. Did you mean 'models'?" in told.stderr


def test_an_error_of_ours_is_one_line_and_with_debug_a_traceback(tmp_path: Path) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"not a model")
    short = run("models", "cuts", str(broken))
    assert (short.returncode, short.stdout) == (2, "")
    assert short.stderr.startswith("splitfleet: ") and short.stderr.count("\n") == 1
    long = run("--debug", "models", "cuts", str(broken))
    assert long.returncode == 2
    assert "Traceback" in long.stderr and long.stderr.endswith(short.stderr)


def test_root_errors_are_where_the_table_says() -> None:
    """The table names them as text; a root that moved would show its users a traceback."""
    for name in TOLD:
        module, _, attribute = name.rpartition(".")
        error = getattr(__import__(module, fromlist=[attribute]), attribute)
        assert issubclass(error, Exception)
        assert f"{error.__module__}.{error.__qualname__}" == name


def test_the_groups_command_is_built_anew_each_time() -> None:
    assert build() is not build()
