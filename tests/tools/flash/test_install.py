"""install.sh on boards that it must refuse: a clear word and code 2. On those it takes: tests/e2e/test_flash.py."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tools.flash.bundle import BOARD, Bundle
from tools.flash.paths import DATA, SETTINGS

PYTHON = """[ "$1" = -m ] || { echo 3.11; exit; }
for last; do :; done
mkdir -p "$last/bin"
printf '#!/bin/sh\\n' > "$last/bin/python"
chmod +x "$last/bin/python\""""
"""A Python whose environments accept everything: the real ones are in tests/e2e/test_flash.py."""


def install(bundle: Path, prefix: Path | None, fakes: Path, *arguments: str, **answers: str) -> tuple[int, str]:
    """Run the installer where some commands answer otherwise; return its code and what it said on stderr."""
    fakes.mkdir(exist_ok=True)
    for name, answer in answers.items():
        command = fakes / name.replace("_", ".")
        command.write_text(f"#!/bin/sh\n{answer}\n")
        command.chmod(0o755)
    place = ["--prefix", str(prefix)] if prefix else []
    done = subprocess.run(
        ["sh", str(bundle / "install.sh"), *place, *arguments],
        env={**os.environ, "PATH": f"{fakes}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("machine", "bits", "words"),
    [
        ("aarch64", "64", "is for x86 and this board is a pi64 (aarch64, 64 bits): flash it with --target pi64"),
        ("aarch64", "32", "is for x86 and this board is a pi32 (aarch64, 32 bits): flash it with --target pi32"),
        ("armv7l", "32", "--target pi32"),
        ("armv6l", "32", "no packages for a board of armv6l with 32 bits"),
        ("riscv64", "64", "no packages for a board of riscv64"),
    ],
)
def test_another_processor(bundle: Bundle, tmp_path: Path, machine: str, bits: str, words: str) -> None:
    answers = {"uname": f"echo {machine}", "getconf": f"echo {bits}"}
    code, said = install(bundle.folder, tmp_path / "board", tmp_path / "fakes", **answers)
    assert code == 2 and words in said
    assert not (tmp_path / "board").exists()


def test_another_python(bundle: Bundle, tmp_path: Path) -> None:
    answers = {"python3": "echo 3.13", "python3_11": "exit 127"}
    code, said = install(bundle.folder, tmp_path / "board", tmp_path / "fakes", **answers)
    assert code == 2
    assert "for Python 3.11 and this board has 3.13: flash it with --python 3.13" in said
    assert not (tmp_path / "board").exists()


def test_no_systemd(bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle.folder, copy)
    script = (copy / "install.sh").read_text(encoding="utf-8")
    assert script.count("/run/systemd/system") == 1
    (copy / "install.sh").write_text(script.replace("/run/systemd/system", str(tmp_path / "nowhere")))
    code, said = install(copy, None, tmp_path / "fakes", id="echo 0")
    assert code == 2 and "does not run systemd: sh install.sh --no-service" in said


def test_not_root(bundle: Bundle, tmp_path: Path) -> None:
    code, said = install(bundle.folder, None, tmp_path / "fakes", id="echo 1000")
    assert code == 2 and "this needs root: sudo sh" in said


@pytest.mark.parametrize("damage", ["cut", "gone", "no list"])
def test_a_damaged_copy(bundle: Bundle, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle.folder, copy)
    (model,) = copy.glob("models/*/model.tflite")
    if damage == "cut":
        model.write_bytes(model.read_bytes()[:-1])
    elif damage == "gone":
        model.unlink()
    else:
        (copy / "SHA256SUMS").unlink()
    code, said = install(copy, tmp_path / "board", tmp_path / "fakes")
    assert code == 2 and "copy the bundle again" in said
    assert not (tmp_path / "board").exists()


def test_a_client_that_cannot_be_installed_leaves_no_half_release(bundle: Bundle, tmp_path: Path) -> None:
    """The packages of this bundle are empty, so that installing them must fail."""
    code, said = install(bundle.folder, tmp_path / "board", tmp_path / "fakes")
    assert code == 2 and "pip could not install the packages" in said
    code_folder = tmp_path / "board" / "opt" / "splitfleet"
    assert not (code_folder / "current").exists()
    assert not list((code_folder / "releases").glob("[0-9]*[!w]")), "a half release has its final name"


@pytest.mark.parametrize("what", ["settings", "key", "model", "release", "cut"])
def test_what_is_flashed_goes_before_earlier_updates(bundle: Bundle, tmp_path: Path, what: str) -> None:
    board = tmp_path / "board"
    state = board / DATA.lstrip("/") / "state"
    again = partial(install, bundle.folder, board, tmp_path / "fakes", python3_11=PYTHON)
    assert again()[0] == 0
    kept = state / "updates" / "state.json"
    for words in ("of before", "of now"):
        kept.parent.mkdir()
        kept.write_text(words)
        assert again()[0] == 0 and kept.read_text() == words, "the same once more changes nothing"
        match what:
            case "settings":
                (board / SETTINGS.lstrip("/") / "device.toml").write_text(words)
            case "key":
                (board / SETTINGS.lstrip("/") / "tls" / "bundles.pem").write_text(words)
            case "model":
                (model,) = (board / DATA.lstrip("/") / "models").glob("*/model.tflite")
                model.write_bytes(words.encode())
            case "release":
                current = board / "opt/splitfleet/current"
                current.unlink()
                current.symlink_to("releases/other")
            case "cut":  # the settings are changed already; the power went before the updates were set aside
                (board / SETTINGS.lstrip("/") / "device.toml").write_text(words)
                assert again(readlink="kill -9 $PPID")[0] != 0 and kept.exists()
                (tmp_path / "fakes" / "readlink").unlink()
        assert again()[0] == 0
        assert not kept.exists() and (state / "updates.before" / "state.json").read_text() == words
    assert not list((board / DATA.lstrip("/")).glob(".anew"))


def test_a_release_is_on_the_disk_before_it_has_its_name(bundle: Bundle, tmp_path: Path) -> None:
    log = tmp_path / "log"
    answers = {"sync": f"echo sync >> {log}", "mv": f'echo mv "$@" >> {log}; exec /bin/mv "$@"'}
    code, _ = install(bundle.folder, tmp_path / "board", tmp_path / "fakes", python3_11=PYTHON, **answers)
    assert code == 0
    steps = log.read_text().splitlines()
    (renamed,) = (n for n, step in enumerate(steps) if step.startswith("mv") and "/releases/" in step)
    assert steps[:renamed][-1:] == ["sync"]


@pytest.mark.parametrize("arguments", [("--prefix",), ("--prefix", "relative"), ("--prefix", "/a b"), ("--what",)])
def test_unknown_words(bundle: Bundle, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, said = install(bundle.folder, None, tmp_path / "fakes", *arguments)
    assert code == 2 and "splitfleet:" in said


def test_systemd_accepts_the_service(tmp_path: Path) -> None:
    text = (BOARD / "splitfleet-device.service").read_text(encoding="utf-8")
    unit = tmp_path / "splitfleet-device.service"
    unit.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    settings = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z]\w+=", line))
    assert settings["ExecStart"].endswith(f"-m device_client {SETTINGS}/device.toml")
    assert settings["OOMPolicy"] == "continue", "a self-test that takes too much would take the client with it"
    assert settings["ReadWritePaths"] == DATA and settings["Type"] == "notify"
