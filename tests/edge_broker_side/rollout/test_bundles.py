"""Bundle files: what was signed comes out of them piece by piece, and what was not is refused in words."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_client.updates.selftest import check
from device_client.updates.signature import verify
from edge_broker_side.identity.signing import Signer, private_key_path, public_key_path
from edge_broker_side.rollout.bundles import Bundle, BundleFileError, make_bundle
from tests.device_client.stores import classifier, picture, write_version
from tflite_models.catalog import CatalogError, ModelFolder, load_folder
from wire.bundle import BundleError

PICTURES = np.stack([picture(number) for number in range(3)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    root = tmp_path_factory.mktemp("models")
    write_version(root, "tiny", classifier(4, seed=5))
    return load_folder(root / "tiny")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("site")
    Signer.of_site(where)
    return where


@pytest.fixture(scope="module")
def path(folder: ModelFolder, site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(folder, [PICTURES], tmp_path_factory.mktemp("out"), Signer.of_site(site), 1_790_000_000)


@pytest.fixture(scope="module")
def key(site: Path) -> bytes:
    return public_key_path(site).read_bytes()


def test_a_bundle_holds_what_a_device_needs_and_a_device_believes_it(
    path: Path, key: bytes, site: Path, folder: ModelFolder, tmp_path: Path
) -> None:
    bundle = Bundle(path, key)
    bundle.verify_files()
    assert path.stem == bundle.manifest.bundle
    assert [f.path for f in bundle.manifest.files] == ["version.json", "model.tflite", "conv.head.tflite", "golden.npz"]
    assert (bundle.manifest.sha256, bundle.manifest.least_runtime) == (folder.version.sha256, "2.14")
    verify(public_key_path(site), bundle.manifest_bytes, bundle.signature)  # openssl agrees with cryptography
    at = 0
    for file in bundle.manifest.files:
        (tmp_path / file.path).write_bytes(bundle.read(at, file.size))
        at += file.size
    for runtime in ("tflite-runtime", "ai-edge-litert"):
        assert check(load_folder(tmp_path), bundle.manifest.tolerance, runtime=runtime) == 3


def test_the_same_version_is_the_same_bundle_whenever_it_is_made(
    path: Path, folder: ModelFolder, site: Path, tmp_path: Path
) -> None:
    again = make_bundle(folder, [PICTURES], tmp_path, Signer.of_site(site), 1_800_000_000)
    assert again.name == path.name


@given(st.integers(0, 60_000), st.integers(-5, 70_000))
def test_any_piece_is_that_piece_of_the_files_one_after_the_other(
    path: Path, key: bytes, offset: int, length: int
) -> None:
    bundle = Bundle(path, key)
    whole = bundle.read(0, bundle.manifest.size)
    assert len(whole) == bundle.manifest.size
    assert bundle.read(offset, length) == whole[offset : offset + max(0, length)]


def test_the_private_key_is_its_owners_alone_and_stays_the_same(site: Path) -> None:
    assert private_key_path(site).stat().st_mode & 0o777 == 0o600
    assert Signer.of_site(site).public_pem() == public_key_path(site).read_bytes()
    assert "PRIVATE" not in f"{Signer.of_site(site)!r}" and b"PRIVATE" not in public_key_path(site).read_bytes()


Member = tuple[str, bytes, bytes]
Spoil = Callable[[list[Member]], list[Member]]


def _renamed(old: str, new: str) -> Spoil:
    return lambda members: [(new if name == old else name, data, kind) for name, data, kind in members]


def _changed(which: str, change: Callable[[bytes], bytes]) -> Spoil:
    return lambda members: [(name, change(data) if name == which else data, kind) for name, data, kind in members]


SPOILED: dict[str, tuple[Spoil, str]] = {
    "unsigned": (lambda members: [m for m in members if m[0] != "manifest.sig"], "no proper manifest.sig"),
    "no manifest": (lambda members: members[1:], "no proper manifest.json"),
    "tampered manifest": (_changed("manifest.json", lambda data: data + b" "), "not signed by this site"),
    "signature of nothing": (_changed("manifest.sig", lambda _: bytes(64)), "not signed by this site"),
    "short signature": (_changed("manifest.sig", lambda data: data[:10]), "not signed by this site"),
    "file longer": (_changed("model.tflite", lambda data: data + b"x"), "does not hold the files"),
    "file missing": (lambda members: members[:-1], "does not hold the files"),
    "climbing": (_renamed("model.tflite", "../model.tflite"), "does not hold the files"),
    "absolute": (_renamed("model.tflite", "/tmp/model.tflite"), "does not hold the files"),
    "one too many": (lambda members: [*members, ("extra", b"x", tarfile.REGTYPE)], "does not hold the files"),
    "a link": (lambda members: [*members, ("link", b"", tarfile.SYMTYPE)], "does not hold the files"),
    "twice": (lambda members: [*members, members[0]], "no proper manifest.json"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_spoiled_bundle_is_refused(path: Path, key: bytes, tmp_path: Path, case: str) -> None:
    spoil, words = SPOILED[case]
    with tarfile.open(path) as tar:
        members = [(m.name, (tar.extractfile(m) or io.BytesIO()).read(), m.type) for m in tar.getmembers()]
    with tarfile.open(tmp_path / "spoiled.tar", "w") as tar:
        for name, data, kind in spoil(members):
            info = tarfile.TarInfo(name)
            info.size, info.type = len(data), kind
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(BundleError, match=words):
        Bundle(tmp_path / "spoiled.tar", key)


def test_a_file_of_the_right_size_and_other_bytes_is_found(path: Path, key: bytes, tmp_path: Path) -> None:
    data = bytearray(path.read_bytes())
    place = data.index(b"TFL3")
    data[place + 100] ^= 1
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(BundleError, match=r"model.tflite in .* is not what the manifest says"):
        Bundle(tmp_path / "x.tar", key).verify_files()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.75, 1.0])
def test_a_truncated_bundle_is_refused(path: Path, key: bytes, tmp_path: Path, share: float) -> None:
    """Behind the last byte of the last file comes padding alone; the cut is before that byte."""
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    end = last.offset_data + last.size
    (tmp_path / "x.tar").write_bytes(path.read_bytes()[: int((end - 1) * share)])
    with pytest.raises(BundleError):
        Bundle(tmp_path / "x.tar", key)


def test_what_another_site_signed_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not signed by this site"):
        Bundle(path, Signer.of_site(tmp_path).public_pem())


def test_a_version_without_heads_or_samples_makes_no_bundle(folder: ModelFolder, site: Path, tmp_path: Path) -> None:
    signer = Signer.of_site(site)
    with pytest.raises(BundleFileError, match="no golden samples"):
        make_bundle(folder, [PICTURES[:0]], tmp_path, signer, 0)
    write_version(tmp_path / "bare", "tiny", classifier(4, seed=5), heads=False)
    with pytest.raises(CatalogError, match="prepare the version with its heads first"):
        make_bundle(load_folder(tmp_path / "bare" / "tiny"), [PICTURES], tmp_path, signer, 0)


def test_the_manifest_is_plain_json(path: Path, key: bytes) -> None:
    told: dict[str, Any] = json.loads(Bundle(path, key).manifest_bytes)
    assert told["format"] == 1 and told["kind"] == "version" and told["name"] == "tiny"
