"""The settings file of one device client."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wire.bundle import MAX_CHUNK_BYTES
from wire.channels import check_name
from wire.link import LinkSettings
from wire.plan import parse_plan

MIN_DEADLINE_MS, MAX_DEADLINE_MS = 1, 600_000


@dataclass(frozen=True, slots=True)
class FpsChange:
    """From ``at_s`` seconds after the start, the camera takes this many frames per second."""

    at_s: float
    fps: float


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """Where frames come from: the shipped labelled ``pack``, a ``folder`` of pictures, or a ``v4l2`` device."""

    kind: Literal["pack", "folder", "v4l2"] = "pack"
    path: Path | None = None
    """Pack file, folder, or video device such as /dev/video0; the shipped pack when left out."""
    fps: float = 2.0
    """Frames per second; 0 takes the next frame as soon as the last one is under way."""
    start: int = 0
    """First frame of a pack, so that several devices show different pictures."""
    limit: int | None = None
    """Stop after this many frames; left out, a pack starts over and a folder waits for new files."""
    changes: tuple[FpsChange, ...] = ()
    """Later frame rates, in order of time; none may be 0."""
    queue: int = 2
    """Captured frames that may wait for the processor; beyond it the oldest is dropped and counted."""
    width: int = 640
    height: int = 480

    def __post_init__(self) -> None:
        if not 0 <= self.fps <= 1000:
            raise ValueError(f"camera.fps is {self.fps}, allowed is 0 (as fast as possible) to 1000")
        for change in self.changes:
            if not 0 < change.fps <= 1000:
                raise ValueError(f"camera.changes.fps is {change.fps}, allowed is above 0 to 1000")
        for key, value in (
            ("queue", self.queue),
            ("limit", self.limit),
            ("width", self.width),
            ("height", self.height),
        ):
            if value is not None and value < 1:
                raise ValueError(f"camera.{key} is {value}, allowed is 1 or more")
        if self.kind != "pack" and self.path is None:
            raise ValueError(f"camera.path is missing: a camera of kind '{self.kind}' needs one")


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """Updates over the air; without this table a device takes none."""

    key: Path
    """The site's public key (PEM) that bundles must be signed with."""
    chunk_bytes: int = 32 * 1024
    """Asked for at once: frames of this device's results wait behind it on a slow link."""
    rate_bytes_per_s: int = 256 * 1024
    """What a download takes of the link at most."""
    spread_s: float = 5.0
    """A download begins at random within so long, so that not all devices of a stage ask at once."""
    trial_limit_s: float = 900.0
    """A new version that has not served its frames by then is left again."""

    def __post_init__(self) -> None:
        for key, value, least, most in (
            ("chunk_bytes", self.chunk_bytes, 1024, MAX_CHUNK_BYTES),
            ("rate_bytes_per_s", self.rate_bytes_per_s, 1024, 2**40),
            ("spread_s", self.spread_s, 0, 86_400),
            ("trial_limit_s", self.trial_limit_s, 1, 604_800),
        ):
            if not least <= value <= most:
                raise ValueError(f"updates.{key} is {value}, allowed is {least} to {most}")


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """Everything a device client is told before it has a connection."""

    site: str
    name: str
    models: Path
    """Folder of model folders with heads."""
    state: Path
    """Folder for the ledger; what it holds survives restarts."""
    link: LinkSettings = field(default_factory=LinkSettings)
    broker: bool = True
    """False: work alone, with the safe plan, and keep the ledger."""
    camera: CameraSettings = field(default_factory=CameraSettings)
    device_class: str = "unprofiled"
    profile: Path | None = None
    """Profile of this device class: source of modelled energy and of the head's expected time."""
    safe_plan: str | None = None
    """Followed until the first decision; left out, the smallest cached version runs whole."""
    deadline_ms: float = 1000.0
    """Used until a decision brings its own."""
    max_in_flight: int = 16
    """Frames that may wait for the edge; each keeps its picture."""
    ledger_rows: int = 50_000
    """Frame lines kept while nobody records them (about 250 bytes each); older ones are folded into counts."""
    telemetry_period_s: float = 1.0
    may_ship_input: bool = True
    """False: the picture itself never leaves the board, whatever a decision says."""
    threads: int = 1
    """Threads of the interpreter."""
    runtime: str | None = None
    slowdown: float = 1.0
    """Emulates a board this many times slower than the machine it runs on; 1 is a real board."""
    tags: tuple[str, ...] = ()
    updates: UpdateSettings | None = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    def __post_init__(self) -> None:
        check_name(self.site, "site")
        check_name(self.name, "name")
        if self.safe_plan is not None:
            parse_plan(self.safe_plan)
        for key, value, least, most in (
            ("deadline_ms", self.deadline_ms, MIN_DEADLINE_MS, MAX_DEADLINE_MS),
            ("max_in_flight", self.max_in_flight, 1, 1000),
            ("ledger_rows", self.ledger_rows, 100, 10_000_000),
            ("telemetry_period_s", self.telemetry_period_s, 0.1, 3600),
            ("threads", self.threads, 1, 64),
            ("slowdown", self.slowdown, 1, 1000),
        ):
            if not least <= value <= most:  # said so that "nan" is refused too
                raise ValueError(f"{key} is {value}, allowed is {least} to {most}")
