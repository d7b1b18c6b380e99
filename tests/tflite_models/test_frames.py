"""Frames: the same bytes for the same index, anywhere; the labelled garment in every one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tflite_models.garments import toy_garments, write_data_set
from tflite_models.builder.frames import (
    LABELS,
    SIDE,
    FrameError,
    Garments,
    compose_frame,
    frame_labels,
    load_garments,
    write_frames,
)
from tflite_models.pack import balanced, load_pack, shipped_pack


def test_a_frame_depends_on_split_and_index_alone() -> None:
    garments = toy_garments()
    first = [compose_frame(garments, index) for index in range(6)]
    again = [compose_frame(garments, index) for index in reversed(range(6))][::-1]
    for one, other in zip(first, again, strict=True):
        assert one.shape == (SIDE, SIDE, 3) and one.dtype == np.uint8
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], compose_frame(toy_garments("test"), 0))


def test_past_the_last_garment_the_same_one_comes_in_another_scene() -> None:
    garments = toy_garments()
    count = len(garments.images)
    assert not np.array_equal(compose_frame(garments, 3), compose_frame(garments, 3 + count))
    np.testing.assert_array_equal(frame_labels(garments, 2 * count), np.tile(garments.labels, 2))


def test_the_garment_changes_the_frame_where_it_stands_and_nowhere_else() -> None:
    garments = toy_garments()
    images = garments.images.copy()
    small, large = images[0], images[-1]
    # only the target image may differ: fragments are cut from any image, so keep all others alike
    frames = []
    for target in (small, large):
        changed = images.copy()
        changed[7] = target
        frames.append(compose_frame(Garments("train", changed, garments.labels), 7).astype(int))
    moved = np.abs(frames[0] - frames[1]).max(axis=2) > 0
    assert 0.01 < moved.mean() < 0.6


def test_frames_use_the_whole_range_but_are_not_saturated() -> None:
    frames = np.stack([compose_frame(toy_garments(), index) for index in range(20)])
    assert frames.min() < 30 and frames.max() > 225
    assert ((frames == 0) | (frames == 255)).mean() < 0.2


def test_a_missing_data_set_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="dataset-fashion-mnist"):
        load_garments("test", tmp_path)


def test_frames_are_written_once_and_read_back(tmp_path: Path) -> None:
    garments = toy_garments()
    write_data_set(tmp_path, garments)
    path = tmp_path / "frames.npy"
    told: list[tuple[int, int]] = []
    write_frames("train", 23, path, folder=tmp_path, workers=1, progress=lambda *a: told.append(a))
    stored = np.load(path)
    assert stored.shape == (23, SIDE, SIDE, 3) and told == [(23, 23)]
    np.testing.assert_array_equal(stored[21], compose_frame(garments, 21))
    write_frames("train", 23, path, folder=tmp_path, workers=1, progress=lambda *a: told.append(a))
    assert told == [(23, 23)], "a finished file is composed again"


def test_images_and_labels_of_different_length_are_refused(tmp_path: Path) -> None:
    garments = toy_garments()
    write_data_set(tmp_path, Garments("train", garments.images[:-1], garments.labels))
    with pytest.raises(FrameError, match="do not belong together"):
        load_garments("train", tmp_path)


def test_the_shipped_pack_is_what_this_machine_composes() -> None:
    frames, labels, names = load_pack(shipped_pack())
    garments = load_garments("test")
    truth = frame_labels(garments, 10_000)
    places = balanced(truth, len(frames) // len(LABELS))
    assert names == LABELS
    np.testing.assert_array_equal(labels, truth[places])
    for place in (0, 1, 2, 100, len(frames) - 1):
        np.testing.assert_array_equal(frames[place], compose_frame(garments, int(places[place])))
