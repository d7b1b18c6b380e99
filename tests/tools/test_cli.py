"""The command line: every name leads to a command with an example, and errors are one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.cli import COMMANDS, TOLD, LazyGroup, Pending, Table, build, lazy_commands
from wire.acl import acl_file
from wire.channels import Role

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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("worker", "--port", "99999"), "port is 99999"),
        (("worker", "--threads", "-4"), "threads is -4"),
        (("worker", "{loud}"), "log_level = 'loud' is not one of"),
        (("broker", "--port", "99999"), "port is 99999"),
        (("broker", "--folder", "{file}/broker"), "cannot use"),
        (("recorder", "--store", "{file}/points.sqlite"), "cannot use"),
        (("policy", "serve", "{absent}"), "cannot read"),
        (("policy", "explain", "--profile", "{file}"), "is not JSON"),
        (("profile", "device", "--out", "{file}/pi4.json"), "cannot use"),
        (("profile", "device", "--class", "../pi4"), "not a valid name"),
        (("profile", "edge", "--out", "{file}/edge.json"), "cannot use"),
        (("models", "list", "--zoo", "{absent}"), "no model folder"),
        (("models", "prepare", "nosuch", "--out", "{absent}"), "there is no version 'nosuch'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_before_it_begins(
    arguments: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    places = {"file": tmp_path / "file", "absent": tmp_path / "absent", "loud": tmp_path / "loud.toml"}
    places["file"].write_text("text")
    places["loud"].write_text('site = "a"\nname = "b"\nmodels = "c"\nlog_level = "loud"\n')
    done = run(*(argument.format(**places) for argument in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and told in done.stderr


def test_a_settings_file_and_options_together_are_refused(tmp_path: Path) -> None:
    done = run("worker", str(tmp_path / "worker.toml"), "--name", "edge-2")
    assert done.returncode == 2
    assert "takes the place of options: set name in" in done.stderr


def test_acl_prints_the_file_that_the_channel_table_makes() -> None:
    done = run("acl", "--site", "plant-1", "--account", "cam-01=device", "--account", "edge-1=worker")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == acl_file("plant-1", {"cam-01": Role.DEVICE, "edge-1": Role.WORKER})


@pytest.mark.parametrize("account", ["cam-01", "cam-01=boss", "=device", "cam 1=device"])
def test_acl_refuses_what_is_no_account(account: str) -> None:
    done = run("acl", "--site", "plant-1", "--account", account)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_prepared_folders_hold_what_was_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "models"
    done = run("models", "prepare", "resnet-light", "--out", str(out), "--no-tails")
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (out / "resnet-light").iterdir()}
    assert {"version.json", "model.tflite", "s1.head.tflite", "s2.head.tflite"} == files
