"""Bundle files: made of a version's folder and signed; opened, verified, and read a piece at a time.

A bundle file is an uncompressed tar: `tar tvf` lists it, and any byte of it is read without reading what lies before.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edge_broker_side.errors import EdgeError
from edge_broker_side.identity.signing import Signer, is_signed
from tflite_models.activation import Array
from tflite_models.catalog import MANIFEST as VERSION_FILE
from tflite_models.catalog import MODEL, CatalogError, ModelFolder, Version
from tflite_models.runtime import Submodel
from wire.bundle import (
    GOLDEN,
    MAX_BYTES,
    MAX_MANIFEST_BYTES,
    ONLY_FILE,
    VERSION,
    BundleError,
    BundleFile,
    Manifest,
    manifest_bytes,
    read_manifest,
)
from wire.plan import INPUT, OUTPUT

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
FLOAT_TOLERANCE = 0.01
"""Of scores between 0 and 1: runtimes and processors sum in other orders."""
INTEGER_TOLERANCE = 2.0
"""Quantisation steps."""


class BundleFileError(EdgeError):
    """A bundle file cannot be made or used."""


def make_bundle(
    folder: ModelFolder,
    inputs: Sequence[Array],
    out: Path,
    signer: Signer,
    created_s: int,
    *,
    architectures: Sequence[str] = (),
    tolerance: float | None = None,
    runtime: str | None = None,
) -> Path:
    """Sign a version with its heads and golden samples; return the file, named by the bundle's id, in ``out``.

    ``inputs`` has an array per input of the model, samples along the first axis; what they give here is what they must
    give on every board. Raises ``ModelsError`` or ``BundleError``.
    """
    version = folder.version
    paths = {VERSION_FILE: folder.path / VERSION_FILE, MODEL: folder.model}
    for cut in version.cuts:
        if cut.name not in (INPUT, OUTPUT):
            head = folder.head(cut.name)
            if not head.is_file():
                raise CatalogError(f"{head} is missing: prepare the version with its heads first")
            paths[head.name] = head
    contents = {name: path.read_bytes() for name, path in paths.items()}
    contents[GOLDEN] = _golden(folder, inputs, runtime)
    files = [BundleFile(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in contents.items()]
    manifest = Manifest(
        VERSION, version.name, created_s, tuple(files), version.sha256, version.least_runtime, tuple(architectures),
        _usual_tolerance(version) if tolerance is None else tolerance,
    )  # fmt: skip
    return _write(out, manifest, contents, signer)


def make_file_bundle(kind: str, data: bytes, out: Path, signer: Signer, created_s: int) -> Path:
    """Sign settings or a client release, ``kind`` says which; return the file, named by the bundle's id, in ``out``."""
    sha256 = hashlib.sha256(data).hexdigest()
    file = BundleFile(ONLY_FILE[kind], sha256, len(data))
    manifest = Manifest(kind, kind, created_s, (file,), sha256)
    return _write(out, manifest, {file.path: data}, signer)


def _write(out: Path, manifest: Manifest, contents: Mapping[str, bytes], signer: Signer) -> Path:
    said = manifest_bytes(manifest)
    read_manifest(said)  # what a board would refuse is refused here
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{manifest.bundle}.tar"
    unfinished = path.with_name(f".{path.name}.new")
    with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in {MANIFEST: said, SIGNATURE: signer.sign(said), **contents}.items():
            _add(tar, name, data, manifest.created_s)
    unfinished.replace(path)
    return path


def _usual_tolerance(version: Version) -> float:
    return FLOAT_TOLERANCE if all(spec.dtype.startswith("float") for spec in version.outputs) else INTEGER_TOLERANCE


def _golden(folder: ModelFolder, inputs: Sequence[Array], runtime: str | None) -> bytes:
    model = Submodel(folder.model, prefer="fast", runtime=runtime)
    if not inputs or not len(inputs[0]):
        raise BundleFileError("no golden samples: a board could not prove that the version works there")
    answers = [model.run(*(array[sample : sample + 1] for array in inputs)) for sample in range(len(inputs[0]))]
    arrays = {f"input-{number}": array for number, array in enumerate(inputs)}
    for number in range(len(answers[0])):
        arrays[f"output-{number}"] = np.concatenate([answer[number] for answer in answers])
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, created_s: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = len(data), created_s, 0o644
    tar.addfile(member, io.BytesIO(data))


class Bundle:
    """An opened bundle file whose signature, names and sizes are right; hashes are checked by ``verify_files``."""

    def __init__(self, path: Path, public_pem: bytes) -> None:
        """Raises ``BundleError`` for what is no bundle of this site, ``OSError``."""
        self.path = path
        try:
            with tarfile.open(path, "r:") as tar:
                members = tar.getmembers()
                self.manifest_bytes = _read(path, tar, members, MANIFEST, MAX_MANIFEST_BYTES)
                self.signature = _read(path, tar, members, SIGNATURE, 1024)
        except (tarfile.TarError, EOFError) as error:
            raise BundleError(f"{path} is not a bundle, or only a part of one: {error}") from error
        if not is_signed(public_pem, self.manifest_bytes, self.signature):
            raise BundleError(f"{path} is not signed by this site: tampered with, or of another site")
        self.manifest = read_manifest(self.manifest_bytes)
        self._places = _places(path, members, self.manifest)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the files as they follow each other in the manifest; fewer at their end. ``OSError``."""
        parts, end = [], 0
        with self.path.open("rb") as file:
            for place, size in self._places:
                start, end = end, end + size
                if start <= offset < end and length > 0:
                    file.seek(place + offset - start)
                    part = file.read(min(length, end - offset))
                    parts.append(part)
                    offset, length = offset + len(part), length - len(part)
        return b"".join(parts)

    def verify_files(self) -> None:
        """Raise ``BundleError`` unless every file has the hash that the manifest says."""
        at = 0
        for file in self.manifest.files:
            if hashlib.sha256(self.read(at, file.size)).hexdigest() != file.sha256:
                raise BundleError(f"{file.path} in {self.path} is not what the manifest says (sha256 differs)")
            at += file.size


def _read(path: Path, tar: tarfile.TarFile, members: Sequence[tarfile.TarInfo], name: str, most: int) -> bytes:
    found = [member for member in members if member.name == name]
    if len(found) != 1 or not _plain(found[0]) or found[0].size > most:
        raise BundleError(f"{path} has no proper {name}: it is no bundle, or not signed")
    file = tar.extractfile(found[0])
    return b"" if file is None else file.read()


def _places(path: Path, members: Sequence[tarfile.TarInfo], manifest: Manifest) -> list[tuple[int, int]]:
    """Return place in the archive and size of each file of the manifest, refusing anything that is not in it."""
    rest = [member for member in members if member.name not in (MANIFEST, SIGNATURE)]
    found = [(member.name, member.size) for member in rest if _plain(member)]
    promised = [(file.path, file.size) for file in manifest.files]
    if found != promised or len(rest) != len(found):
        raise BundleError(f"{path} does not hold the files that its manifest names, and only these")
    if path.stat().st_size > MAX_BYTES + 2 * MAX_MANIFEST_BYTES + 1024 * (len(members) + 20):
        raise BundleError(f"{path} is larger than a bundle may be")
    return [(member.offset_data, member.size) for member in rest]


def _plain(member: tarfile.TarInfo) -> bool:
    return member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
