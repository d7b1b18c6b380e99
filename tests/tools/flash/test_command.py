"""What is typed: one line and code 2 for what cannot be, before any work."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from tools.flash.command import flash
from tools.flash.debian_root import SUITES, check_tools, debian_root
from tools.flash.errors import FlashError
from tools.flash.targets import TARGETS, target_named


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"target": "pi65", "out": Path("x")}, "there is no target 'pi65'; there are pi64, pi32, x86"),
        ({"python": "2.7", "out": Path("x")}, r"pi64 can be flashed for Python 3\.11, 3\.12, 3\.13, not '2\.7'"),
        ({}, "say one of --out FOLDER, --image FILE and --ssh HOST"),
        ({"out": Path("x"), "ssh": "board"}, "say one of --out"),
        ({"image": Path("missing.img"), "folder": Path()}, r"cannot read missing\.img: No such file"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, arguments: dict[str, Any], words: str) -> None:
    with chdir(tmp_path), pytest.raises(FlashError, match=words):
        flash("cam-01", **arguments)
    assert not list(tmp_path.iterdir())


def test_the_command_says_it_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.cli", "flash", "cam-01", "--out", str(tmp_path / "x"), "--ssh", "board"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "splitfleet: say one of --out FOLDER, --image FILE and --ssh HOST\n"


def test_the_selftest_asks_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(FlashError, match="needs root"):
        check_tools(target_named("pi64"))


def test_the_selftest_says_which_packages_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(
        FlashError, match=r"qemu-aarch64-static\. Install them with: sh tools/system_packages\.sh arm64"
    ):
        check_tools(target_named("pi64"))


def test_the_selftest_knows_debian_releases_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPLITFLEET_HOME", str(tmp_path))
    with pytest.raises(FlashError, match=r"no Debian release has Python 3\.12"):
        debian_root(target_named("pi64"), "3.12", lambda *_: None)
    assert all(any(python in target.pythons for target in TARGETS.values()) for python in SUITES)
