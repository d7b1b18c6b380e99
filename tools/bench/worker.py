"""The command ``splitfleet bench worker``: the worker behind a real broker against the bare interpreter loop."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from edge_broker_side.broker import Broker, BrokerSettings, start_broker
from tflite_models.catalog import MANIFEST, MODEL, Cut, Provenance, TensorSpec, Version, version_to_json
from tflite_models.runtime import Submodel
from tflite_models.synthetic import conv_chain
from tools.bench.worker_load import BenchError, Generator, Ledger
from tools.output import check_writable, console, print_table
from wire.plan import Plan
from wire.tensor import EncodedTensor, encode

SITE = "bench"
CODEC = "q8"
SIDE, CHANNELS = 16, 32
BATCHES = (1, 2, 4, 8, 16, 32)
LEAST_BATCHES = 12
"""Of every closed-loop run: the rate of fewer stairs is too uncertain."""
HALF = 0.5
Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Made:
    """A tail of about the time wanted, and the activation that is sent to it."""

    version: str
    path: Path
    single_ms: float
    array: NDArray[np.float32]
    tensor: EncodedTensor


@dataclass(frozen=True, slots=True)
class Throughput:
    """One tail at one batch size: frames per second of the bare loop and through the broker, per repeat."""

    tail: str
    single_ms: float
    batch: int
    bare_fps: tuple[float, ...]
    worker_fps: tuple[float, ...]
    batch_mean: float
    sent: int
    lost: int
    doubled: int
    refused: int

    @property
    def ratios(self) -> list[float]:
        """Worker over bare, repeat by repeat: the two were measured one behind the other."""
        return [worker / bare for worker, bare in zip(self.worker_fps, self.bare_fps, strict=True)]


@dataclass(frozen=True, slots=True)
class Added:
    """One tail at half load, constant rate: what broker and worker add to its bare time, per repeat."""

    tail: str
    single_ms: float
    per_s: float
    added_ms_p50: tuple[float, ...]
    added_ms_p99: tuple[float, ...]
    sent: int
    lost: int
    doubled: int
    refused: int


def worker(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure to this file.")] = None,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of one measurement.")] = 3.0,
    tails: Annotated[str, typer.Option(help="Times of the tails, in ms.")] = "1,5,20",
    batches: Annotated[str, typer.Option(help="Largest batches of the worker.")] = ",".join(map(str, BATCHES)),
    repeats: Annotated[int, typer.Option(min=1, help="Measurements of each figure.")] = 3,
) -> None:
    """Compare the worker behind a real broker with the bare interpreter loop on the same core.

    Worker and bare loop have the last core, broker and load the first: no figure is true while others use them.

    Example: splitfleet bench worker --tails 5 --batches 1,32
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchError("this bench needs two cores: one for the worker, one for broker and load")
    load_core, worker_core = cores[0], cores[-1]
    sizes = [int(size) for size in _numbers("--batches", batches, least=1)]
    times = _numbers("--tails", tails, least=0.01)
    check_writable(json_file)
    os.sched_setaffinity(0, {load_core})
    try:
        with tempfile.TemporaryDirectory(prefix="splitfleet-bench-") as folder:
            root = Path(folder)
            made = [_make(root / "store", tail, worker_core) for tail in times]
            settings = BrokerSettings(folder=str(root / "broker"), port=0, log_file=str(root / "broker.log"))
            with start_broker(settings) as broker:
                bench = _Bench(root, broker, worker_core, seconds, repeats)
                throughput = [row for size in sizes for row in bench.throughput(made, size)]
                added = bench.added(made)
                broker_name = str(broker)
    finally:
        os.sched_setaffinity(0, cores)
    _print(throughput, added)
    if json_file is not None:
        _write_json(json_file, broker_name, throughput, added)


def _numbers(option: str, text: str, *, least: float) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(least <= number < 10_000 for number in numbers):
        raise typer.BadParameter(f"'{text}': write numbers of {least:g} or more, such as 5,20", param_hint=option)
    return numbers


