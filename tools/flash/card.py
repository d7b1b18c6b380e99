"""Puts a bundle onto the boot partition of a Raspberry Pi OS card, so that its first boot installs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tools.flash.bundle import Bundle
from tools.flash.errors import FlashError
from tools.flash.mbr import Partition, boot_partition

FOLDER = "splitfleet"
COMMAND_LINE = "cmdline.txt"
FIRST_RUN = "firstrun.sh"
RUN = (
    f"systemd.run=/boot/firmware/{FIRST_RUN} systemd.run_success_action=reboot systemd.unit=kernel-command-line.target"
)
"""What Raspberry Pi Imager adds to the kernel command line for the same purpose; systemd runs it once."""
CALL = f'sh "$(dirname "$0")/{FOLDER}/first-boot.sh"'
NOTHING = "cannot be read, or is none of Raspberry Pi OS"


def put_on_card(bundle: Bundle, image: Path) -> Partition:
    """Copy a bundle onto the card or its image; again, it replaces the one before. Needs ``mtools``, no root.

    A first-boot script that Raspberry Pi Imager has put there stays and calls ours. Raises ``FlashError``.
    """
    if shutil.which("mcopy") is None:
        raise FlashError("mtools is not installed: apt-get install mtools, or use --out and copy the folder yourself")
    fat = _Fat(image, boot_partition(image))
    line = fat.read(COMMAND_LINE)
    if line is None:
        raise FlashError(f"the boot partition of {image} has no {COMMAND_LINE}: it {NOTHING}. Use --out or --ssh")
    with tempfile.TemporaryDirectory(prefix="splitfleet-card-") as name:
        staged = Path(name) / FOLDER  # mtools copies a folder under its own name
        staged.symlink_to(bundle.folder)
        fat.replace_folder(staged)
    first_run = fat.read(FIRST_RUN)
    fat.write(FIRST_RUN, _chained(first_run, (bundle.folder / FIRST_RUN).read_text(encoding="utf-8")))
    # Last, so that a card that was pulled out half-way boots as if nothing had been.
    fat.write(COMMAND_LINE, with_first_run(line))
    return fat.partition


def with_first_run(line: str) -> str:
    """Return the kernel command line with our call in it, once."""
    kept = re.sub(r" ?systemd\.(run|run_success_action|unit)=\S*", "", line.strip())
    return f"{kept} {RUN}\n"


def _chained(there: str | None, ours: str) -> str:
    """Return ours, or the script that is there already with a call of ours as its first line."""
    if there is None or f"{FOLDER}/first-boot.sh" in there:
        return there or ours
    first, _, rest = there.partition("\n")
    return f"{first}\n{CALL}\n{rest}" if first.startswith("#!") else f"#!/bin/sh\n{CALL}\n{there}"


@dataclass(frozen=True, slots=True)
class _Fat:
    """The FAT file system at an offset of an image, through mtools."""

    image: Path
    partition: Partition

    def read(self, name: str) -> str | None:
        """Return a text file, or ``None`` where there is none."""
        done = self._run("mtype", f"::/{name}")
        return done.stdout.replace("\r\n", "\n") if done.returncode == 0 else None

    def write(self, name: str, text: str) -> None:
        """Replace a text file."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_text(text, encoding="utf-8")
            self._demand("mcopy", "-o", str(path), f"::/{name}")

    def replace_folder(self, source: Path) -> None:
        """Put a folder into the place of the one of its name."""
        if self._run("mdir", "-b", f"::/{source.name}").returncode == 0:
            self._demand("mdeltree", f"::/{source.name}")
        self._demand("mcopy", "-s", "-Q", str(source), "::/")

    def _demand(self, command: str, *arguments: str) -> None:
        done = self._run(command, *arguments)
        if done.returncode:
            words = " ".join(done.stderr.split()) or f"{command} failed"
            raise FlashError(f"cannot write to the boot partition of {self.image}: {words}")

    def _run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        line = [command, "-i", f"{self.image}@@{self.partition.start_bytes}", *arguments]
        environment = {**os.environ, "MTOOLS_SKIP_CHECK": "1"}
        return subprocess.run(
            line, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environment
        )
