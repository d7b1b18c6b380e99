"""The site of the bench of roll-outs: a tiny version and its successor, and a fleet in a few processes."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tomli_w

from device_client.updates.shelf import Shelf
from edge_broker_side.identity.signing import Signer, public_key_path
from edge_broker_side.rollout.bundles import Bundle, make_bundle
from edge_broker_side.rollout.store import RolloutStore
from tflite_models.catalog import (
    MANIFEST,
    MODEL,
    Cut,
    ModelFolder,
    ModelsError,
    PlanFacts,
    Provenance,
    Version,
    load_folder,
    version_to_json,
)
from tflite_models.pack import write_pack
from tflite_models.runtime import Submodel
from tflite_models.synthetic import dense_classifier
from tools.supervisor import Supervisor
from wire.link import LinkSettings

SITE, VERSION = "bench", "tiny"
SIDE, HIDDEN, LABELS = 16, 20, ("a", "b", "c")
FRAMES = 4
PER_PROCESS = 18
"""Devices that share a process; more would wait for each other's interpreter lock."""


def write_version(root: Path, seed: int) -> ModelFolder:
    """Write a classifier of some 60 KB, made of two dense layers."""
    data, pixels = dense_classifier(SIDE, HIDDEN, len(LABELS), seed), SIDE * SIDE * 3
    model, macs = Submodel(data), HIDDEN * (pixels + len(LABELS))
    version = Version(
        VERSION, VERSION, hashlib.sha256(data).hexdigest(), len(data), "float32", model.inputs, model.outputs, macs,
        None, LABELS, "2.14",
        (Cut("input", 0, model.inputs, 0, macs), Cut("output", 4, model.outputs, macs, 0)),
        (PlanFacts("output", "none", 0.0, 0.0, None),),
        Provenance("splitfleet bench rollout", "", "", 0, seed=seed),
    )  # fmt: skip
    folder = root / VERSION
    folder.mkdir(parents=True)
    (folder / MODEL).write_bytes(data)
    (folder / MANIFEST).write_text(version_to_json(version), encoding="utf-8")
    return load_folder(folder)


@dataclass(frozen=True, slots=True)
class Held:
    """What the disks of the fleet say when all is over."""

    on_new: int
    """Devices with the new version, committed and whole, and nothing else of it."""
    wrong: tuple[str, ...]
    """The others, with what is wrong."""
    waiting: int
    """Lines of frames that the recorder does not have yet."""


class BenchSite:
    """Folder, processes and questions of one run."""

    def __init__(self, folder: Path, port: int, processes: Supervisor, fps: float) -> None:
        self._folder = folder
        self._port = port
        self._processes = processes
        self._fps = fps
        self.old = write_version(folder / "models", 1).version.sha256
        frames = np.random.default_rng(0).integers(0, 256, (FRAMES, SIDE, SIDE, 3), np.uint8)
        write_pack(folder / "pack.npz", frames, np.zeros(FRAMES, np.uint8), LABELS)
        signer = Signer.of_site(folder)
        newer = write_version(folder / "newer", 2)
        path = make_bundle(newer, [frames], folder / "rollouts" / "bundles", signer, int(time.time()))
        self.bundle = Bundle(path, signer.public_pem())

    @property
    def records(self) -> Path:
        """The recorder's store."""
        return self._folder / "records.sqlite"

    def store(self) -> RolloutStore:
        """Open the state of roll-outs."""
        return RolloutStore(self._folder / "rollouts" / "rollouts.sqlite")

    def start_servers(self) -> None:
        """Start recorder and roll-out server."""
        link = {"port": self._port}
        self._start_server("recorder", {"store": {"path": str(self.records)}, "link": link})
        key = str(public_key_path(self._folder))
        self._start_server("rollout", {"folder": str(self._folder / "rollouts"), "key": key, "link": link})

    def _start_server(self, service: str, document: dict[str, object]) -> None:
        path = self._folder / f"{service}.toml"
        path.write_bytes(tomli_w.dumps({"site": SITE, "log_level": "warning", **document}).encode())
        self._processes.start(service, "edge_broker_side", service, str(path))

    def start_devices(self, process: str, names: Sequence[str]) -> None:
        """Start devices in one process."""
        told = {
            "site": SITE, "port": self._port, "folder": str(self._folder), "fps": self._fps, "names": list(names),
            "key": str(public_key_path(self._folder)),
        }  # fmt: skip
        path = self._folder / f"{process}.json"
        path.write_text(json.dumps(told), encoding="utf-8")
        self._processes.start(process, "tools.bench.rollout_fleet", str(path))

    def link(self) -> LinkSettings:
        """Return how to reach the broker."""
        return LinkSettings(port=self._port)

    def held(self, names: Sequence[str]) -> Held:
        """Look at the disks of stopped devices."""
        problems = {name: self._wrong(name) for name in names}
        wrong = tuple(f"{name}: {problem}" for name, problem in problems.items() if problem)
        waiting = sum(self._waiting(name) for name in names)
        return Held(len(names) - len(wrong), wrong, waiting)

    def _wrong(self, name: str) -> str:
        folder = self._folder / "devices" / name / "updates"
        shelf = Shelf(folder, self._folder / "models")
        bundle = self.bundle.manifest.bundle
        if shelf.held.trial is not None or dict(shelf.held.kept) != {VERSION: bundle}:
            return f"holds {shelf.held}"
        there = sorted(path.name for path in (folder / "bundles").iterdir())
        if there != [bundle]:
            return f"has the folders {', '.join(there)}"
        try:
            load_folder(folder / "bundles" / bundle, check_hash=True)
        except ModelsError as error:
            return str(error)
        return ""

    def _waiting(self, name: str) -> int:
        with closing(sqlite3.connect(self._folder / "devices" / name / "ledger.sqlite")) as ledger:
            return int(ledger.execute("SELECT count(*) FROM frames").fetchone()[0])
