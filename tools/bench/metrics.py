"""The command ``splitfleet bench metrics``: recorder and forwarder on one core, beside ``influxdb-client``."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode
from urllib.request import urlopen

import psutil
import tomli_w
import typer

from edge_broker_side.backlog import reading
from edge_broker_side.broker import Broker, BrokerSettings, start_broker
from edge_broker_side.errors import EdgeError
from edge_broker_side.influx import open_server
from edge_broker_side.influx_settings import InfluxSettings
from edge_broker_side.store_file import read_standing
from tools.bench.metrics_load import Load
from tools.metrics_servers import MetricsServer
from tools.output import check_writable, console, print_table

SENDERS = {
    "ours-victoria": ("ours", "victoria-metrics"),
    "ours-influxd": ("ours", "influxd"),
    "client-victoria": ("influxdb-client", "victoria-metrics"),
}
SCENARIOS = {
    "steady": "nothing happens",
    "outage": "the server is away in the middle",
    "killed": "the server is away, and the sender is killed meanwhile and started again",
}
DATABASE = "bench"
PATIENCE_S = 300.0
WARM_S = 1.0
"""Both sides are connected by then, and have imported what they need."""


class MetricsBenchError(EdgeError):
    """The bench cannot go on; the message says what happened."""


@dataclass(frozen=True, slots=True)
class Run:
    """One sender, server and scenario, once."""

    sender: str
    server: str
    scenario: str
    points: int
    outage_s: float
    taken_per_s: float
    """Points with a receipt, from the first message to the last receipt."""
    arrived_per_s: float
    """Points on the server, to the moment when nothing waits for it any more."""
    cpu_us_per_point: float
    """Of the sending process, which has one core."""
    memory_mb: float
    """The largest resident size of the sending process."""
    lost: int
    """Frames with a receipt that are not on the server."""
    doubled: int
    """Frames that are there as more than one point."""


def metrics(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure to this file.")] = None,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of the load, outage not counted.")] = 10.0,
    outage: Annotated[float, typer.Option(min=0.1, help="Seconds the server is away.")] = 5.0,
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each figure.")] = 3,
    rate: Annotated[float, typer.Option(min=0, help="Points per second offered; 0: as many as are taken.")] = 0.0,
    senders: Annotated[str, typer.Option(help="Which senders to which servers.")] = ",".join(SENDERS),
    scenarios: Annotated[str, typer.Option(help="What happens meanwhile.")] = ",".join(SCENARIOS),
) -> None:
    """Measure recorder and forwarder together on one core, beside influxdb-client's own batching.

    The sender has the last core, broker, metrics server and load the first. What arrived is counted by asking the
    server. victoria-metrics is ended in good order, since it keeps what it has taken in memory for seconds; influxd
    is killed. Unless --rate is given the load offers as much as gets a receipt, and takes the server's core with it.

    Example: splitfleet bench metrics --seconds 30 --outage 20
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise MetricsBenchError("this bench needs two cores: one for the sender, one for broker, server and load")
    chosen = [SENDERS[name] for name in _names("--senders", senders, SENDERS)]
    happening = _names("--scenarios", scenarios, SCENARIOS)
    check_writable(json_file)
    os.sched_setaffinity(0, {cores[0]})
    runs = []
    try:
        with tempfile.TemporaryDirectory(prefix="splitfleet-bench-") as folder:
            root = Path(folder)
            settings = BrokerSettings(folder=str(root / "broker"), port=0, log_file=str(root / "broker.log"))
            with start_broker(settings) as broker:
                for number in range(repeats):
                    for scenario in happening:
                        for sender, server in chosen:
                            place = root / f"{number}-{scenario}-{sender}-{server}"
                            bench = _Bench(place, broker, cores[-1], seconds, outage, rate)
                            runs.append(bench.run(sender, server, scenario))
                            _progress(runs[-1])
    finally:
        os.sched_setaffinity(0, cores)
    _print(runs)
    if json_file is not None:
        document = {"seconds": seconds, "rate": rate, "runs": [dataclasses.asdict(run) for run in runs]}
        json_file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        console().print(f"written to {json_file}")


def _names(option: str, text: str, known: Mapping[str, object]) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"'{unknown[0]}': choose from {', '.join(known)}", param_hint=option)
    return names


