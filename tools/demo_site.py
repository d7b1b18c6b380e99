"""The demo's site: prepared models, measured profiles, and the processes with their settings files."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from device_client.profiling import profile_device, sample_frames
from edge_broker_side.profiling import profile_edge
from tflite_models.catalog import Catalog, load_catalog, load_folder, shipped_zoo
from tflite_models.profile import (
    DeviceProfile,
    EdgeProfile,
    ProfileError,
    load_device_profile,
    load_edge_profile,
    save_profile,
)
from tflite_models.runtime import runtime_name
from tflite_models.store import prepare
from tools.demo_scenario import BURST, DemoDevice
from tools.home import demo_store_folder, profiles_folder

SITE = "demo"
EMULATED_ACTIVE_MW = 2500.0
"""Drawn above idle by an emulated board while computing: about a Raspberry Pi 4 with one busy core. Modelled."""
PROFILE_RUNS = 20
METHOD = "with pauses, through a broker"
"""How profiles are measured: a kept one that was measured in another way is not used."""
EDGE_BATCHES = (1, 2, 4, 8)
"""Four devices never fill a larger batch."""
Progress = Callable[[str, int, int], None]


def prepare_store(progress: Progress) -> Catalog:
    """Cut the shipped versions into heads and tails, once; later calls only check."""
    zoo = load_catalog(shipped_zoo())
    out = demo_store_folder()
    for done, (name, folder) in enumerate(zoo.folders.items()):
        progress(f"cutting {name}", done, len(zoo.folders))
        prepare(folder, out / name, heads=True, tails=True)
    progress("models ready", len(zoo.folders), len(zoo.folders))
    return Catalog({name: load_folder(out / name) for name in zoo.folders})


def measured_profiles(catalog: Catalog, progress: Progress, *, again: bool) -> tuple[DeviceProfile, EdgeProfile]:
    """Return what plans cost on this machine, measured once per set of models and runtimes."""
    names = [METHOD, runtime_name(), runtime_name(prefer="fast"), *(version.sha256 for version in catalog)]
    key = hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
    device_file = profiles_folder() / f"this-machine-{key}.json"
    edge_file = profiles_folder() / f"this-edge-{key}.json"
    if not again:
        try:
            return load_device_profile(device_file), load_edge_profile(edge_file)
        except ProfileError:
            pass
    device = profile_device(
        catalog, sample_frames(None, PROFILE_RUNS), device_class="this-machine", runs=PROFILE_RUNS, progress=progress,
        active_power_mw=EMULATED_ACTIVE_MW,
    )  # fmt: skip
    edge = profile_edge(catalog, batches=EDGE_BATCHES, repeats=3, progress=progress)
    save_profile(device, device_file)
    save_profile(edge, edge_file)
    return device, edge


@dataclasses.dataclass(frozen=True, slots=True)
class SiteFiles:
    """Where the settings of the demo's processes lie."""

    folder: Path

    @property
    def logs(self) -> Path:
        """One log per process."""
        return self.folder / "logs"

    @property
    def points(self) -> Path:
        """The recorder's store."""
        return self.folder / "points.sqlite"

    def ledger(self, device: str) -> Path:
        """A device's ledger."""
        return self.folder / "devices" / device / "ledger.sqlite"

    def settings(self, process: str) -> Path:
        """A process's settings file."""
        return self.folder / f"{process}.toml"

    def write(self, process: str, document: Mapping[str, Any]) -> str:
        """Write a settings file and return its path."""
        path = self.settings(process)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tomli_w.dumps(document).encode())
        return str(path)


def write_edge(
    files: SiteFiles,
    broker_port: int,
    policy: str,
    devices: Sequence[DemoDevice],
    profiles: tuple[DeviceProfile, EdgeProfile],
    influx: Mapping[str, Any] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Write settings and profiles of the edge side; return how each process is started: module and arguments.

    ``influx`` is the recorder's table of that name; ``None``: no metrics server.
    """
    base, edge = profiles
    folder = files.folder / "profiles"
    for board in {device.board for device in devices}:
        save_profile(base.slowed(board.slowdown, board.device_class), folder / f"{board.device_class}.json")
    save_profile(edge, folder / "edge" / "edge.json")
    link = {"host": "127.0.0.1", "port": broker_port}
    recorder: dict[str, Any] = {"site": SITE, "name": "recorder", "link": link, "store": {"path": str(files.points)}}
    if influx is not None:
        recorder["influx"] = dict(influx)
    worker = {"site": SITE, "name": "edge-1", "link": link, "models": str(demo_store_folder())}
    service = {
        "site": SITE, "name": "policy", "link": link, "policy": policy, "models": str(demo_store_folder()),
        "profiles": str(folder), "edge_profile": str(folder / "edge" / "edge.json"),
        "devices": {device.name: _rules(device) for device in devices},
    }  # fmt: skip
    return {
        "recorder": ("edge_broker_side", "recorder", files.write("recorder", recorder)),
        "edge-1": ("edge_broker_side", "worker", files.write("edge-1", worker)),
        "policy": ("policy", files.write("policy", service)),
    }


def _rules(device: DemoDevice) -> dict[str, Any]:
    accuracy, latency, energy = device.weights
    return {
        "deadline_ms": device.deadline_ms,
        "may_ship_input": device.may_ship_input,
        "weights": {"accuracy": accuracy, "latency": latency, "energy": energy},
    }


def write_device(files: SiteFiles, device: DemoDevice, port: int, start: int, seconds: float) -> tuple[str, ...]:
    """Write one device's settings; it reaches the broker through its relay at ``port``."""
    changes = []
    if device.burst_fps is not None:
        changes = [
            {"at_s": BURST[0] * seconds, "fps": device.burst_fps},
            {"at_s": BURST[1] * seconds, "fps": device.fps},
        ]
    document = {
        "site": SITE,
        "name": device.name,
        "models": str(demo_store_folder()),
        "state": str(files.ledger(device.name).parent),
        "device_class": device.board.device_class,
        "profile": str(files.folder / "profiles" / f"{device.board.device_class}.json"),
        "slowdown": device.board.slowdown,
        "deadline_ms": device.deadline_ms,
        "may_ship_input": device.may_ship_input,
        "link": {"host": "127.0.0.1", "port": port, "keepalive_s": 5, "backoff_max_s": 2.0},
        "camera": {"kind": "pack", "fps": device.fps, "start": start, "changes": changes},
    }
    return ("device_client", files.write(device.name, document))
