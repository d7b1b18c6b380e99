"""The packages for a board: fetched once for its processor, and no network after that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.flash.conftest import pinned
from tools.flash.errors import FlashError
from tools.flash.targets import TARGETS, Target, constraints_for, target_named
from tools.flash.wheelhouse import CONSTRAINTS, wheelhouse


def names(files: object) -> set[str]:
    return {str(file).split("-", 1)[0] for file in files}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("pi64", {"pip", "tflite_runtime", "numpy", "msgpack", "paho_mqtt", "pillow", "dacite"}),
        ("pi32", {"pip", "tflite_runtime", "paho_mqtt", "dacite"}),
    ],
)
def test_a_board_gets_wheels_of_its_own_processor(home: Path, target: str, expected: set[str]) -> None:
    board = target_named(target)
    held = wheelhouse(board, "3.11")
    assert names(held.sha256) == expected
    for name in held.sha256:
        assert name.endswith((f"{board.processor}.whl", "py3-none-any.whl"))
    assert f"tflite_runtime-{pinned('tflite-runtime')}-cp311-cp311-manylinux_2_34_{board.processor}.whl" in held.sha256


def test_a_v4l2_camera_brings_its_package(home: Path) -> None:
    assert "linuxpy" in names(wheelhouse(target_named("pi32"), "3.11", camera=True).sha256)


def test_the_second_time_needs_no_network_and_a_damaged_cache_is_fetched_anew(
    tmp_path: Path, home: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLITFLEET_HOME", str(tmp_path))
    board = target_named("pi32")
    first = wheelhouse(board, "3.11")
    monkeypatch.delenv("PIP_FIND_LINKS")
    second = wheelhouse(board, "3.11")
    assert first.fetched and not second.fetched and first.sha256 == second.sha256
    with (first.folder / min(first.sha256)).open("ab") as file:
        file.write(b"x")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    third = wheelhouse(board, "3.11")
    assert third.fetched and third.sha256 == first.sha256


def test_without_network_and_cache_it_says_what_to_do(
    tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLITFLEET_HOME", str(tmp_path))
    with pytest.raises(FlashError, match=r"pi32 with Python 3\.11 are not on this machine.*Flash once with a network"):
        wheelhouse(target_named("pi32"), "3.11")
    assert not [path for path in (tmp_path / "wheelhouse").rglob("*") if path.is_file()]


def test_newer_pythons_take_the_other_runtime_and_another_numpy() -> None:
    board = target_named("pi64")
    assert "ai-edge-litert" in board.requirements("3.13") and "tflite-runtime" not in board.requirements("3.13")
    constraints = CONSTRAINTS.read_text(encoding="utf-8")
    assert constraints_for("3.11", constraints) == constraints
    assert f"numpy=={pinned('numpy')}" not in constraints_for("3.13", constraints)
    assert "numpy==2." in constraints_for("3.13", constraints) and "dacite==" in constraints_for("3.13", constraints)


@pytest.mark.parametrize("target", TARGETS.values(), ids=str)
def test_a_python_without_a_runtime_is_refused(target: Target) -> None:
    with pytest.raises(FlashError, match=r"3\.11"):
        target.check_python("3.10")
