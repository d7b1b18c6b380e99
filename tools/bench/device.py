"""The command ``splitfleet bench device``: what the client costs a board, next to the bare interpreter loop."""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import tomli_w
import typer

from edge_broker_side.broker import Broker, BrokerSettings, start_broker
from tflite_models.catalog import load_catalog, shipped_zoo
from tflite_models.pack import shipped_pack
from tflite_models.runtime import runtime_name
from tflite_models.store import prepare
from tools.bench.board import make_board, on_board
from tools.bench.worker_load import BenchError
from tools.output import console, print_table
from wire import channels, codec
from wire.inbox import Inbox
from wire.link import LinkSettings, Received, Subscription
from wire.messages import Outcomes, Telemetry
from wire.mqtt import Link
from wire.plan import INPUT, NO_CODEC, OUTPUT, Plan

SITE, DEVICE = "bench", "board"
VERSION, CODEC = "resnet-light", "q8"
SETTLE_S = 3.0
"""After the first frame, before the measured time begins: connecting, first telemetry, first link probes."""
PATIENCE_S = 60.0
TARGET_MB, TARGET_START_S, TARGET_CPU_MS = 70.0, 1.0, 1.0


@dataclass(frozen=True, slots=True)
class Run:
    """One repeat of one plan: the bare loop, and the client behind a real broker with worker and recorder."""

    plan: str
    fps: float
    """Frames per second; 0: as fast as possible."""
    bare_cpu_ms: float
    bare_resident_mb: float
    client_cpu_ms: float
    client_resident_mb: float
    client_peak_mb: float
    first_frame_s: float
    """From the start of the process to the answer of its first frame."""
    frames: int
    edge_frames: int

    @property
    def added_cpu_ms(self) -> float:
        """CPU time per frame beyond head and codec."""
        return self.client_cpu_ms - self.bare_cpu_ms


def device(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure to this file.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Length of one measurement.")] = 5.0,
    fps: Annotated[
        str, typer.Option(help="Frames per second of client and bare loop; 0: as fast as possible.")
    ] = "0,10",
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each figure.")] = 3,
) -> None:
    """Compare the device client with the bare interpreter loop: memory, start, CPU per frame.

    Between rare frames the processor's caches go cold, for client and bare loop alike: hence two rates.
    The client runs with the packages of a board alone, connected to a real broker, worker and recorder.
    Example: splitfleet bench device --json device.json
    """
    with tempfile.TemporaryDirectory(prefix="splitfleet-bench-") as folder:
        root = Path(folder)
        version = prepare(load_catalog(shipped_zoo()).folder(VERSION), root / "store" / VERSION, heads=True, tails=True)
        cuts = [cut.name for cut in version.version.cuts if cut.name not in (INPUT, OUTPUT)]
        plans = [Plan(VERSION, OUTPUT, NO_CODEC), Plan(VERSION, cuts[-1], CODEC)]
        shutil.copy(shipped_pack(), root / "frames.npz")
        make_board(root / "board")
        shutil.copy(Path(__file__).with_name("bare.py"), root / "board")
        settings = BrokerSettings(folder=str(root / "broker"), port=0, log_file=str(root / "broker.log"))
        with start_broker(settings) as broker, _edge(root, broker):
            bench = _Bench(root, broker, seconds)
            rates = [float(rate) for rate in fps.split(",")]
            runs = [bench.run(plan, rate) for _ in range(repeats) for rate in rates for plan in plans]
            broker_name = str(broker)
    _print(runs)
    if json_file is not None:
        document = {
            "broker": broker_name, "runtime": runtime_name(), "seconds": seconds,
            "targets": {"resident_mb": TARGET_MB, "first_frame_s": TARGET_START_S, "added_cpu_ms": TARGET_CPU_MS},
            "runs": [{**dataclasses.asdict(run), "added_cpu_ms": run.added_cpu_ms} for run in runs],
        }  # fmt: skip
        json_file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        console().print(f"written to {json_file}")


class _Bench:
    """Runs client and bare loop by turns."""

    def __init__(self, root: Path, broker: Broker, seconds: float) -> None:
        self._root = root
        self._broker = broker
        self._seconds = seconds
        self._states = 0

    def run(self, plan: Plan, fps: float) -> Run:
        """Measure one plan at one rate once."""
        bare = self._bare(plan, fps)
        run = self._client(plan, fps, bare)
        sys.stderr.write(
            f"{plan}, {_rate(fps)}: {run.client_resident_mb:.1f} MB, first frame after {run.first_frame_s:.2f} s, "
            f"{run.added_cpu_ms:.2f} ms of CPU per frame beyond {bare['cpu_ms']:.2f}\n"
        )
        return run

    def _bare(self, plan: Plan, fps: float) -> dict[str, float]:
        arguments = [self._root / "store", self._root / "frames.npz", plan, fps, self._seconds]
        command = on_board(self._root / "board", "bare", *map(str, arguments))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"the bare loop failed: {done.stderr[-500:]}")
        measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return measured

    def _client(self, plan: Plan, fps: float, bare: dict[str, float]) -> Run:
        self._states += 1
        state = self._root / f"state-{self._states}"
        settings = self._root / "device.toml"
        document = {
            "site": SITE, "name": DEVICE, "models": str(self._root / "store"), "state": str(state),
            "safe_plan": str(plan), "log_level": "WARNING",
            "camera": {"path": str(self._root / "frames.npz"), "fps": fps},
            "link": {"port": self._broker.port},
        }  # fmt: skip
        settings.write_text(tomli_w.dumps(document), encoding="utf-8")
        log = self._root / "device.log"
        with _Listener(self._broker.port) as listener, log.open("wb") as stderr:
            spawned_ms = time.time() * 1000
            client = psutil.Popen(on_board(self._root / "board", "device_client", str(settings)), stderr=stderr)
            try:
                first_ms = listener.first_frame_ms()
                before, cpu_before = listener.ended_after(SETTLE_S), _cpu_ms(client.pid)
                ended = listener.ended_after(self._seconds)
                ended.subtract(before)
                cpu_ms = (_cpu_ms(client.pid) - cpu_before) / max(ended.total(), 1)
                memory = client.memory_info().rss / 2**20
                peak = _peak_mb(client.pid)
            except BenchError as error:
                raise BenchError(f"{error}: {log.read_text(encoding='utf-8')[-500:]}") from error
            finally:
                client.terminate()
                client.wait(20)
        return Run(
            str(plan), fps, bare["cpu_ms"], bare["resident_mb"], cpu_ms, memory, peak, (first_ms - spawned_ms) / 1000,
            ended.total(), ended["outcome_edge"],
        )  # fmt: skip


