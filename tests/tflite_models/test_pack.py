"""Packs of labelled frames: written without loss, read with suspicion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tflite_models.pack import PackError, balanced, load_pack, shipped_pack, write_pack


def test_what_is_written_is_read(tmp_path: Path) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (5, 12, 10, 3), dtype=np.uint8)
    labels = np.array([0, 2, 1, 1, 0], np.uint8)
    path = tmp_path / "pack.npz"
    write_pack(path, frames, labels, ["cup", "bolt", "nut"])
    again, labels_again, names = load_pack(path)
    np.testing.assert_array_equal(again, frames)
    np.testing.assert_array_equal(labels_again, labels)
    assert names == ("cup", "bolt", "nut")


def test_the_shipped_pack_has_as_many_frames_of_every_class() -> None:
    frames, labels, names = load_pack(shipped_pack())
    assert frames.shape[1:] == (96, 96, 3) and frames.dtype == np.uint8
    assert len(set(np.bincount(labels, minlength=len(names)))) == 1
    assert shipped_pack().stat().st_size < 7_000_000


def test_balanced_takes_the_first_of_each_class_in_order() -> None:
    labels = np.array([1, 1, 0, 1, 0, 0, 2, 2], np.uint8)
    np.testing.assert_array_equal(balanced(labels, 2), [0, 1, 2, 4, 6, 7])


@pytest.mark.parametrize("content", [b"", b"not a pack", b"PK\x03\x04rubbish"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pack.npz"
    path.write_bytes(content)
    with pytest.raises(PackError, match=r"pack\.npz"):
        load_pack(path)


def test_a_pack_whose_parts_do_not_fit_is_refused(tmp_path: Path) -> None:
    frames = np.zeros((3, 4, 4, 3), np.uint8)
    path = tmp_path / "pack.npz"
    write_pack(path, frames, np.array([0, 1], np.uint8), ["a", "b"])
    with pytest.raises(PackError, match="3 frames, 2 labels"):
        load_pack(path)
    write_pack(path, frames, np.array([0, 1, 2], np.uint8), ["a", "b"])
    with pytest.raises(PackError, match="of 2 classes"):
        load_pack(path)
    np.savez(path, images=np.zeros(9, np.uint8))
    with pytest.raises(PackError):
        load_pack(path)
