"""The demo's site at work: broker, edge, policy service, and devices behind relays, in the order of their lives."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edge_broker_side.broker import Broker, BrokerSettings, start_broker
from tflite_models.profile import DeviceProfile, EdgeProfile
from tools.demo_scenario import DemoDevice
from tools.demo_site import SiteFiles, write_device, write_edge
from tools.relay import Relay
from tools.shaping import preset
from tools.supervisor import Supervisor, SupervisorError

STOP_DEVICES_S = 20.0


class DemoFleet:
    """Everything that runs; a context manager that leaves nothing behind."""

    def __init__(
        self, files: SiteFiles, devices: Sequence[DemoDevice], influx: Mapping[str, Any] | None = None
    ) -> None:
        """``influx``: the recorder's table of that name, where it is to forward to a metrics server."""
        self.relays: dict[str, Relay] = {}
        self._influx = influx
        self._files = files
        self._devices = devices
        self._stack = ExitStack()

    def __enter__(self) -> DemoFleet:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(self, *, embedded: bool) -> Broker:
        """Start the broker, on a free port."""
        settings = BrokerSettings(
            folder=str(self._files.folder / "broker"),
            port=0,
            kind="embedded" if embedded else "auto",
            log_file=str(self._files.logs / "broker.log"),
        )
        self._broker: Broker = self._stack.enter_context(start_broker(settings))
        self._supervisor = self._stack.enter_context(Supervisor(self._files.logs))
        return self._broker

    def start(self, policy: str, profiles: tuple[DeviceProfile, EdgeProfile], seconds: float) -> None:
        """Start all else. ``seconds``: how long it will run, of which the script's shares are."""
        edge = write_edge(self._files, self._broker.port, policy, self._devices, profiles, self._influx)
        for name, (module, *arguments) in edge.items():
            self._supervisor.start(name, module, *arguments)
        for number, device in enumerate(self._devices):
            relay = Relay(self._broker.host, self._broker.port, preset(device.link), seed=number)
            self._stack.callback(relay.stop)
            self.relays[device.name] = relay
            module, settings = write_device(self._files, device, relay.start(), number * 97, seconds)
            self._supervisor.start(device.name, module, settings)

    def check(self) -> None:
        """Raise ``SupervisorError`` when a process has ended by itself."""
        self._supervisor.check()

    def stop_devices(self) -> dict[str, int]:
        """End the devices; their ledgers are handed over on good links. Returns exit codes."""
        for relay in self.relays.values():
            relay.outage(False)
            relay.set(preset("20"))
        return self._supervisor.stop([device.name for device in self._devices], STOP_DEVICES_S)

    def stop_edge(self) -> dict[str, int]:
        """End the edge side, the recorder last. Returns exit codes."""
        codes = self._supervisor.stop(["policy", "edge-1"])
        return codes | self._supervisor.stop(["recorder"])


@contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Keep a second run from clearing the folder under the first; the lock goes with the process, however it ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SupervisorError(f"a {what} already runs in {folder}: end it, or set SPLITFLEET_HOME") from None
        yield