class _Sender:
    """The process under measurement, on a core of its own; may be killed and started again."""

    def __init__(self, folder: Path, module: str, arguments: Sequence[str], core: int) -> None:
        self.cpu_s = 0.0
        self.memory_mb = 0.0
        self._log = folder / "sender.log"
        self._command = [sys.executable, "-m", module, *arguments]
        self._core = core
        self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as stderr:
            process = subprocess.Popen(self._command, stderr=stderr)
        os.sched_setaffinity(process.pid, {self._core})
        return process

    def measure(self) -> None:
        """Add up what it has used; to be called before it ends."""
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(self._process.pid).cpu_times()
            status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
            peak_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
            self.cpu_s += times.user + times.system
            self.memory_mb = max(self.memory_mb, peak_kb / 1024)

    def check(self) -> None:
        """Raise ``MetricsBenchError`` when it has ended by itself."""
        if self._process.poll() is not None:
            raise MetricsBenchError(f"the sender ended: {self._log.read_text(encoding='utf-8')[-500:]}")

    def kill_and_start(self) -> None:
        """As a power cut and a restart would."""
        self.measure()
        self._process.kill()
        self._process.wait()
        self._process = self._started()

    def end(self) -> None:
        """Ask it to end, and wait; kill it when it does not."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class _Bench:
    """A folder for one run."""

    def __init__(
        self, folder: Path, broker: Broker, core: int, seconds: float, outage_s: float, most_per_s: float
    ) -> None:
        folder.mkdir()
        self._folder = folder
        self._broker = broker
        self._core = core
        self._seconds = seconds
        self._outage_s = outage_s
        self._most_per_s = most_per_s

    def run(self, sender_name: str, server_name: str, scenario: str) -> Run:
        """Measure one sender and server in one scenario."""
        ours = sender_name == "ours"
        site = self._folder.name[:40].replace("_", "-")
        with MetricsServer(server_name, self._folder / "server") as server, self._load(site) as load:
            influx = InfluxSettings(server.url, DATABASE, create_database=server_name == "influxd")
            toml = self._settings(site, influx)
            module, arguments = (
                ("edge_broker_side", ["recorder", str(toml)]) if ours else ("tools.bench.metrics_client", [str(toml)])
            )
            sender = _Sender(self._folder, module, arguments, self._core)
            try:
                load.run(WARM_S)
                load.finish()
                warm = load.points
                sender.measure()
                used_s, sender.cpu_s = sender.cpu_s, 0.0
                began_s = time.monotonic()
                self._play(scenario, load, server, sender)
                load.finish()
                taken_s = time.monotonic() - began_s
                if ours:
                    self._drain(sender)
                    arrived_s = time.monotonic() - began_s
                    sender.measure()
                    sender.end()
                else:
                    sender.measure()
                    sender.end()
                    arrived_s = time.monotonic() - began_s
                sender.cpu_s -= used_s
                arrived = _arrived(server, influx)
            finally:
                sender.end()
            points = load.points - warm
            lost = len(
                {(device, frame) for device, last in load.frames.items() for frame in range(1, last + 1)}
                - arrived.keys()
            )
        return Run(
            sender_name, server_name, scenario, points, 0.0 if scenario == "steady" else self._outage_s,
            points / taken_s, (points - lost) / arrived_s, 1e6 * sender.cpu_s / points, sender.memory_mb,
            lost, sum(count > 1 for count in arrived.values()),
        )  # fmt: skip

    def _play(self, scenario: str, load: Load, server: MetricsServer, sender: _Sender) -> None:
        if scenario == "steady":
            load.run(self._seconds)
            return
        load.run(self._seconds / 2)
        if server.kind == "influxd":
            server.kill()
        else:
            server.stop()
        load.run(self._outage_s / 2)
        if scenario == "killed":
            sender.kill_and_start()
        load.run(self._outage_s / 2)
        server.start()
        load.run(self._seconds / 2)
        sender.check()

    def _drain(self, sender: _Sender) -> None:
        """Wait until nothing waits for the server but the recorder's own last point."""
        end_s = time.monotonic() + PATIENCE_S
        while True:
            sender.check()
            with reading(self._folder / "records.sqlite") as db:
                standing = read_standing(db, 0)
            if standing is not None and standing.waiting <= 1:
                return
            if time.monotonic() > end_s:
                raise MetricsBenchError(f"{standing} after {PATIENCE_S:.0f} s")
            time.sleep(0.05)

    def _settings(self, site: str, influx: InfluxSettings) -> Path:
        document = {
            "site": site,
            "store": {"path": str(self._folder / "records.sqlite")},
            "link": {"port": self._broker.port},
            "influx": {"url": influx.url, "database": influx.database, "create_database": influx.create_database},
        }
        toml = self._folder / "recorder.toml"
        toml.write_bytes(tomli_w.dumps(document).encode())
        return toml

    @contextlib.contextmanager
    def _load(self, site: str) -> Iterator[Load]:
        load = Load(self._broker.port, site, self._most_per_s)
        try:
            yield load
        finally:
            load.close()


def _arrived(server: MetricsServer, influx: InfluxSettings) -> Counter[tuple[str, int]]:
    """Ask the server which frames it has, and how many points of each; twins with one stamp are one point."""
    if server.kind == "influxd":
        opened = open_server(dataclasses.replace(influx, timeout_s=PATIENCE_S))
        series = opened.query("SELECT frame FROM inference GROUP BY device")
        opened.close()
        found = {(one.tags["device"], row[1], row[0]) for one in series for row in one.rows}
    else:
        urlopen(f"{server.url}/internal/force_flush").close()
        query = urlencode({"match[]": "inference_frame", "reduce_mem_usage": 1})
        with urlopen(f"{server.url}/api/v1/export?{query}") as answer:
            exported = [json.loads(line) for line in answer]
        found = {
            (one["metric"]["device"], int(value), at_ms)
            for one in exported
            for value, at_ms in zip(one["values"], one["timestamps"], strict=True)
        }
    return Counter((device, frame) for device, frame, _ in found)


def _progress(run: Run) -> None:
    sys.stderr.write(
        f"{run.sender} to {run.server}, {run.scenario}: {run.arrived_per_s:.0f} points/s, lost {run.lost}\n"
    )


def _print(runs: Sequence[Run]) -> None:
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.sender, run.server, run.scenario), []).append(run)
    print_table(
        "Sender on one core, measured (median and range of the repeats; lost and doubled: all of them)",
        ["sender", "server", "scenario", "points", "taken/s", "arrived/s", "µs/point", "peak MB", "lost", "doubled"],
        [
            [
                *names, sum(one.points for one in group), _spread([one.taken_per_s for one in group]),
                _spread([one.arrived_per_s for one in group]), _spread([one.cpu_us_per_point for one in group]),
                _spread([one.memory_mb for one in group]), sum(one.lost for one in group),
                sum(one.doubled for one in group),
            ]
            for names, group in groups.items()
        ],
    )  # fmt: skip


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f} [{min(values):.0f}–{max(values):.0f}]"
