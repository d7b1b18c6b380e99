"""``python -m tools.bench.rollout_fleet FILE.json``: several real device clients in one process, each with its updates.

Everything is the client's own, down to the interpreter and openssl, but for two things: the model is tiny, and the
self-test runs in the update's thread, since two hundred processes would measure this machine.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device_client.client import Client
from device_client.settings import CameraSettings, DeviceSettings, UpdateSettings
from device_client.updates.agent import Agent
from device_client.updates.selftest import check
from device_client.updates.updater import SelfTest
from tflite_models.catalog import ModelsError, load_folder
from wire.link import LinkSettings
from wire.signals import stop_on_signals

CHUNK_BYTES = 8 * 1024
RATE_BYTES_PER_S = 32 * 1024
SPREAD_S = 2.0
TELEMETRY_S = 10.0
STACK_BYTES = 512 * 1024


class TestHere:
    """The self-test, run at once."""

    def __init__(self, wanted: SelfTest) -> None:
        self._problem = ""
        try:
            check(load_folder(wanted.folder), wanted.tolerance)
        except ModelsError as error:
            self._problem = str(error)

    def outcome(self) -> str | None:
        """Return what is wrong."""
        return self._problem

    def stop(self) -> None:
        """Nothing runs."""


class FleetAgent(Agent):
    """An agent that starts no processes."""

    def make_test(self, wanted: SelfTest) -> TestHere:
        """Prove the version in this thread."""
        return TestHere(wanted)


class FleetClient(Client):
    """A client whose agent starts no processes."""

    agent = FleetAgent


def settings_of(told: Mapping[str, Any], name: str, number: int) -> DeviceSettings:
    """Return the settings of one device of the fleet."""
    folder = Path(told["folder"])
    return DeviceSettings(
        site=told["site"], name=name, models=folder / "models", state=folder / "devices" / name,
        link=LinkSettings(port=told["port"], keepalive_s=30, backoff_max_s=2.0),
        camera=CameraSettings(kind="pack", path=folder / "pack.npz", fps=told["fps"], start=number),
        updates=UpdateSettings(Path(told["key"]), CHUNK_BYTES, RATE_BYTES_PER_S, SPREAD_S),
        telemetry_period_s=TELEMETRY_S, tags=("bench",), device_class="bench",
    )  # fmt: skip


def main() -> int:
    """Run the devices of the file until a signal; 1 where one of them ended by itself."""
    told = json.loads(Path(sys.argv[1]).read_bytes())
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(threadName)s %(levelname)s %(message)s")
    threading.stack_size(STACK_BYTES)
    stop, failed = stop_on_signals(), threading.Event()

    def run(settings: DeviceSettings) -> None:
        try:
            FleetClient(settings).run(stop)
        except Exception:  # the outermost loop of one device
            logging.exception("%s has ended", settings.name)
            failed.set()

    threads = [
        threading.Thread(target=run, args=(settings_of(told, name, number),), name=name)
        for number, name in enumerate(told["names"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():  # never a wait without end in the main thread: a signal could not be heard
            thread.join(0.2)
    return int(failed.is_set())


if __name__ == "__main__":
    sys.exit(main())
