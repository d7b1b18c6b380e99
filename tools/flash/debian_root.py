"""A Debian system of a board's processor in a folder of this machine, and commands that run inside it by emulation."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools.flash.errors import FlashError
from tools.flash.targets import Target
from tools.home import home
from tools.prepared import Progress

SUITES = {"3.11": "bookworm", "3.13": "trixie"}
"""Debian releases by their Python."""
INCLUDED = ("python3", "openssl")
"""What a board has beside the bare minimum, as Raspberry Pi OS does; not python3-venv, not pip."""
_QEMU = {"arm64": "qemu-aarch64", "armhf": "qemu-arm"}
_LINES = 500
"""About so many lines debootstrap prints."""
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}

# Debian's own rule; the kernel opens qemu when it reads it (flag F), so that qemu need not be inside the root. What the
# kernel is told lasts as long as binfmt_misc is mounted somewhere, or for ever with older kernels.
_HOLD = """
place=/proc/sys/fs/binfmt_misc
[ -e $place/register ] || mount -t binfmt_misc binfmt_misc $place
if [ -e "$place/$0" ]; then echo there; exec cat; fi
cat "/usr/lib/binfmt.d/$0.conf" > $place/register
echo ready
cat
echo -1 > "$place/$0"
"""

# The mounts live in a namespace of their own: they end with the command, however it ends.
_ENTER = 'mount -t proc proc "$0/proc" && mount -t sysfs sysfs "$0/sys" && exec chroot "$@"'


def debian_root(target: Target, python: str, progress: Progress) -> Path:
    """Return a root folder with Debian for the board, made by debootstrap where there is none yet.

    Needs root and a network the first time (packages of this machine's own Debian mirror, kept for the next time).
    Raises ``FlashError``.
    """
    if python not in SUITES:
        raise FlashError(f"no Debian release has Python {python}: the self-test knows {', '.join(SUITES)}")
    suite = SUITES[python]
    folder = home() / "boards" / f"{target.name}-{suite}"
    if folder.is_dir():
        return folder
    packages = folder.parent / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    included = ",".join([*INCLUDED, *target.from_debian.values()])
    command = ["unshare", "--mount", "debootstrap", f"--arch={target.debian}", "--variant=minbase"]
    command += [f"--include={included}", f"--cache-dir={packages}", suite, str(fresh), _mirror()]
    log = folder.parent / f"{folder.name}.log"
    with (
        log.open("w", encoding="utf-8", buffering=1) as file,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as made,
    ):
        assert made.stdout is not None
        for number, line in enumerate(made.stdout):
            file.write(line)
            progress(f"Debian {suite} for {target.debian}", min(number, _LINES), _LINES)
    if made.returncode:
        raise FlashError(f"debootstrap failed, see {log}: is the Debian mirror of this machine reachable?")
    fresh.rename(folder)
    return folder


def check_tools(target: Target) -> None:
    """Raise ``FlashError`` where this machine cannot make or enter such a root."""
    if os.geteuid() != 0:
        raise FlashError("the self-test of a board needs root: it makes a Debian system in a folder and enters it")
    wanted = ["debootstrap", "unshare", *([f"{_QEMU[target.debian]}-static"] if _is_foreign(target) else [])]
    missing = [name for name in wanted if shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None]
    if missing:
        raise FlashError(f"not installed: {', '.join(missing)}. Install them with: sh tools/system_packages.sh arm64")


@contextmanager
def emulation(target: Target) -> Iterator[None]:
    """Let the kernel run the board's programs through qemu within the block; where it does already, nothing changes.

    A process of its own holds that up and takes it back when its standard input ends, so also when we are killed.
    """
    if not _is_foreign(target):
        yield
        return
    command = ["unshare", "--mount", "sh", "-ec", _HOLD, _QEMU[target.debian]]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as holder:
        assert holder.stdin is not None and holder.stdout is not None and holder.stderr is not None
        if not holder.stdout.readline():
            raise FlashError(f"the kernel does not take qemu for {target.debian}: {holder.stderr.read().strip()}")
        try:
            yield
        finally:
            holder.stdin.close()


def enter(root: Path, command: Sequence[str], *, user: str = "root", network: bool = True) -> list[str]:
    """Return the command that runs another inside the root, in its place: a signal reaches what runs there."""
    cut = [] if network else ["--net"]
    switch = [] if user == "root" else [f"--userspec={user}"]
    return ["unshare", "--mount", *cut, "sh", "-c", _ENTER, str(root), *switch, str(root), *command]


def _is_foreign(target: Target) -> bool:
    return platform.machine() != target.processor


def _mirror() -> str:
    """Return where this machine takes Debian's packages from."""
    command = [
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI) $(CODENAME)",
        "Created-By: Packages",
        "Origin: Debian",
    ]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise FlashError("apt does not say where Debian's packages are: the self-test runs on Debian") from error
    plain = [line.split()[0] for line in told.splitlines() if "-" not in line.split()[-1]]
    if not plain:
        raise FlashError("apt knows no mirror of Debian: the self-test runs on Debian, after apt-get update")
    return plain[0]