class _Listener:
    """Hears the device's telemetry and ledger."""

    def __init__(self, port: int) -> None:
        self._inbox = Inbox()
        heard = (channels.TELEMETRY, channels.OUTCOMES)
        subscriptions = [Subscription(channels.topic(SITE, DEVICE, channel), 1) for channel in heard]
        link = LinkSettings(port=port, session_expiry_s=0)
        self._link = Link(link, "bench-listener", self._inbox, subscriptions=subscriptions, clean_start=True)

    def __enter__(self) -> _Listener:
        self._link.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop()

    def first_frame_ms(self) -> float:
        """Return when (wall clock, Unix milliseconds) the first frame had its answer."""

        def found(message: object) -> float | None:
            rows = message.rows if isinstance(message, Outcomes) else ()
            return next((row.captured_ms + row.latency_ms for row in rows if row.frame == 1), None)

        return float(self._wait(found, PATIENCE_S))

    def ended_after(self, seconds: float) -> Counter[str]:
        """Wait so long, and for the telemetry that comes next; return from it how many frames have ended how."""
        until = time.monotonic() + seconds

        def due(message: object) -> Telemetry | None:
            return message if isinstance(message, Telemetry) and time.monotonic() >= until else None

        told = self._wait(due, seconds + PATIENCE_S)
        return Counter({name: n for name, n in told.counters.items() if name.startswith("outcome_")})

    def _wait(self, wanted: Callable[[object], Any], seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for event in self._inbox.take(0.2):
                if isinstance(event, Received):
                    channel = channels.parse_topic(event.topic).channel
                    found = wanted(codec.decode(channel, event.payload))
                    if found is not None:
                        return found
        raise BenchError("the device client did not report")


@contextmanager
def _edge(root: Path, broker: Broker) -> Iterator[None]:
    """Run a worker and a recorder."""
    link = {"port": broker.port}
    documents: dict[str, dict[str, Any]] = {
        "worker": {"site": SITE, "name": "edge", "models": str(root / "store"), "link": link},
        "recorder": {"site": SITE, "link": link, "store": {"path": str(root / "points.sqlite")}},
    }
    processes = []
    try:
        for service, document in documents.items():
            settings = root / f"{service}.toml"
            settings.write_text(tomli_w.dumps(document), encoding="utf-8")
            with (root / f"{service}.log").open("wb") as stderr:
                command = [sys.executable, "-m", "edge_broker_side", service, str(settings)]
                processes.append(subprocess.Popen(command, stderr=stderr))
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)


def _cpu_ms(pid: int) -> float:
    """Return the processor time of all threads; the scheduler's own figure, since ticks are too coarse."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(file.read_text(encoding="utf-8").split()[0]) for file in files) / 1e6


def _rate(fps: float) -> str:
    return f"{fps:g} frames/s" if fps else "flat out"


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}–{max(values):.2f}]"


def _print(runs: Sequence[Run]) -> None:
    rows: list[list[object]] = []
    for plan, fps in dict.fromkeys((run.plan, run.fps) for run in runs):
        of = [run for run in runs if (run.plan, run.fps) == (plan, fps)]
        client_cpu = _spread([run.client_cpu_ms for run in of])
        at_edge = sum(run.edge_frames for run in of)
        rows += [
            [plan, "resident memory, MB", _spread([r.bare_resident_mb for r in of]),
             _spread([r.client_resident_mb for r in of]), f"≤ {TARGET_MB:g}"],
            [_rate(fps), "peak memory, MB", None, _spread([r.client_peak_mb for r in of]), None],
            ["", "start to first frame, s", None, _spread([r.first_frame_s for r in of]), f"< {TARGET_START_S:g}"],
            ["", "CPU per frame, ms", _spread([r.bare_cpu_ms for r in of]), client_cpu, None],
            ["", "beyond head and codec, ms", None, _spread([r.added_cpu_ms for r in of]), f"≤ {TARGET_CPU_MS:g}"],
            ["", "frames (of them by the edge)", None, f"{sum(r.frames for r in of)} ({at_edge})", None],
        ]  # fmt: skip
    print_table(
        f"Device client on {runtime_name()} (measured; median and range of the repeats)",
        ["plan", "figure", "bare loop", "client", "target"],
        rows,
    )
