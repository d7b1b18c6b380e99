"""What a bundle is: a signed manifest and the files it names; what a manifest may say, checked by both sides alike.

The signature covers the manifest's bytes as they are, and the manifest covers every file by size and hash. A device is
handed the manifest first and then the files' bytes one after the other, so it never opens an archive from afar.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

import dacite

from wire.channels import check_name
from wire.errors import WireError

FORMAT = 1
VERSION = "version"
"""The kind of bundle that brings one version of a model."""
SETTINGS = "settings"
"""The kind that lays settings over those a board was flashed with."""
CLIENT = "client"
"""The kind that brings another release of the client."""
ONLY_FILE = {SETTINGS: "settings.toml", CLIENT: "client.whl"}
"""What bundles of these kinds hold, and nothing else."""
OWN_FILES = frozenset({"manifest.json", "manifest.sig"})
MAX_FILES = 256
MAX_BYTES = 512 * 1024 * 1024
MAX_MANIFEST_BYTES = 96 * 1024
MAX_CHUNK_BYTES = 256 * 1024
GOLDEN = "golden.npz"
"""The file with inputs (``input-0``, …) and the outputs they must give (``output-0``, …), samples along axis 0."""

_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class BundleError(WireError):
    """A bundle is not what it says, or says what must not be."""


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of a bundle. Its path is a plain name: bundles have no folders, so nothing can climb out of one."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle holds and what it needs."""

    kind: str
    name: str
    """Of the version; of other kinds, for people."""
    created_s: int
    """Unix seconds; for people alone, no clock is trusted."""
    files: tuple[BundleFile, ...]
    sha256: str
    """Of the version's whole model: what the device's capabilities will tell. Of other kinds, of their file."""
    least_runtime: str = ""
    """Oldest release of tflite-runtime that knows every operator, such as ``2.14``; another runtime's with its name."""
    architectures: tuple[str, ...] = ()
    """As ``uname -m`` tells them; none: any."""
    tolerance: float = 0.0
    """How far the golden outputs may be missed: quantisation steps of integers, else absolute."""
    format: int = FORMAT

    def __post_init__(self) -> None:
        check_name(self.name, "bundle's version")
        if not 0 < len(self.files) <= MAX_FILES:
            raise BundleError(f"a bundle of {len(self.files)} files: allowed are 1 to {MAX_FILES}")
        if not 0 <= self.tolerance < 1e6:
            raise BundleError(f"tolerance is {self.tolerance}, allowed is 0 to 1e6")
        seen: set[str] = set()
        for file in self.files:
            if not _PATH.match(file.path) or file.path.lower() in OWN_FILES:
                raise BundleError(f"'{file.path[:120]}' cannot be a file of a bundle: a plain name is needed")
            if not _SHA256.match(file.sha256) or not 0 < file.size <= MAX_BYTES:
                raise BundleError(f"{file.path}: no sha256, or a size of {file.size}")
            if file.path.lower() in seen:
                raise BundleError(f"two files are called {file.path} where case does not matter")
            seen.add(file.path.lower())
        if self.size > MAX_BYTES:
            raise BundleError(f"the files take {self.size} bytes, allowed are {MAX_BYTES}")

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def slot(self) -> str:
        """What it takes the place of on a board: a version, or ``@settings`` or ``@client``, not names of versions."""
        return self.name if self.kind == VERSION else f"@{self.kind}"

    @property
    def restarts(self) -> bool:
        """Whether the client must start anew for it."""
        return self.kind != VERSION

    @property
    def bundle(self) -> str:
        """The bundle's id: the same files always have the same one, others another."""
        told = "".join(f"{file.path}:{file.sha256}\n" for file in self.files)
        return f"{self.name[:51]}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def manifest_bytes(manifest: Manifest) -> bytes:
    """Return what is signed."""
    return json.dumps(dataclasses.asdict(manifest), indent=1).encode()


def read_manifest(data: bytes) -> Manifest:
    """Return the manifest in bytes whose signature has been verified; raises ``BundleError``."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleError(f"a manifest of {len(data)} bytes: allowed are {MAX_MANIFEST_BYTES}")
    try:
        raw: Any = json.loads(data)
        if not isinstance(raw, dict):
            raise BundleError("the manifest is no table")
        if raw.get("format") != FORMAT:
            raise BundleError(f"bundle format {raw.get('format')!r}: this release reads {FORMAT}; update it first")
        return dacite.from_dict(Manifest, raw, dacite.Config(cast=[tuple], type_hooks={float: _number}))
    except BundleError:
        raise
    except (ValueError, TypeError, RecursionError, dacite.DaciteError) as error:
        raise BundleError(f"not a bundle's manifest: {error}") from error


def _number(value: Any) -> Any:
    return float(value) if type(value) is int else value
