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
from edge_broker_side.profiling_link import Sample, handling_ms
from edge_broker_side.tails import Tail, sample
from tflite_models.activation import encode_activation
from tflite_models.catalog import Catalog, Cut, PlanFacts, Version
from tflite_models.profile import EdgeProfile, TailCost
from wire.plan import INPUT, OUTPUT, Plan
from wire.tensor import EncodedTensor

Progress = Callable[[str, int, int], None]
"""Called with what is measured next, how many are done, and how many there are."""

BATCHES = (1, 2, 4, 8, 16, 32)
HANDLED_TAILS = 5
"""Tails whose frames are sent through a broker, to measure what comes on top of a tail."""
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
    costs, samples, name = [], [], ""
    for done, (version, cut) in enumerate(pairs):
        key = Key(version.name, cut.name)
        if progress:
            progress(str(key), done, len(pairs))
        tail = Tail(catalog, key, runtime=runtime)
        name = tail.runtime
        frame = _frame(version, cut)
        sizes = batches if tail.takes_batches else batches[:1]
        costs.append(TailCost(key.version, key.cut, tuple((n, _time_ms(tail, frame, n, repeats)) for n in sizes)))
        samples.append((*_crossing(version, cut, frame), costs[-1].ms(1)))
    if progress:
        progress("done", len(pairs), len(pairs))
    return EdgeProfile(
        machine=f"{platform.machine()}, {os.cpu_count()} cores, {_cpu_name()}",
        runtime=name,
        threads=threads or len(os.sched_getaffinity(0)),
        overhead_ms=handling_ms(catalog, _spread(samples)) if samples else 0.0,
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


def _crossing(version: Version, cut: Cut, frame: tuple[NDArray[Any], ...]) -> tuple[Plan, tuple[EncodedTensor, ...]]:
    """Return a plan of this cut and what a device would send for one frame."""
    rng = np.random.default_rng(2)
    arrays: Iterable[NDArray[Any]] = frame
    if cut.name == INPUT:
        arrays = [rng.integers(0, 256, spec.shape).astype(np.uint8) for spec in cut.tensors]
    facts = next((f for f in version.plans if f.cut == cut.name), PlanFacts(cut.name, _any_codec(cut), 0, 0, None))
    return Plan(version.name, cut.name, facts.codec), encode_activation(cut, facts, list(arrays))


def _spread(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Return a few of all tails, from the quickest to the slowest."""
    ordered = sorted(samples, key=lambda sample: sample[2])
    places = np.unique(np.linspace(0, len(ordered) - 1, HANDLED_TAILS).round().astype(int))
    return [ordered[place] for place in places]


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
