"""Every change an update makes to the disk, one durable step each, so that tests can cut the power at any of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


class Files:
    """The file system. A step that has returned has reached the disk; ``OSError`` passes through."""

    def write(self, path: Path, offset: int, data: bytes) -> None:
        """Put bytes at a place of a file and cut it off behind them; at place 0 the file is made."""
        with path.open("r+b" if offset else "wb") as file:
            file.truncate(offset)
            file.seek(offset)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def replace(self, path: Path, data: bytes) -> None:
        """Put a whole file in place of an older one, or none."""
        new = path.with_name(f".{path.name}.new")
        self.write(new, 0, data)
        self.rename(new, path)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or folder another place in the same file system."""
        source.replace(target)
        for folder in {source.parent, target.parent}:
            self.sync_folder(folder)

    def make_folder(self, path: Path) -> None:
        """Make a folder, and those above it."""
        path.mkdir(parents=True, exist_ok=True)
        self.sync_folder(path.parent)

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder last."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def remove(self, path: Path) -> None:
        """Remove a file or a folder with all that is in it; nothing there is as good."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def free_bytes(self, path: Path) -> int:
        """Return what a process without privileges may still write."""
        told = os.statvfs(path)
        return told.f_bavail * told.f_frsize
