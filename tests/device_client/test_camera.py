"""Cameras and the thread that reads them: nothing is lost unseen, nobody is waited for in vain."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from device_client import camera as camera_module
from device_client.camera import (
    CameraError,
    Captured,
    CaptureThread,
    FolderCamera,
    PackCamera,
    Pixels,
    fit,
    open_camera,
)
from device_client.settings import CameraSettings
from tests.device_client.edge import eventually
from tests.device_client.stores import picture, write_pictures


def taken(frames: Iterator[tuple[Pixels, int | None] | None]) -> list[Pixels]:
    """Return all pictures up to the next pause."""
    found = []
    while (item := next(frames)) is not None:
        found.append(item[0])
    return found


def same(images: list[Pixels], numbers: list[int]) -> bool:
    """Whether these are the pictures of those numbers, in order."""
    return len(images) == len(numbers) and all(
        np.array_equal(image, picture(number)) for image, number in zip(images, numbers, strict=True)
    )


def test_a_folder_gives_its_pictures_and_then_those_that_arrive(tmp_path: Path) -> None:
    frames = FolderCamera(write_pictures(tmp_path, 3)).frames()
    (tmp_path / "notes.txt").write_text("not a picture")
    assert same(taken(frames), [0, 1, 2])
    assert taken(frames) == []
    write_pictures(tmp_path, 2, first=3)
    assert same(taken(frames), [3, 4])
    (tmp_path / "0001.png").unlink()
    assert taken(frames) == []
    write_pictures(tmp_path, 1, first=1)
    assert same(taken(frames), [1]), "a new picture under an old name"


def test_a_picture_that_cannot_be_read_is_counted_and_read_when_it_is_whole(tmp_path: Path) -> None:
    write_pictures(tmp_path / "whole", 1)
    data = (tmp_path / "whole" / "0000.png").read_bytes()
    folder = tmp_path / "folder"
    write_pictures(folder, 2, first=1)
    (folder / "a.png").write_bytes(data[: len(data) // 2])
    (folder / "b.jpg").write_text("no picture at all")
    (folder / "c.png").symlink_to(folder / "nowhere")
    camera = FolderCamera(folder)
    frames = camera.frames()
    assert same(taken(frames), [1, 2])
    assert taken(frames) == []
    assert camera.unreadable == 2
    (folder / "a.png").write_bytes(data)
    assert same(taken(frames), [0])


def test_a_folder_that_goes_and_returns_is_not_read_twice(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "folder", 3)
    camera = FolderCamera(folder)
    assert same(taken(camera.frames()), [0, 1, 2])
    folder.rename(tmp_path / "away")
    with pytest.raises(CameraError, match="folder"):
        next(camera.frames())
    (tmp_path / "away").rename(folder)
    write_pictures(folder, 1, first=3)
    assert same(taken(camera.frames()), [3])


def test_a_pack_plays_over_and_over_from_its_start(pack: Path) -> None:
    camera = open_camera(CameraSettings(path=pack, start=38), pack)
    assert isinstance(camera, PackCamera)
    frames = camera.frames()
    shown = [next(frames) for _ in range(45)]
    for number, item in zip(range(38, 83), shown, strict=True):
        assert item is not None
        assert np.array_equal(item[0], picture(number % 40))
        assert item[1] == number % 40 % 5


def test_cameras_that_cannot_be_opened_say_why(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="does not exist"):
        open_camera(CameraSettings(kind="folder", path=tmp_path / "none"), tmp_path)
    video = open_camera(CameraSettings(kind="v4l2", path=tmp_path / "video9"), tmp_path)
    with pytest.raises(CameraError, match="video9"):
        next(iter(video.frames()))


def test_pictures_are_fitted_to_the_model() -> None:
    image = picture(1)
    assert fit(image, 24, 24) is image
    grown = fit(image, 48, 36)
    assert grown.shape == (48, 36, 3)
    assert abs(float(grown.mean()) - float(image.mean())) < 3


class ListCamera:
    """Gives numbered pictures, and fails where it is told to; goes on where it was."""

    def __init__(self, count: int, fail_at: tuple[int, ...] = (), error: type[Exception] = CameraError) -> None:
        self.left = list(range(count))
        self.fail_at = set(fail_at)
        self.error = error
        self.unreadable = 0

    def frames(self) -> Iterator[tuple[Pixels, int | None] | None]:
        while self.left:
            if self.left[0] in self.fail_at:
                self.fail_at.discard(self.left[0])
                raise self.error("unplugged")
            yield picture(0), self.left.pop(0)


def capture(camera: ListCamera, **settings: float) -> CaptureThread:
    """Return a capture thread, not started."""
    return CaptureThread(camera, CameraSettings(path=Path(), **settings), threading.Event().set)  # type: ignore[arg-type]


def numbers(pictures: list[Captured]) -> list[int]:
    """Return what each picture was numbered."""
    return [int(one.truth) for one in pictures if one.truth is not None]


def empty(thread: CaptureThread) -> list[Captured]:
    """Take all that waits."""
    found = []
    while (one := thread.take()) is not None:
        found.append(one)
    return found


def test_as_fast_as_possible_loses_none(tmp_path: Path) -> None:
    thread = capture(ListCamera(50), fps=0, queue=2)
    thread.start()
    seen: list[Captured] = []
    eventually(lambda: seen.extend(empty(thread)) or (thread.finished and not thread.queued), "the end")  # type: ignore[func-returns-value]
    thread.stop()
    assert numbers(seen) == list(range(50))
    assert thread.overrun() == []
    stamps = [one.captured_ns for one in seen]
    assert stamps == sorted(stamps)


def test_at_a_rate_the_oldest_are_lost_and_told(tmp_path: Path) -> None:
    thread = capture(ListCamera(30), fps=1000, queue=3)
    thread.start()
    eventually(lambda: thread.finished, "the end")
    thread.stop()
    lost, kept = thread.overrun(), empty(thread)
    assert numbers(lost) + numbers(kept) == list(range(30))
    assert len(kept) == 3
    assert thread.overrun() == []
    assert not any(one.image.size for one in lost), "a client that is busy for long must not fill its memory"


def test_a_rate_is_kept_even_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is simulated: waiting makes it pass, and once the camera itself takes long."""
    now = [0.0]
    shown: list[float] = []

    class Waited:
        def wait(self, seconds: float) -> bool:
            now[0] += max(seconds, 0.0)
            return False

        def is_set(self) -> bool:
            return False

    class SlowOnce(ListCamera):
        def frames(self) -> Iterator[tuple[Pixels, int | None] | None]:
            for item in super().frames():
                now[0] += 2.0 if item and item[1] == 10 else 0.001
                yield item

    monkeypatch.setattr("device_client.camera.time.monotonic", lambda: now[0])
    thread = CaptureThread(SlowOnce(40), CameraSettings(path=Path(), fps=10, queue=100), lambda: shown.append(now[0]))
    monkeypatch.setattr(thread, "_stopping", Waited())
    thread._capture()
    gaps = [later - earlier for earlier, later in pairwise(shown[:40])]
    assert max(gaps[:9]) <= 0.102
    assert min(gaps[:9]) >= 0.098
    assert gaps[9] > 1.9
    assert sorted(gaps)[2] >= 0.098, "at most two pictures make up for the pause: no burst"


@pytest.mark.parametrize("error", [CameraError, RuntimeError])
def test_a_camera_that_fails_is_opened_again(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    monkeypatch.setattr(camera_module, "REOPEN_S", 0.01)
    thread = capture(ListCamera(9, fail_at=(0, 4), error=error), fps=0, queue=100, limit=7)
    thread.start()
    eventually(lambda: thread.finished, "the end")
    thread.stop()
    assert thread.failures == 2
    assert numbers(empty(thread)) == list(range(7)), "the limit counts over failures"


def test_stopping_does_not_wait_for_room() -> None:
    thread = capture(ListCamera(50), fps=0, queue=1)
    thread.start()
    eventually(lambda: thread.queued == 1, "a full queue")
    thread.stop()
    assert not thread._thread.is_alive()
    assert numbers(empty(thread)) in ([0], [0, 1])


def test_a_picture_of_another_mode_becomes_colour(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(np.full((8, 8, 4), 77, np.uint8), "RGBA").save(tmp_path / "seethrough.png")
    assert all(image.shape == (8, 8, 3) and (image == 77).all() for image in taken(FolderCamera(tmp_path).frames()))
