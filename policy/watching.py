"""Notices that a file has changed and swaps in what was made of it; what cannot be used leaves the old."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
EVERY_S = 2.0

Signature = tuple[int, int, int]


class HotFile(Generic[T]):
    """What ``load`` makes of a file; looked for again when its time, size or inode changes.

    ``load`` raises a ``ValueError`` (``PolicyError`` is one) or ``OSError`` for a file it cannot use.
    """

    def __init__(self, path: Path, load: Callable[[Path], T], every_s: float | None = None) -> None:
        self.value: T | None = None
        """``None`` until a file could be used."""
        self.problem = ""
        """Why the file as it is now is not used; empty when it is."""
        self.sha256 = ""
        """Of the file in use."""
        self.loaded = 0
        self.refused = 0
        self._path = path
        self._load = load
        self._every_s = EVERY_S if every_s is None else every_s
        self._seen: Signature | None = None
        self._look_s: float | None = None

    def look(self, now_s: float) -> bool:
        """Load the file if it is time and it has changed; return whether ``value`` is new."""
        if self._look_s is not None and now_s < self._look_s:
            return False
        self._look_s = now_s + self._every_s
        try:
            signature = _signature(self._path)
            if signature == self._seen:
                return False
            self._seen = signature
            data = self._path.read_bytes()
            value = self._load(self._path)
        except (ValueError, OSError) as error:
            problem = f"cannot read {self._path}: {error.strerror}" if isinstance(error, OSError) else str(error)
            if isinstance(error, OSError):
                self._seen = None
            if problem != self.problem:
                self.problem, self.refused = problem, self.refused + 1
                log.error("%s; %s", problem, "the last good one stays" if self.loaded else "nothing is loaded")
            return False
        self.value, self.problem, self.sha256 = value, "", hashlib.sha256(data).hexdigest()
        self.loaded += 1
        return True


def _signature(path: Path) -> Signature:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
