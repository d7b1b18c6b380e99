"""Where frames come from, and the thread that takes them at their rate, oldest dropped when nobody keeps up."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from device_client.settings import CameraSettings

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
FOLDER_POLL_S = 0.2
REOPEN_S = 2.0


class CameraError(Exception):
    """A camera cannot be opened or read; the message says what to check."""


@dataclass(frozen=True, slots=True)
class Captured:
    """One picture: uint8 [height, width, 3], stamped by the monotonic and the wall clock when it was taken."""

    image: Pixels
    captured_ns: int
    captured_ms: int
    truth: int | None = None


class Camera(Protocol):
    """Yields (picture, true label or None), or ``None`` when there is nothing right now; ends when there is no more."""

    def frames(self) -> Iterator[tuple[Pixels, int | None] | None]:
        """Begin taking pictures."""


@dataclass(frozen=True, slots=True)
class PackCamera:
    """Plays a labelled pack over and over."""

    images: Pixels
    labels: NDArray[np.integer[Any]]
    start: int

    def frames(self) -> Iterator[tuple[Pixels, int | None] | None]:
        """Yield the pack's frames for ever, from ``start``."""
        position = self.start
        while True:
            index = position % len(self.images)
            yield self.images[index], int(self.labels[index])
            position += 1


@dataclass(frozen=True, slots=True)
class FolderCamera:
    """Takes the pictures of a folder, oldest first, then those that arrive."""

    path: Path

    def frames(self) -> Iterator[tuple[Pixels, int | None] | None]:
        """Yield each readable picture once; an unreadable one is logged and passed over."""
        seen: set[str] = set()
        while True:
            fresh = sorted(
                (entry for entry in self._entries() if entry.name not in seen),
                key=lambda p: (p.stat().st_mtime_ns, p.name),
            )
            for entry in fresh:
                seen.add(entry.name)
                try:
                    yield read_picture(entry), None
                except CameraError as error:
                    log.warning("%s", error)
            seen.intersection_update({entry.name for entry in self._entries()})
            if not fresh:
                yield None

    def _entries(self) -> list[Path]:
        try:
            return [p for p in self.path.iterdir() if p.suffix.lower() in PICTURES]
        except OSError as error:
            raise CameraError(f"cannot read camera folder {self.path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class V4l2Camera:
    """A Video4Linux camera through linuxpy; not tried on hardware by the tests."""

    path: Path
    width: int
    height: int

    def frames(self) -> Iterator[tuple[Pixels, int | None] | None]:
        """Yield pictures as the camera delivers them; raises ``CameraError`` when it cannot be used."""
        try:
            from linuxpy.video.device import Device, VideoCapture
        except ImportError as error:
            raise CameraError("a v4l2 camera needs linuxpy: pip install 'splitfleet[camera]'") from error
        try:
            with Device(str(self.path)) as device:
                capture = VideoCapture(device)
                capture.set_format(self.width, self.height, "MJPG")
                with capture:
                    for frame in capture:
                        yield decode_picture(bytes(frame), str(self.path)), None
        except (OSError, ValueError) as error:
            raise CameraError(f"cannot use camera {self.path}: {error}") from error


def open_camera(settings: CameraSettings, shipped_pack: Path) -> Camera:
    """Return the camera the settings name; raises ``CameraError``."""
    if settings.kind == "pack":
        from tflite_models.pack import load_pack

        images, labels, _ = load_pack(settings.path or shipped_pack)
        return PackCamera(images, labels, settings.start)
    assert settings.path is not None  # the settings refuse it
    if settings.kind == "folder":
        if not settings.path.is_dir():
            raise CameraError(f"camera folder {settings.path} does not exist")
        return FolderCamera(settings.path)
    return V4l2Camera(settings.path, settings.width, settings.height)


def read_picture(path: Path) -> Pixels:
    """Return a picture file as uint8 [height, width, 3]; raises ``CameraError``."""
    try:
        return decode_picture(path.read_bytes(), str(path))
    except OSError as error:
        raise CameraError(f"cannot read picture {path}: {error.strerror}") from error


def decode_picture(data: bytes, origin: str) -> Pixels:
    """Return encoded bytes as uint8 [height, width, 3]; raises ``CameraError``."""
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CameraError(f"{origin} is not a readable picture: {error}") from error


def fit(image: Pixels, height: int, width: int) -> Pixels:
    """Return the picture resized to a model's input; unchanged when it already has that size."""
    if image.shape[:2] == (height, width):
        return image
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


class CaptureThread:
    """Takes pictures at the set rate into a short queue.

    At a rate, a full queue loses its oldest picture to ``overrun``; as fast as possible (fps 0), it waits for room
    instead, so that a folder of pictures loses none. A camera that fails is opened again after a while.
    """

    def __init__(self, camera: Camera, settings: CameraSettings, notify: Callable[[], None]) -> None:
        self._camera = camera
        self._settings = settings
        self._notify = notify
        self._queue: deque[Captured] = deque()
        self._overrun: list[Captured] = []
        self._room = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self.failures = 0
        self.finished = False
        """The camera has reached its limit of frames."""

    def start(self) -> None:
        """Begin taking pictures."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; pictures still queued can be taken."""
        self._stopping.set()
        with self._room:
            self._room.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    @property
    def queued(self) -> int:
        """Pictures waiting."""
        return len(self._queue)

    def take(self) -> Captured | None:
        """Return the oldest waiting picture."""
        with self._room:
            picture = self._queue.popleft() if self._queue else None
            self._room.notify()
            return picture

    def overrun(self) -> list[Captured]:
        """Return the pictures lost since the last call, oldest first: each needs its outcome."""
        if not self._overrun:
            return []
        with self._room:
            lost, self._overrun = self._overrun, []
            return lost

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._capture()
                return
            except CameraError as error:
                log.error("%s; trying again in %g s", error, REOPEN_S)
            except Exception:  # the outermost loop: a camera driver must not end the client
                log.exception("the camera failed; trying again in %g s", REOPEN_S)
            self.failures += 1
            self._stopping.wait(REOPEN_S)

    def _capture(self) -> None:
        began = due = time.monotonic()
        taken = 0
        for found in self._camera.frames():
            if self._stopping.wait(FOLDER_POLL_S if found is None else max(0.0, due - time.monotonic())):
                return
            if found is None:
                continue
            self._put(Captured(found[0], time.monotonic_ns(), time.time_ns() // 1_000_000, found[1]))
            taken += 1
            if self._settings.limit is not None and taken >= self._settings.limit:
                break
            now = time.monotonic()
            period_s = self._period_s(now - began)
            due = max(due + period_s, now - period_s)
        self.finished = True
        self._notify()

    def _period_s(self, elapsed_s: float) -> float:
        passed = [change.fps for change in self._settings.changes if change.at_s <= elapsed_s]
        fps = passed[-1] if passed else self._settings.fps
        return 1 / fps if fps else 0.0

    def _put(self, picture: Captured) -> None:
        with self._room:
            if self._settings.fps == 0:
                while len(self._queue) >= self._settings.queue and not self._stopping.is_set():
                    self._room.wait(0.5)
            elif len(self._queue) >= self._settings.queue:
                self._overrun.append(self._queue.popleft())
            self._queue.append(picture)
        self._notify()