class _Bench:
    """A broker on one core, and workers that come and go on another."""

    def __init__(self, root: Path, broker: Broker, core: int, seconds: float, repeats: int) -> None:
        self._root = root
        self._broker = broker
        self._core = core
        self._seconds = seconds
        self._repeats = repeats

    def throughput(self, made: Sequence[Made], batch: int) -> Iterator[Throughput]:
        """Measure every tail in closed loop, with a worker whose largest batch is ``batch``."""
        name = f"batch-{batch}"
        with self._worker(name, max_batch=batch) as load:
            for tail in made:
                seconds = max(self._seconds, LEAST_BATCHES * batch * tail.single_ms / 1000)
                bare, ledgers = [], []
                for _ in range(self._repeats):
                    bare.append(batch * 1000 / float(_bare_ms(tail, batch, self._core, self._seconds / 3).mean()))
                    plan = Plan(tail.version, "mid", CODEC)
                    ledgers.append(load.closed(plan, tail.tensor, seconds, in_flight=max(8, 3 * batch)))
                    _progress(f"{tail.version}, batch {batch}: {ledgers[-1].frames_per_s() / bare[-1]:.3f} of bare")
                yield Throughput(
                    tail.version,
                    tail.single_ms,
                    batch,
                    tuple(bare),
                    tuple(ledger.frames_per_s() for ledger in ledgers),
                    statistics.fmean(size for ledger in ledgers for size in ledger.batches),
                    **_account(ledgers),
                )

    def added(self, made: Sequence[Made]) -> list[Added]:
        """Measure every tail at half the bare loop's rate, with a worker as it is by default."""
        rows = []
        with self._worker("half-load") as load:
            for tail in made:
                per_s = HALF * 1000 / tail.single_ms
                p50, p99, ledgers = [], [], []
                for _ in range(self._repeats):
                    bare_ms = np.median(_bare_ms(tail, 1, self._core, self._seconds / 3))
                    plan = Plan(tail.version, "mid", CODEC)
                    load.steady(plan, tail.tensor, 0.3, per_s)
                    ledgers.append(load.steady(plan, tail.tensor, max(self._seconds, 200 / per_s), per_s))
                    added = ledgers[-1].latencies_ms() - bare_ms
                    p50.append(float(np.percentile(added, 50)))
                    p99.append(float(np.percentile(added, 99)))
                    _progress(f"{tail.version}, half load: {p50[-1]:.2f} ms added, p99 {p99[-1]:.2f} ms")
                rows.append(Added(tail.version, tail.single_ms, per_s, tuple(p50), tuple(p99), **_account(ledgers)))
        return rows

    @contextmanager
    def _worker(self, name: str, **more: int) -> Iterator[Generator]:
        """Run a worker of one thread on its core, and a load generator that has heard of it."""
        toml = self._root / f"{name}.toml"
        lines = [f'site = "{SITE}"', f'name = "{name}"', f'models = "{self._root / "store"}"', "threads = 1"]
        lines += [f"{key} = {value}" for key, value in more.items()]
        toml.write_text("\n".join([*lines, "[link]", f"port = {self._broker.port}", ""]), encoding="utf-8")
        log = self._root / f"{name}.log"
        with log.open("wb") as stderr:
            command = [sys.executable, "-m", "edge_broker_side", "worker", str(toml)]
            process = subprocess.Popen(command, stderr=stderr)
        os.sched_setaffinity(process.pid, {self._core})
        load = Generator(self._broker.port, SITE)
        try:
            load.wait_for(name)
            yield load
        except BenchError as error:
            raise BenchError(f"{error}: {log.read_text(encoding='utf-8')[-500:]}") from error
        finally:
            load.close()
            process.terminate()
            process.wait(20)


