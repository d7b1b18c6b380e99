"""Whether a board may take a bundle at all, and whether the new version served as well as the one before. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from wire.bundle import GOLDEN, ONLY_FILE, VERSION, Manifest

LIGHT = "tflite-runtime"


@dataclass(frozen=True, slots=True)
class Board:
    """What decides about bundles on this board."""

    machine: str
    """As ``uname -m`` tells it."""
    runtime: str
    """Name and release of its interpreter, such as ``tflite-runtime 2.14.0``."""


def unfit(manifest: Manifest, board: Board) -> str | None:
    """Return why this board cannot use a bundle, or ``None``."""
    names = {file.path for file in manifest.files}
    if manifest.kind != VERSION and manifest.kind not in ONLY_FILE:
        return f"a bundle of kind '{manifest.kind}': this client takes {', '.join((VERSION, *ONLY_FILE))}"
    if manifest.architectures and board.machine not in manifest.architectures:
        return f"the bundle is for {', '.join(manifest.architectures)}, this board is {board.machine}"
    if manifest.kind in ONLY_FILE and names != {ONLY_FILE[manifest.kind]}:
        return f"a bundle of kind '{manifest.kind}' holds {ONLY_FILE[manifest.kind]} alone, this one {', '.join(names)}"
    if manifest.kind == VERSION and GOLDEN not in names:
        return f"the bundle brings no {GOLDEN}, so nothing shows that it works here"
    if not _runs(manifest.least_runtime, board.runtime):
        return f"the model needs runtime {manifest.least_runtime}, this board has {board.runtime}"
    return None


def _runs(least: str, have: str) -> bool:
    """A bare release is one of tflite-runtime, whose operators every ai-edge-litert knows."""
    name, release = [LIGHT, *least.split()][-2:] if least else ("", "")
    own, own_release = [*have.split(), ""][:2]
    if not least or (name == LIGHT and own != LIGHT):
        return True
    return name == own and _numbers(own_release) >= _numbers(release)


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release))


class Trial:
    """Frames of a version that is being tried out."""

    def __init__(self, frames: int, failed_before: float, began_s: float, limit_s: float) -> None:
        """``failed_before``: share of frames that models failed at before."""
        self._frames = max(1, frames)
        self._allowed = int(failed_before * self._frames)
        self._failed_before = failed_before
        self._until_s = began_s + limit_s
        self._limit_s = limit_s
        self.served = 0
        self.failed = 0

    def note(self, *, ok: bool) -> None:
        """Count a frame."""
        self.served += 1
        self.failed += not ok

    def verdict(self, now_s: float, *, online: bool = True) -> str | None:
        """Return ``None`` while it goes on, an empty text to keep what is on trial, else why to leave it.

        What could have cost the board its broker is kept only while it is ``online``.
        """
        if self.failed > self._allowed:
            before = f"{100 * self._failed_before:.0f} % before"
            return f"{self.failed} of {self.served} frames failed in the model, {before}"
        if self.served >= self._frames and online:
            return ""
        if now_s >= self._until_s and not online:
            return f"the broker was not reached in {self._limit_s:.0f} s"
        if now_s >= self._until_s:
            return f"only {self.served} of {self._frames} frames came in {self._limit_s:.0f} s"
        return None
