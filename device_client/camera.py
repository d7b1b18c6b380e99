"""Where frames come from, and the thread that takes them at their rate, oldest dropped when nobody keeps up."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from device_client.errors import DeviceError
from device_client.settings import CameraSettings

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
FOLDER_POLL_S = 0.2
REOPEN_S = 2.0
_NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


class CameraError(DeviceError):
    """A camera cannot be opened or read; the message says what to check."""


@dataclass(frozen=True, slots=True)
class Captured:
    """One picture: uint8 [height, width, 3], stamped by the monotonic and the wall clock when it was taken."""

    image: Pixels
    captured_ns: int
    captured_ms: int
    truth: int | None = None


class Camera(Protocol):
    """Yields (picture, true label or None), or ``None`` when there is nothing right now; ends when there is no more.

    ``frames`` may be called again after it failed, and goes on where it was.
    """

    unreadable: int
    """Pictures passed over because they could not be decoded."""

    def frames(self) -> Iterator[tuple[Pixels, int | None] | None]:
        """Begin taking pictures."""


@dataclass(slots=True)
class PackCamera:
    """Plays a labelled pack over and over, from its frame number ``position``."""

    images: Pixels
    labels: NDArray[np.integer[Any]]
    position: int
    unreadable: int = 0

    def frames(self) -> Iterator[tuple[Pixels, int | None] | None]:
        """Yield the pack's frames for ever."""
        while True:
            index = self.position % len(self.images)
            self.position += 1
            yield self.images[index], int(self.labels[index])


Stamp = tuple[int, int]
"""Time of last change and size of a file: what tells a new picture under an old name."""


@dataclass(slots=True)
class FolderCamera:
    """Takes the pictures of a folder, oldest first, then those that arrive."""

    path: Path
    unreadable: int = 0
    _seen: dict[str, Stamp] = field(default_factory=dict)

    def frames(self) -> Iterator[tuple[Pixels, int | None] | None]:
        """Yield each readable picture once; one that cannot be read is tried again when it has changed."""
        while True:
            found = self._entries()
            self._seen = {name: stamp for name, stamp in self._seen.items() if name in found}
            fresh = sorted((stamp, name) for name, stamp in found.items() if self._seen.get(name) != stamp)
            for stamp, name in fresh:
                self._seen[name] = stamp
                try:
                    picture = read_picture(self.path / name)
                except CameraError as error:
                    self.unreadable += 1
                    log.warning("%s", error)
                    continue
                yield picture, None
            if not fresh:
                yield None

    def _entries(self) -> dict[str, Stamp]:
        found = {}
        try:
            for entry in os.scandir(self.path):
                if Path(entry.name).suffix.lower() in PICTURES:
                    with suppress(FileNotFoundError):  # gone since it was listed
                        facts = entry.stat()
                        found[entry.name] = (facts.st_mtime_ns, facts.st_size)
        except OSError as error:
            raise CameraError(f"cannot read camera folder {self.path}: {error.strerror}") from error
        return found


@dataclass(slots=True)
class V4l2Camera:
    """A Video4Linux camera through linuxpy; not tried on hardware by the tests."""

    path: Path
    width: int
    height: int
    period_s: float
    unreadable: int = 0

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
                due = 0.0
                with capture:
                    for frame in capture:
                        # The driver's buffers are emptied at its own rate: what waits in them grows stale.
                        if time.monotonic() < due:
                            continue
                        due = time.monotonic() + self.period_s
                        try:
                            picture = decode_picture(bytes(frame), str(self.path))
                        except CameraError as error:
                            self.unreadable += 1
                            log.warning("%s", error)
                            continue
                        yield picture, None
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
    rates = [settings.fps, *(change.fps for change in settings.changes)]
    period_s = 1 / max(rates) if settings.fps else 0.0
    return V4l2Camera(settings.path, settings.width, settings.height, period_s)


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
        self._taken = 0
        self._began = 0.0
        self.failures = 0
        self.finished = False
        """The camera has reached its limit of frames."""

    def start(self) -> None:
        """Begin taking pictures."""
        self._began = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; pictures still queued can be taken."""
        self._stopping.set()
        with self._room:
            self._room.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    @property
    def unreadable(self) -> int:
        """Pictures passed over because they could not be decoded."""
        return self._camera.unreadable

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
        due = time.monotonic()
        for found in self._camera.frames():
            if self._stopping.wait(FOLDER_POLL_S if found is None else max(0.0, due - time.monotonic())):
                return
            if found is None:
                continue
            self._put(Captured(found[0], time.monotonic_ns(), time.time_ns() // 1_000_000, found[1]))
            self._taken += 1
            if self._settings.limit is not None and self._taken >= self._settings.limit:
                break
            now = time.monotonic()
            period_s = self._period_s(now - self._began)
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
                # Without its pixels: nobody looks at them, and a busy client may not ask for long.
                self._overrun.append(dataclasses.replace(self._queue.popleft(), image=_NO_PIXELS))
            self._queue.append(picture)
        self._notify()
