"""Measures what every tail costs on this machine, and what a worker spends on a frame beside it."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_broker_side.batcher import Key
from edge_broker_side.executor import read_output
from edge_broker_side.tails import Tail, sample
from tflite_models.activation import decode_activation, encode_activation
from tflite_models.catalog import Catalog, Cut, PlanFacts, Version
from tflite_models.profile import EdgeProfile, TailCost
from wire import channels
from wire.codec import decode, encode
from wire.messages import Activation, Outcome, Result, Status
from wire.plan import INPUT, OUTPUT, Plan

Progress = Callable[[str, int, int], None]
"""Called with what is measured next, how many are done, and how many there are."""

BATCHES = (1, 2, 4, 8, 16, 32)
LINK_MS = 0.25
"""Assumed for receiving an activation and sending its answer over MQTT; the rest of the overhead is measured."""
MAX_SECONDS_PER_POINT = 0.3


def profile_edge(
    catalog: Catalog,
    *,
    batches: Sequence[int] = BATCHES,
    repeats: int = 5,
    threads: int = 0,
    runtime: str | None = None,
    progress: Progress | None = None,
) -> EdgeProfile:
    """Measure every tail at every batch size, median of ``repeats``; ``threads`` 0: one per core.

    Raises ``ModelsError`` for a tail that cannot run.
    """
    pairs = [(version, cut) for version in catalog for cut in version.cuts if cut.name != OUTPUT]
    costs, overheads, name = [], [], ""
    for done, (version, cut) in enumerate(pairs):
        key = Key(version.name, cut.name)
        if progress:
            progress(str(key), done, len(pairs))
        tail = Tail(catalog, key, runtime=runtime)
        name = tail.runtime
        frame = _frame(version, cut)
        sizes = batches if tail.takes_batches else batches[:1]
        costs.append(TailCost(key.version, key.cut, tuple((n, _time_ms(tail, frame, n, repeats)) for n in sizes)))
        overheads.append(_overhead_ms(version, cut, tail, frame, repeats))
    if progress:
        progress("done", len(pairs), len(pairs))
    return EdgeProfile(
        machine=f"{platform.machine()}, {os.cpu_count()} cores, {_cpu_name()}",
        runtime=name,
        threads=threads or len(os.sched_getaffinity(0)),
        overhead_ms=LINK_MS + (statistics.median(overheads) if overheads else 0.0),
        tails=tuple(costs),
    )


def _frame(version: Version, cut: Cut) -> tuple[NDArray[Any], ...]:
    """Return inputs of a tail of plausible content."""
    rng = np.random.default_rng(1)
    specs = version.inputs if cut.name == INPUT else cut.tensors
    return tuple(sample(spec, rng) for spec in specs)


def _time_ms(tail: Tail, frame: tuple[NDArray[Any], ...], batch: int, repeats: int) -> float:
    frames = [frame] * batch
    tail.run(frames)  # allocates for this size
    return _median_ms(lambda: tail.run(frames), repeats)


def _overhead_ms(version: Version, cut: Cut, tail: Tail, frame: tuple[NDArray[Any], ...], repeats: int) -> float:
    """Time what is done to one frame before and behind its tail, save for the link."""
    rng = np.random.default_rng(2)
    arrays: Iterable[NDArray[Any]] = frame
    if cut.name == INPUT:
        arrays = [rng.integers(0, 256, spec.shape).astype(np.uint8) for spec in cut.tensors]
    facts = next((f for f in version.plans if f.cut == cut.name), PlanFacts(cut.name, _any_codec(cut), 0, 0, None))
    plan = Plan(version.name, cut.name, facts.codec)
    payload = encode(channels.ACTIVATION, Activation(1, 1, plan, encode_activation(cut, facts, list(arrays)), 100.0, 1))
    outputs = tail.run([frame])[0]

    def around() -> None:
        activation = decode(channels.ACTIVATION, payload)
        decode_activation(cut, activation.tensors)
        best, raw = read_output(version, tail.outputs, outputs)
        encode(channels.RESULT, Result(1, 1, plan, Status.OK, Outcome.EDGE, "worker", best, raw))

    return _median_ms(around, repeats * 3)


def _any_codec(cut: Cut) -> str:
    if cut.name == INPUT:
        return "raw8"
    return "f32" if all(spec.dtype == "float32" for spec in cut.tensors) else "i8"


def _median_ms(work: Callable[[], object], repeats: int) -> float:
    times: list[float] = []
    while len(times) < repeats and sum(times) < MAX_SECONDS_PER_POINT * 1000:
        began_ns = time.perf_counter_ns()
        work()
        times.append((time.perf_counter_ns() - began_ns) / 1e6)
    return statistics.median(times)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown processor"
