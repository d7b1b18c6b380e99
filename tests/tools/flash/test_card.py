"""A bundle on the boot partition of a card image, which is made here as Raspberry Pi's are laid out."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.tools.flash.conftest import contents
from tools.flash.bundle import Bundle
from tools.flash.card import RUN, put_on_card, with_first_run
from tools.flash.errors import FlashError
from tools.flash.mbr import Partition, boot_partition, partitions

START = 8192
LINE = "console=serial0,115200 console=tty1 root=PARTUUID=4e639091-02 rootfstype=ext4 fsck.repair=yes rootwait quiet"


def mtools(image: Path, command: str, *arguments: str) -> str:
    line = [command, "-i", f"{image}@@{START * 512}", *arguments]
    return subprocess.run(
        line, check=True, capture_output=True, text=True, env={**os.environ, "MTOOLS_SKIP_CHECK": "1"}
    ).stdout


def table(*entries: tuple[int, int, int]) -> bytes:
    """Return a first sector with entries of (kind, first sector, sectors)."""
    rows = b"".join(
        struct.pack("<B3sB3sII", 0, b"\0\0\0", kind, b"\0\0\0", first, count) for kind, first, count in entries
    )
    return b"\0" * 446 + rows.ljust(64, b"\0") + b"\x55\xaa"


def make_card(path: Path, megabytes: int = 32, **files: str) -> Path:
    """Make an image with a FAT boot partition that holds these text files, and an empty second partition."""
    sectors = megabytes * 2048
    path.write_bytes(table((0x0C, START, sectors), (0x83, START + sectors, 2048)))
    with path.open("r+b") as file:
        file.truncate((START + sectors + 2048) * 512)
    mtools(path, "mformat", "-T", str(sectors), "-h", "64", "-s", "32", "-v", "bootfs", "::")
    for name, text in files.items():
        source = path.parent / "source"
        source.write_text(text)
        mtools(path, "mcopy", str(source), f"::/{name.replace('_', '.')}")
        source.unlink()
    return path


def unpacked(image: Path, folder: Path) -> Path:
    """Return a folder with what the boot partition holds."""
    folder.mkdir()
    mtools(image, "mcopy", "-s", "-n", "::/*", str(folder))
    return folder


def test_the_boot_partition_holds_the_bundle_and_the_call(bundle: Bundle, tmp_path: Path) -> None:
    image = make_card(tmp_path / "card.img", cmdline_txt=LINE + "\n", config_txt="arm_64bit=1\n")
    found = put_on_card(bundle, image)
    assert found == Partition(0x0C, START * 512, 32 * 2**20)
    boot = unpacked(image, tmp_path / "boot")
    assert {path.name for path in boot.iterdir()} == {"cmdline.txt", "config.txt", "firstrun.sh", "splitfleet"}
    assert (boot / "cmdline.txt").read_text() == f"{LINE} {RUN}\n"
    assert contents(boot / "splitfleet") == contents(bundle.folder)
    assert (boot / "firstrun.sh").read_bytes() == (bundle.folder / "firstrun.sh").read_bytes()
    with image.open("rb") as file:
        file.seek((START + 32 * 2048) * 512)
        assert not any(file.read()), "the second partition was touched"


def test_a_second_time_replaces_the_first(bundle: Bundle, tmp_path: Path) -> None:
    image = make_card(tmp_path / "card.img", cmdline_txt=LINE)
    put_on_card(bundle, image)
    mtools(image, "mcopy", "/dev/null", "::/splitfleet/left-over")
    put_on_card(bundle, image)
    boot = unpacked(image, tmp_path / "boot")
    assert (boot / "cmdline.txt").read_text() == f"{LINE} {RUN}\n"
    assert not (boot / "splitfleet" / "left-over").exists()


def test_what_the_imager_has_put_there_runs_too(bundle: Bundle, tmp_path: Path) -> None:
    imager = "#!/bin/bash\n\nset +e\necho plant-cam >/etc/hostname\nrm -f /boot/firstrun.sh\nexit 0\n"
    line = f"{LINE} {RUN.replace('/boot/firmware/', '/boot/')}"
    image = make_card(tmp_path / "card.img", cmdline_txt=line, firstrun_sh=imager)
    for _ in range(2):
        put_on_card(bundle, image)
    text = mtools(image, "mtype", "::/firstrun.sh")
    call = 'sh "$(dirname "$0")/splitfleet/first-boot.sh"\n'
    assert text.replace("\r", "") == imager.replace("#!/bin/bash\n", f"#!/bin/bash\n{call}")
    assert mtools(image, "mtype", "::/cmdline.txt").strip() == f"{LINE} {RUN}"


def test_the_first_boot_script_cleans_up_and_keeps_what_failed(bundle: Bundle, tmp_path: Path) -> None:
    """The packages of this bundle are empty, so that installing fails; that it succeeds: tests/e2e/test_flash.py."""
    image = make_card(tmp_path / "card.img", cmdline_txt=LINE)
    put_on_card(bundle, image)
    boot = unpacked(image, tmp_path / "boot")
    environment = {**os.environ, "SPLITFLEET_PREFIX": str(tmp_path / "board")}
    subprocess.run(["sh", str(boot / "firstrun.sh")], env=environment, check=True)
    assert (boot / "cmdline.txt").read_text() == f"{LINE}\n"
    assert not (boot / "firstrun.sh").exists()
    assert "pip could not install the packages" in (boot / "splitfleet.log").read_text()
    assert (boot / "splitfleet" / "install.sh").exists(), "nothing is left to try again with"


def test_a_first_boot_that_lost_its_power_is_made_again(bundle: Bundle, tmp_path: Path) -> None:
    boot = tmp_path / "boot"
    shutil.copytree(bundle.folder, boot / "splitfleet")
    shutil.copy(bundle.folder / "firstrun.sh", boot)
    (boot / "cmdline.txt").write_text(f"{LINE} {RUN}\n")
    installer = boot / "splitfleet" / "install.sh"

    installer.write_text("kill -9 0\n")  # everything that runs in this session
    done = subprocess.run(["sh", str(boot / "firstrun.sh")], start_new_session=True, check=False)
    assert done.returncode == -9
    assert (boot / "cmdline.txt").read_text() == f"{LINE} {RUN}\n" and (boot / "firstrun.sh").exists()

    installer.write_text("exit 0\n")
    cut = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    (tmp_path / "rm").write_text(f"#!/bin/sh\n/bin/rm {boot}/splitfleet/bundle.env\nkill -9 0\n")
    (tmp_path / "rm").chmod(0o755)
    done = subprocess.run(["sh", str(boot / "firstrun.sh")], env=cut, start_new_session=True, check=False)
    assert done.returncode == -9 and list((boot / "splitfleet").rglob("*key.pem"))
    assert (boot / "cmdline.txt").read_text() == f"{LINE} {RUN}\n"

    installer.write_text("exit 2\n")  # as it would say of half a bundle
    subprocess.run(["sh", str(boot / "firstrun.sh")], start_new_session=True, check=True)
    assert {path.name for path in boot.iterdir()} == {"cmdline.txt", "splitfleet.log"}, "the key was left behind"
    assert (boot / "cmdline.txt").read_text() == f"{LINE}\n"


def test_a_full_card(bundle: Bundle, tmp_path: Path) -> None:
    image = make_card(tmp_path / "card.img", megabytes=1, cmdline_txt=LINE)
    with pytest.raises(FlashError, match=r"cannot write to the boot partition.*(full|space)"):
        put_on_card(bundle, image)
    assert mtools(image, "mtype", "::/cmdline.txt").strip() == LINE, "it would boot into half of a bundle"


def test_a_card_without_a_system(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(FlashError, match=r"has no cmdline\.txt"):
        put_on_card(bundle, make_card(tmp_path / "card.img"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no image of a card"),
        (b"x" * 512, "no partition table"),
        (b"\x1f\x8b" + b"\0" * 600, "compressed"),
        (b"\xfd7zXZ\x00" + b"\0" * 600, "unxz"),
        (table((0xEE, 1, 99)), "GPT"),
        (table((0x83, 1, 99)), "no FAT boot partition"),
        (table(), "no FAT boot partition"),
    ],
)
def test_what_is_no_card(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(content)
    with pytest.raises(FlashError, match=words):
        boot_partition(path)


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(FlashError, match="No such file"):
        boot_partition(tmp_path / "missing.img")


def test_partitions_are_read_as_documented(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(table((0x0C, 8192, 1048576), (0, 0, 0), (0x83, 1056768, 4000000)))
    assert partitions(path) == [
        Partition(0x0C, 4194304, 536870912),
        Partition(0x83, 541065216, 2048000000),
    ]


def test_the_command_line_keeps_what_is_not_ours() -> None:
    assert with_first_run("a=1 systemd.unit=rescue.target b") == f"a=1 b {RUN}\n"
    assert with_first_run(with_first_run("a")) == f"a {RUN}\n"
