"""A bundle over SSH; ssh and scp are stand-ins that work in a folder instead of on another machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tools.flash.bundle import Bundle
from tools.flash.errors import FlashError
from tools.flash.ssh import install_over_ssh

SSH = """#!/bin/sh
for word; do last="$word"; done
echo "$last" >> "$BOARD/../log"
[ ! -e "$BOARD/../down" ] || { echo "ssh: connect to host board port 22: No route to host" >&2; exit 255; }
cd "$BOARD" && exec sh -c "$last"
"""
SCP = """#!/bin/sh
while [ $# -gt 2 ]; do shift; done
cp -R "$1" "$BOARD/${2#board:}"
"""


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder on the other side."""
    folder = tmp_path / "board"
    (tmp_path / "bin").mkdir()
    folder.mkdir()
    for name, text in {"ssh": SSH, "scp": SCP}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("BOARD", str(folder))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return folder


def stub(bundle: Bundle, tmp_path: Path, script: str) -> Bundle:
    """Return a copy of a bundle with an installer of the test's own."""
    folder = tmp_path / "bundle"
    shutil.copytree(bundle.folder, folder)
    (folder / "install.sh").write_text(script)
    return Bundle(folder, bundle.order, bundle.site, bundle.release, bundle.sizes, (), fetched=False)


def test_it_is_installed_there_and_nothing_stays_behind(bundle: Bundle, board: Path, tmp_path: Path) -> None:
    script = 'cd "$(dirname "$0")" && stat -c "%a %n" . tls/key.pem && sha256sum --quiet --check SHA256SUMS 2>&1'
    said = install_over_ssh(stub(bundle, tmp_path, f"{script} | grep -v install.sh; exit 0"), "board")
    assert said.splitlines()[:2] == ["700 .", "600 tls/key.pem"]
    assert "FAILED" not in said.replace("install.sh: FAILED", "")
    assert not list(board.iterdir()), "the key stays on the board"


def test_what_the_installer_refuses_is_told(bundle: Bundle, board: Path, tmp_path: Path) -> None:
    broken = stub(bundle, tmp_path, "echo splitfleet: this bundle is for pi64 >&2; exit 2")
    with pytest.raises(FlashError, match="ssh board: splitfleet: this bundle is for pi64"):
        install_over_ssh(broken, "board")
    assert not list(board.iterdir())


def test_a_board_that_is_not_there(bundle: Bundle, board: Path, tmp_path: Path) -> None:
    (tmp_path / "down").touch()
    with pytest.raises(FlashError, match="No route to host"):
        install_over_ssh(bundle, "board")


def test_a_host_that_is_an_option(bundle: Bundle, board: Path) -> None:
    with pytest.raises(FlashError, match="that is no host"):
        install_over_ssh(bundle, "-oProxyCommand=touch x")
