"""The tails that one executor thread holds ready: loaded, tried out, bounded in number and bytes."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_broker_side.batcher import Key
from tflite_models.catalog import Catalog, TensorSpec
from tflite_models.runtime import ModelError, Submodel

log = logging.getLogger(__name__)

Array = NDArray[Any]
TOLERANCE = 1e-3
"""Of the largest output: a batch may sum in another order than a single frame, more it may not differ."""


class Tail:
    """One loaded tail. Like its interpreter it belongs to the thread that made it."""

    def __init__(self, catalog: Catalog, key: Key, *, runtime: str | None, threads: int = 1) -> None:
        """Load and try it; raises ``ModelsError`` where it cannot run a single frame."""
        path = catalog.folder(key.version).tail(key.cut)
        self._submodel = Submodel(path, prefer="fast", runtime=runtime, threads=threads)
        self.outputs: tuple[TensorSpec, ...] = self._submodel.outputs
        self.size_bytes = path.stat().st_size
        self.takes_batches = _takes_batches(self._submodel)
        """Whether several frames can run at once, each answered as if alone."""
        self._submodel.warm_up()

    @property
    def runtime(self) -> str:
        """Name and version of the interpreter."""
        return self._submodel.runtime

    def run(self, frames: Sequence[Sequence[Array]]) -> list[tuple[Array, ...]]:
        """Return the outputs (batch of one each) of every frame, given its inputs; raises ``ModelsError``."""
        if len(frames) == 1 or not self.takes_batches:
            return [self._submodel.run(*frame) for frame in frames]
        stacked = [np.concatenate(arrays) for arrays in zip(*frames, strict=True)]
        outputs = self._submodel.run(*stacked)
        return [tuple(output[row : row + 1] for output in outputs) for row in range(len(frames))]


class TailCache:
    """Tails by key, least recently used first to go. Not thread-safe: one per executor."""

    def __init__(self, catalog: Catalog, *, max_tails: int, max_bytes: int, runtime: str | None = None) -> None:
        self._catalog = catalog
        self._max_tails = max_tails
        self._max_bytes = max_bytes
        self._runtime = runtime
        self._tails: OrderedDict[Key, Tail] = OrderedDict()
        self.loads = 0

    def __contains__(self, key: Key) -> bool:
        return key in self._tails

    def get(self, key: Key) -> Tail:
        """Return a tail, loading it if need be; raises ``ModelsError``."""
        tail = self._tails.get(key)
        if tail is None:
            tail = Tail(self._catalog, key, runtime=self._runtime)
            self.loads += 1
            self._tails[key] = tail
            self._shrink()
        self._tails.move_to_end(key)
        return tail

    def _shrink(self) -> None:
        """Keep the newest in any case: a single tail beyond the bound must still run."""
        while len(self._tails) > 1 and (
            len(self._tails) > self._max_tails or sum(t.size_bytes for t in self._tails.values()) > self._max_bytes
        ):
            self._tails.popitem(last=False)


def _takes_batches(submodel: Submodel) -> bool:
    """Try two unlike frames together and alone: some tails cannot be resized, some mix up their rows."""
    rng = np.random.default_rng(0)
    frames = [[sample(spec, rng) for spec in submodel.inputs] for _ in range(2)]
    alone = [submodel.run(*frame) for frame in frames]
    try:
        together = submodel.run(*(np.concatenate(pair) for pair in zip(*frames, strict=True)))
    except ModelError as error:
        log.info("runs one frame at a time: %s", error)
        return False
    for number, output in enumerate(together):
        if alone[0][number].shape[:1] != (1,):
            log.info("runs one frame at a time: output %d of a frame is not one row", number)
            return False
        rows = np.concatenate([outputs[number] for outputs in alone])
        if output.shape != rows.shape or not _alike(output, rows):
            log.info("runs one frame at a time: output %d of a batch is not that of its frames", number)
            return False
    return True


def _alike(left: Array, right: Array) -> bool:
    if left.dtype.kind == "f":
        return bool(np.allclose(left, right, rtol=TOLERANCE, atol=TOLERANCE * float(np.abs(right).max(initial=0))))
    return bool(np.all(np.abs(left.astype(np.int64) - right.astype(np.int64)) <= 1))


def sample(spec: TensorSpec, rng: np.random.Generator) -> Array:
    """Return values of the kind a tail may see."""
    kind = np.dtype(spec.dtype)
    if kind.kind == "f":
        return rng.uniform(0, 1, spec.shape).astype(kind)
    if kind.kind == "b":
        return rng.random(spec.shape) < 0.5
    if not spec.scale:  # indices, counts: small ones are always right
        return rng.integers(0, 2, spec.shape).astype(kind)
    limits = np.iinfo(kind)
    return rng.integers(max(limits.min, -128), min(limits.max, 127), spec.shape, endpoint=True).astype(kind)
