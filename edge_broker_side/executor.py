"""The threads that compute: each has its own interpreters, takes one batch at a time and says what came of it."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_broker_side.batcher import Batch, Job, Key
from edge_broker_side.tails import TailCache
from tflite_models.activation import decode_activation, to_floats
from tflite_models.catalog import Catalog, ModelsError, TensorSpec, Version
from wire.inbox import Inbox
from wire.messages import Activation, ScoredLabel, Status
from wire.plan import OUTPUT
from wire.tensor import EncodedTensor, TensorError, encode

log = logging.getLogger(__name__)

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Request:
    """An activation and the device that sent it."""

    device: str
    activation: Activation
    deadline_ns: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request."""

    request: Request
    status: Status
    reason: str = ""
    best: ScoredLabel | None = None
    outputs: tuple[EncodedTensor, ...] = ()
    wait_ms: float = 0.0
    tail_ms: float = 0.0
    batch: int = 0


@dataclass(frozen=True, slots=True)
class Warm:
    """An executor has tried every tail: which take one frame at a time, and which cannot run at all."""

    executor: int
    runtime: str
    single: frozenset[Key]
    broken: Mapping[Key, str]


@dataclass(frozen=True, slots=True)
class Done:
    """A batch is through: one answer for each of its jobs."""

    executor: int
    key: Key
    answers: tuple[Answer, ...]
    tail_ms: float
    """0 where no tail ran."""
    computed: int
    """Frames that went through the tail."""


class Executor:
    """One thread with its own tails. Results go to ``inbox``; the loop thread gives it one batch at a time."""

    def __init__(self, number: int, catalog: Catalog, tails: TailCache, inbox: Inbox) -> None:
        self._number = number
        self._catalog = catalog
        self._tails = tails
        self._inbox = inbox
        self._work: queue.SimpleQueue[Batch[Request] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"executor-{number}", daemon=True)

    def start(self) -> None:
        """Begin by trying every tail; ``Warm`` follows."""
        self._thread.start()

    def give(self, batch: Batch[Request]) -> None:
        """Compute a batch; ``Done`` follows."""
        self._work.put(batch)

    def stop(self) -> None:
        """End after the batch at hand."""
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        self._inbox.put(self._warm_up())
        while (batch := self._work.get()) is not None:
            try:
                done = self._compute(batch)
            except Exception as error:  # the outermost loop: whatever a stranger's tensors did, the thread lives
                log.exception("a batch of %s failed", batch.key)
                reason = f"{type(error).__name__}: {error}"[:200]
                answers = tuple(Answer(job.content, Status.FAILED, reason) for job in batch.jobs)
                done = Done(self._number, batch.key, answers, 0.0, 0)
            self._inbox.put(done)

    def _warm_up(self) -> Warm:
        runtime, single, broken = "", set(), {}
        for version in self._catalog:
            for cut in version.cuts:
                key = Key(version.name, cut.name)
                if cut.name == OUTPUT:
                    continue
                try:
                    tail = self._tails.get(key)
                except Exception as error:  # whatever a stranger's model does, the worker waits for this thread
                    if not isinstance(error, ModelsError | OSError):
                        log.exception("tail %s cannot be tried", key)
                    broken[key] = str(error) or type(error).__name__
                    continue
                runtime = tail.runtime
                if not tail.takes_batches:
                    single.add(key)
        return Warm(self._number, runtime, frozenset(single), broken)

    def _compute(self, batch: Batch[Request]) -> Done:
        version = self._catalog.folder(batch.key.version).version
        cut = version.cut(batch.key.cut)
        answers, good, frames = [], [], []
        for job in batch.jobs:
            try:
                frames.append(decode_activation(cut, job.content.activation.tensors))
                good.append(job)
            except TensorError as error:
                answers.append(Answer(job.content, Status.BAD_TENSOR, str(error)[:200]))
        if not good:
            return Done(self._number, batch.key, tuple(answers), 0.0, 0)
        began_ns = time.monotonic_ns()
        try:
            tail = self._tails.get(batch.key)
            outputs = tail.run(frames)
        except ModelsError as error:
            log.error("tail %s failed: %s", batch.key, error)
            answers += [Answer(job.content, Status.FAILED, str(error)[:200]) for job in good]
            return Done(self._number, batch.key, tuple(answers), 0.0, 0)
        tail_ms = (time.monotonic_ns() - began_ns) / 1e6
        for job, output in zip(good, outputs, strict=True):
            answers.append(_answer(job, version, tail.outputs, output, began_ns, tail_ms, len(good)))
        return Done(self._number, batch.key, tuple(answers), tail_ms, len(good))


def _answer(
    job: Job[Request],
    version: Version,
    specs: tuple[TensorSpec, ...],
    output: tuple[Array, ...],
    began_ns: int,
    tail_ms: float,
    batch: int,
) -> Answer:
    wait_ms = (began_ns - job.arrived_ns) / 1e6
    try:
        best, outputs = read_output(version, specs, output)
    except TensorError as error:
        return Answer(job.content, Status.FAILED, f"the output: {error}"[:200])
    return Answer(
        job.content,
        Status.OK,
        best=best,
        outputs=outputs,
        wait_ms=wait_ms,
        tail_ms=tail_ms,
        batch=batch,
    )


def read_output(
    version: Version, specs: tuple[TensorSpec, ...], output: tuple[Array, ...]
) -> tuple[ScoredLabel | None, tuple[EncodedTensor, ...]]:
    """Return the best label of a classifier (labels known, one output [1, n]), else the raw outputs.

    Quantised outputs are given as the floats they stand for. Raises ``TensorError`` for values that are not finite.
    """
    floats = [
        to_floats(spec, array) if array.dtype.kind in "iu" and spec.scale else array
        for spec, array in zip(specs, output, strict=True)
    ]
    if not (version.labels and len(floats) == 1 and floats[0].ndim == 2):
        return None, tuple(encode(array, "f32" if array.dtype.kind == "f" else "i8") for array in floats)
    scores = floats[0][0]
    label = int(np.argmax(scores))
    score = float(scores[label])
    if not np.isfinite(score):
        raise TensorError(f"the best score is {score}")
    return ScoredLabel(label, score), ()
