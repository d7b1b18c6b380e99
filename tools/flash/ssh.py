"""Brings a bundle to a board over SSH and installs it there."""

from __future__ import annotations

import shutil
import subprocess

from tools.flash.bundle import Bundle
from tools.flash.errors import FlashError

SUDO = 'if [ "$(id -u)" -eq 0 ]; then {0}; else sudo -n {0}; fi'


def install_over_ssh(bundle: Bundle, host: str, arguments: str = "") -> str:
    """Copy and install; return what the installer said. ``host`` is what ``ssh`` takes, an alias or user@address.

    The key travels encrypted, lies in a folder of the user alone, and is removed with it. Raises ``FlashError``.
    """
    if host.startswith("-"):
        raise FlashError(f"--ssh {host}: that is no host")
    for command in ("ssh", "scp"):
        if shutil.which(command) is None:
            raise FlashError(f"{command} is not installed: apt-get install openssh-client")
    place = f"splitfleet-{bundle.order.name}"
    _run(host, "ssh", "-o", "BatchMode=yes", host, f"rm -rf {place} && mkdir -m 700 {place}")
    try:
        _run(host, "scp", "-q", "-r", "-o", "BatchMode=yes", f"{bundle.folder}/.", f"{host}:{place}/")
        install = SUDO.format(f"sh {place}/install.sh {arguments}".strip())
        return _run(host, "ssh", "-o", "BatchMode=yes", host, install)
    finally:
        subprocess.run(["ssh", "-o", "BatchMode=yes", host, f"rm -rf {place}"], capture_output=True, check=False)


def _run(host: str, *command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split()[-60:])
        raise FlashError(f"{command[0]} {host}: {words or f'ended with code {done.returncode}'}")
    return done.stdout
