"""Where a flashed board takes its frames: the sample pack that goes along, a folder of pictures, or a V4L2 camera."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from tflite_models.pack import balanced, load_pack, shipped_pack, write_pack
from tools.flash.errors import FlashError
from tools.flash.paths import FRAMES

SAMPLES_PER_CLASS = 6
"""Frames of the sample pack: about 1 MB, enough to see that a board classifies."""


@dataclass(frozen=True, slots=True)
class CameraChoice:
    """What ``--camera`` says."""

    text: str

    def __post_init__(self) -> None:
        """Raises ``FlashError`` for what is neither ``pack`` nor an absolute path of plain characters."""
        plain = self.text.startswith("/") and self.text.isascii() and self.text.isprintable()
        if self.text != "pack" and (not plain or set(self.text) & set("\"'\\$`|& ")):
            raise FlashError(
                f"--camera {self.text}: say pack, /dev/video0 (or another), or the absolute path of a folder"
            )

    @property
    def is_v4l2(self) -> bool:
        """Whether it is a video device, which needs a package more."""
        return self.text.startswith("/dev/")

    @property
    def pictures(self) -> str:
        """The folder that must be there, or nothing."""
        return "" if self.text == "pack" or self.is_v4l2 else str(PurePosixPath(self.text))

    def settings(self) -> dict[str, Any]:
        """Return the table ``[camera]``."""
        if self.text == "pack":
            return {"kind": "pack", "path": FRAMES}
        return {"kind": "v4l2" if self.is_v4l2 else "folder", "path": self.text}


@cache
def sample_pack() -> bytes:
    """Return a small pack with as many frames of each class, always the same bytes."""
    frames, labels, names = load_pack(shipped_pack())
    places = balanced(labels, SAMPLES_PER_CLASS)
    pack = io.BytesIO()  # numpy does not close a file that it could not write to its end
    write_pack(pack, frames[places], labels[places], names)
    return pack.getvalue()
