"""Files that training goes on from: arrays and a JSON header in one .npz, never pickled, replaced in one step."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.errors import PolicyError

FORMAT = 1
"""Raised when a file of today could not be read by the code of yesterday, or the other way round."""
_HEADER = "header"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Arrays by name, and whatever else JSON can hold."""

    arrays: Mapping[str, NDArray[Any]]
    header: Mapping[str, Any]

    def below(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the arrays whose names start with ``prefix/``, by the rest of their names."""
        return {name[len(prefix) + 1 :]: a for name, a in self.arrays.items() if name.startswith(f"{prefix}/")}


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the file; whoever reads meanwhile sees the old one or the new one, whole. The same content, same bytes."""
    header = json.dumps({"format": FORMAT, **checkpoint.header}, sort_keys=True)
    arrays = {_HEADER: np.frombuffer(header.encode(), np.uint8), **checkpoint.arrays}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load_checkpoint(path: Path) -> Checkpoint:
    """Read the file; raise ``PolicyError`` where it is not one of ours, is cut off, or is of another format."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(arrays.pop(_HEADER).tobytes())
        written = header.pop("format")
    except (ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise PolicyError(f"{path} is no checkpoint, or is damaged ({error}): use another, or train anew") from error
    if written != FORMAT:
        raise PolicyError(f"{path} has checkpoint format {written}, this version reads {FORMAT}: train anew")
    return Checkpoint(arrays, header)