def _make(store: Path, wanted_ms: float, core: int) -> Made:
    """Write a version whose tail takes about ``wanted_ms`` on the worker's core."""
    probe = conv_chain(16, SIDE, SIDE, CHANNELS, pooled=True)
    array = np.random.default_rng(0).uniform(0, 1, (1, SIDE, SIDE, CHANNELS)).astype(np.float32)
    layers = max(1, round(16 * wanted_ms / _times_ms(Submodel(probe, prefer="fast"), array, core, 0.5).min()))
    model = conv_chain(layers, SIDE, SIDE, CHANNELS, pooled=True)
    submodel = Submodel(model, prefer="fast")
    name = f"tail-{wanted_ms:g}ms"
    folder = store / name
    folder.mkdir(parents=True)
    for file in (MODEL, "mid.tail.tflite"):
        (folder / file).write_bytes(model)
    labels = tuple(f"class-{n}" for n in range(CHANNELS))
    cuts = (
        Cut("mid", 1, (TensorSpec("activation", array.shape, "float32"),), 0, 0),
        Cut("output", 2, submodel.outputs, 0, 0),
    )
    made_by = Provenance("splitfleet bench worker", "", submodel.runtime, 0)
    version = Version(
        name, "bench", "", len(model), "float32", submodel.inputs, submodel.outputs, 0, None, labels, "2.14",
        cuts, (), made_by,
    )  # fmt: skip
    (folder / MANIFEST).write_text(version_to_json(version), encoding="utf-8")
    single_ms = float(np.median(_times_ms(submodel, array, core, 0.5)))
    return Made(name, folder / "mid.tail.tflite", single_ms, array, encode(array, CODEC))


def _bare_ms(tail: Made, batch: int, core: int, seconds: float) -> Times:
    """Return the times of batches in the bare loop: nothing but an interpreter and one prepared array."""
    return _times_ms(Submodel(tail.path, prefer="fast"), np.repeat(tail.array, batch, 0), core, seconds)


def _times_ms(submodel: Submodel, array: NDArray[np.float32], core: int, seconds: float) -> Times:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    times: list[float] = []
    try:
        submodel.run(array)
        while sum(times) < seconds * 1000 or len(times) < 3:
            began_ns = time.perf_counter_ns()
            submodel.run(array)
            times.append((time.perf_counter_ns() - began_ns) / 1e6)
    finally:
        os.sched_setaffinity(0, before)
    return np.array(times)


def _account(ledgers: Sequence[Ledger]) -> dict[str, int]:
    return {
        "sent": sum(len(ledger.sent_ns) for ledger in ledgers),
        "lost": sum(ledger.open for ledger in ledgers),
        "doubled": sum(ledger.doubled for ledger in ledgers),
        "refused": sum(sum(ledger.refused.values()) for ledger in ledgers),
    }


def _progress(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}–{max(values):.{digits}f}]"


def _print(throughput: Sequence[Throughput], added: Sequence[Added]) -> None:
    print_table(
        "Throughput, closed loop (median and range of the repeats)",
        ["tail", "ms", "batch", "bare fps", "worker fps", "ratio", "mean batch", "sent", "lost", "doubled", "refused"],
        [
            [
                row.tail, f"{row.single_ms:.2f}", row.batch, f"{statistics.median(row.bare_fps):.0f}",
                f"{statistics.median(row.worker_fps):.0f}", _spread(row.ratios, 3), f"{row.batch_mean:.1f}",
                row.sent, row.lost, row.doubled, row.refused,
            ]
            for row in throughput
        ],
    )  # fmt: skip
    print_table(
        "Added latency at half load, constant rate (round trip less the bare tail)",
        ["tail", "ms", "frames/s", "p50 ms", "p99 ms", "sent", "lost", "doubled", "refused"],
        [
            [
                row.tail, f"{row.single_ms:.2f}", f"{row.per_s:.0f}", _spread(row.added_ms_p50, 2),
                _spread(row.added_ms_p99, 2), row.sent, row.lost, row.doubled, row.refused,
            ]
            for row in added
        ],
    )  # fmt: skip


def _write_json(path: Path, broker: str, throughput: Sequence[Throughput], added: Sequence[Added]) -> None:
    document: dict[str, Any] = {
        "broker": broker,
        "runtime": Submodel(conv_chain(1, 1, 1, 1), prefer="fast").runtime,
        "throughput": [{**dataclasses.asdict(row), "ratios": row.ratios} for row in throughput],
        "added_latency": [dataclasses.asdict(row) for row in added],
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    console().print(f"written to {path}")
