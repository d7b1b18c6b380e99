"""Bundles for tests: signed by the system's openssl, apart from the program's own maker."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tests.device_client.stores import classifier, picture, write_version
from tflite_models.catalog import load_folder
from tflite_models.runtime import Submodel
from wire.bundle import GOLDEN, BundleFile, Manifest, manifest_bytes
from wire.messages import Update


@dataclass
class Site:
    """Who signs."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._openssl("genpkey", "-algorithm", "ed25519", "-out", str(self._private))
        self._openssl("pkey", "-in", str(self._private), "-pubout", "-out", str(self.public))

    @property
    def _private(self) -> Path:
        return self.folder / "private.pem"

    @property
    def public(self) -> Path:
        return self.folder / "public.pem"

    def sign(self, data: bytes) -> bytes:
        said, signed = self.folder / "said", self.folder / "signed"
        said.write_bytes(data)
        self._openssl("pkeyutl", "-sign", "-rawin", "-inkey", str(self._private), "-in", str(said), "-out", str(signed))
        return signed.read_bytes()

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@dataclass
class Made:
    """A bundle as the wire carries it."""

    manifest: Manifest
    payload: bytes
    signature: bytes

    @cached_property
    def said(self) -> bytes:
        return manifest_bytes(self.manifest)

    def update(self, rev: int = 1, frames: int = 3, **changes: Any) -> Update:
        told = Update(rev, self.manifest.bundle, self.said, self.signature, frames)
        return dataclasses.replace(told, **changes)


def bundle_of(site: Site, contents: Mapping[str, bytes], **changes: Any) -> Made:
    """Sign these files as a bundle of ``tiny``; ``changes`` go into the manifest."""
    files = tuple(BundleFile(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in contents.items())
    sha256 = json.loads(contents["version.json"])["sha256"] if "version.json" in contents else "0" * 64
    usual: dict[str, Any] = {
        "kind": "version", "name": "tiny", "created_s": 1_790_000_000, "files": files, "sha256": sha256,
        "least_runtime": "2.14", "tolerance": 1e-4,
    }  # fmt: skip
    manifest = Manifest(**{**usual, **changes})
    return Made(manifest, b"".join(contents.values()), site.sign(manifest_bytes(manifest)))


def contents_of(folder: Path, seed: int, *, golden_off: float = 0.0) -> dict[str, bytes]:
    """Make version ``tiny`` anew with other weights, and return the files of its bundle."""
    shutil.rmtree(folder, ignore_errors=True)
    write_version(folder, "tiny", classifier(4, seed=seed))
    made = load_folder(folder / "tiny")
    inputs = np.stack([picture(number) for number in (1, 2)])
    model = Submodel(made.model)
    outputs = np.concatenate([model.run(inputs[n : n + 1])[0] for n in range(2)]) + np.float32(golden_off)
    np.savez(made.path / GOLDEN, **{"input-0": inputs, "output-0": outputs})
    names = ["version.json", "model.tflite", "conv.head.tflite", GOLDEN]
    return {name: (made.path / name).read_bytes() for name in names}
