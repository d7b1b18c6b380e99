"""Prove that head and tail compose to the whole, bit for bit, on the runtime that will run them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tflite_models.catalog import Cut, TensorSpec
from tflite_models.runtime import Array, Preference, Submodel
from tflite_models.splitter.graph import Graph, load_graph
from tflite_models.splitter.halves import split


@dataclass(frozen=True, slots=True)
class CutCheck:
    """How far tail(head(x)) was from the whole at one cut."""

    index: int
    tensors: int
    max_abs_diff: float
    """0 where every output was bit-exact; infinite where one was not a number and the other was."""
    head_bytes: int
    tail_bytes: int


def verify(
    path: Path,
    cuts: Sequence[Cut],
    *,
    samples: int = 3,
    seed: int = 0,
    runtime: str | None = None,
    prefer: Preference = "fast",
    threads: int = 1,
) -> list[CutCheck]:
    """Check every cut of a file on random inputs; see ``check_each``."""
    graph = load_graph(path)
    return list(
        check_each(
            graph,
            cuts,
            samples=samples,
            seed=seed,
            runtime=runtime,
            prefer=prefer,
            threads=threads,
        )
    )


def check_each(
    graph: Graph,
    cuts: Sequence[Cut],
    *,
    samples: int = 3,
    seed: int = 0,
    runtime: str | None = None,
    prefer: Preference = "fast",
    threads: int = 1,
) -> Iterator[CutCheck]:
    """Yield one check per cut. Raises ``ModelError`` where a file does not run, ``SplitRefused``."""

    def load(file: bytes, origin: str) -> Submodel:
        return Submodel(file, threads=threads, prefer=prefer, runtime=runtime, origin=origin)

    rng = np.random.default_rng(seed)
    whole = load(graph.data, graph.origin)
    frames = [[random_input(spec, rng) for spec in whole.inputs] for _ in range(samples)]
    wanted = [whole.run(*frame) for frame in frames]
    del whole
    for cut in cuts:
        head_file, tail_file = split(graph, cut.index)
        head = load(head_file, f"the head of {graph.origin} at {cut.name}")
        tail = load(tail_file, f"the tail of {graph.origin} at {cut.name}")
        worst = 0.0
        for frame, want in zip(frames, wanted, strict=True):
            got = tail.run(*head.run(*frame))
            worst = max(worst, *(_difference(a, b) for a, b in zip(want, got, strict=True)))
        yield CutCheck(cut.index, len(cut.tensors), worst, len(head_file), len(tail_file))


def random_input(spec: TensorSpec, rng: np.random.Generator) -> Array:
    """Return an input of a tensor's shape and type.

    Floats are uniform in [0, 1); 8- and 16-bit integers take their whole range; wider integers, which mostly
    number things in a table, stay below 4.
    """
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return rng.random(spec.shape).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, spec.shape).astype(dtype)
    info = np.iinfo(dtype)
    low, high = (info.min, info.max + 1) if dtype.itemsize <= 2 else (0, 4)
    return rng.integers(low, high, spec.shape).astype(dtype)


def _difference(want: Array, got: Array) -> float:
    if want.shape != got.shape or want.dtype != got.dtype:
        return float("inf")
    if want.tobytes() == got.tobytes():
        return 0.0
    a, b = want.astype(np.float64), got.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    difference = np.abs(a[~same] - b[~same])
    return float(np.nan_to_num(difference, nan=np.inf, posinf=np.inf).max())
