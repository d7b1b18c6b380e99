"""Where the boot partition lies in the image of a card: the partition table of its first sector."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from tools.flash.errors import FlashError

SECTOR_BYTES = 512
TABLE, ENTRY_BYTES, ENTRIES = 446, 16, 4
SIGNATURE = b"\x55\xaa"
FAT = {0x01, 0x04, 0x06, 0x0B, 0x0C, 0x0E}
GPT = 0xEE


@dataclass(frozen=True, slots=True)
class Partition:
    """One entry of the table."""

    kind: int
    start_bytes: int
    size_bytes: int


def partitions(image: Path) -> list[Partition]:
    """Return the partitions of a card image or a card; raises ``FlashError`` for what has no such table.

    An entry is: status, first sector as cylinder-head-sector (3 bytes), kind, last sector likewise, then the first
    sector's number and the number of sectors as 32-bit little-endian.
    """
    try:
        with image.open("rb") as file:
            sector = file.read(SECTOR_BYTES)
    except OSError as error:
        raise FlashError(f"cannot read {image}: {error.strerror}") from error
    if sector[:2] in (b"\x1f\x8b", b"PK") or sector[:6] == b"\xfd7zXZ\x00":
        raise FlashError(f"{image} is compressed: unpack it first (unxz, gunzip, unzip)")
    if len(sector) < SECTOR_BYTES or sector[-2:] != SIGNATURE:
        raise FlashError(f"{image} is no image of a card: it has no partition table")
    found = []
    for place in range(TABLE, TABLE + ENTRIES * ENTRY_BYTES, ENTRY_BYTES):
        kind, first, count = struct.unpack_from("<4xB3xII", sector, place)
        if kind and count:
            found.append(Partition(kind, first * SECTOR_BYTES, count * SECTOR_BYTES))
    return found


def boot_partition(image: Path) -> Partition:
    """Return the first FAT partition; raises ``FlashError`` where there is none."""
    found = partitions(image)
    if any(partition.kind == GPT for partition in found):
        raise FlashError(f"{image} has a GPT partition table: use an image of Raspberry Pi OS, or --out and copy it")
    for partition in found:
        if partition.kind in FAT:
            return partition
    raise FlashError(f"{image} has no FAT boot partition: use an image of Raspberry Pi OS, or --out and copy it")
