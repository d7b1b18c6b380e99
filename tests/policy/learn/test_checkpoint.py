"""Files that training goes on from: whole or not there, and never code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policy.errors import PolicyError
from policy.learn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from policy.learn.settings import A2CSettings


def one(scale: float = 1.0) -> Checkpoint:
    return Checkpoint({"weights/a/kernel": scale * np.arange(6.0).reshape(2, 3)}, {"big": 2**100, "word": "ü"})


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "new" / "a.npz", one())
    found = load_checkpoint(tmp_path / "new" / "a.npz")
    assert found.header == {"big": 2**100, "word": "ü"}
    assert np.array_equal(found.below("weights")["a/kernel"], [[0, 1, 2], [3, 4, 5]])
    save_checkpoint(tmp_path / "new" / "b.npz", one())
    assert (tmp_path / "new" / "a.npz").read_bytes() == (tmp_path / "new" / "b.npz").read_bytes()


def test_a_failed_save_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_checkpoint(path, one())
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_checkpoint(path, Checkpoint({}, {"no JSON": object()}))
    assert path.read_bytes() == before and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x93NUMPY", b"text"])
def test_what_is_no_checkpoint_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(PolicyError, match=r"a\.npz is no checkpoint, or is damaged"):
        load_checkpoint(path)


def test_a_cut_off_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    save_checkpoint(path, one())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(PolicyError, match="is damaged"):
        load_checkpoint(path)


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="is no checkpoint"):
        load_checkpoint(_with_object(tmp_path))


def _with_object(folder: Path) -> Path:
    np.savez(folder / "object.npz", header=np.array([object()]), weights=np.array([object()]))
    return folder / "object.npz"


@pytest.mark.parametrize(
    ("name", "value"),
    [("gamma", 1.5), ("gae_lambda", -0.1), ("learning_rate", 0), ("n_envs", 0), ("clipnorm", float("nan"))],
)
def test_settings_that_cannot_be_are_named(name: str, value: float) -> None:
    with pytest.raises(PolicyError, match=name):
        A2CSettings(**{name: value})  # type: ignore[arg-type]


def test_schedules_are_straight_lines() -> None:
    settings = A2CSettings(learning_rate=0.01, learning_rate_end=0.1, entropy_start=0.02, entropy_end=0.0)
    assert [settings.learning_rate_at(p) for p in (0, 0.5, 1)] == pytest.approx([0.01, 0.0055, 0.001])
    assert [settings.entropy_at(p) for p in (0, 0.5, 1)] == pytest.approx([0.02, 0.01, 0.0])
