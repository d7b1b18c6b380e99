"""Runs plans on this board: head and codec for the edge, or the whole network here; loads and warms what it needs."""

from __future__ import annotations

import importlib.util
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_client.camera import Pixels, fit
from tflite_models.activation import Array, encode_activation, frame_to_input
from tflite_models.catalog import Catalog, CatalogError, Version, sha256_of
from tflite_models.runtime import ModelError, Submodel
from wire.messages import MODEL_DIGITS, ScoredLabel
from wire.plan import INPUT, NO_CODEC, OUTPUT, Plan
from wire.tensor import IMAGE_CODECS, TENSOR_CODECS, EncodedTensor, encode

LOADED_MAX = 4
"""Submodels kept in memory: the current head and whole network, and those of the plan before."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A frame ready to be sent."""

    tensors: tuple[EncodedTensor, ...]
    head_ms: float
    encode_ms: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A frame computed here; ``best`` for a classifier, ``outputs`` for anything else."""

    best: ScoredLabel | None
    outputs: tuple[EncodedTensor, ...]
    ms: float


class Engine:
    """Every submodel of this process. For one thread.

    ``slowdown`` above 1 emulates a slower board: it sleeps that multiple of the processor time that a computation took.
    Of the wall time, a busy machine would multiply its own pauses too.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        threads: int = 1,
        runtime: str | None = None,
        slowdown: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._catalog = catalog
        self._threads = threads
        self._runtime = runtime
        self._slowdown = slowdown
        self._sleep = sleep
        self._clock = time.thread_time if slowdown > 1 else time.perf_counter
        self._loaded: OrderedDict[tuple[str, str], Submodel] = OrderedDict()

    def renew(self, catalog: Catalog) -> None:
        """Go by another catalog; submodels of versions whose file is another one now are let go."""
        before, self._catalog = self._catalog, catalog
        for key in list(self._loaded):
            held, now = before.folders.get(key[0]), catalog.folders.get(key[0])
            if held is None or now is None or held.version.sha256 != now.version.sha256:
                del self._loaded[key]

    def model(self, version: str) -> str:
        """Return what tells a version's file from another of the same name."""
        return self._catalog.folder(version).version.sha256[:MODEL_DIGITS]

    def check(self, plan: Plan) -> str | None:
        """Return why this board cannot follow a plan, or ``None`` when it can."""
        try:
            folder = self._catalog.folder(plan.version)
            folder.version.cut(plan.cut)
            folder.version.facts(plan.cut, plan.codec)
            if plan.cut != INPUT and not folder.head(plan.cut).is_file():
                return f"{folder.head(plan.cut).name} of {plan.version} is not on this board"
        except CatalogError as error:
            return str(error)
        shapes = [spec.shape for spec in folder.version.inputs]
        if [(len(shape), shape[0], shape[-1]) for shape in shapes] != [(4, 1, 3)]:
            return f"{plan.version} takes {shapes}, not one colour picture"
        if plan.codec != NO_CODEC and plan.codec not in codecs_here():
            return f"codec {plan.codec} needs Pillow: pip install pillow"
        return None

    def prepare(self, plan: Plan) -> None:
        """Load and run once what a plan and its fallback need, so that no frame pays for it.

        Raises ``ModelsError`` or ``WireError`` where something of it does not work.
        """
        self._submodel(plan.version, OUTPUT)
        if not plan.is_local:
            shape = self._catalog.folder(plan.version).version.inputs[0].shape
            self._encode(plan, np.zeros(shape[1:], np.uint8))

    def run_head(self, plan: Plan, image: Pixels) -> Encoded:
        """Run the head of a plan that is not local, and encode what crosses."""
        encoded = self._encode(plan, image)
        self._slow(encoded.head_ms + encoded.encode_ms)
        return encoded

    def _encode(self, plan: Plan, image: Pixels) -> Encoded:
        version = self._catalog.folder(plan.version).version
        cut, facts = version.cut(plan.cut), version.facts(plan.cut, plan.codec)
        head = None if plan.cut == INPUT else self._submodel(plan.version, plan.cut)
        began = self._clock()
        picture = _fitted(version, image)
        crossing = (picture,) if head is None else head.run(frame_to_input(version.inputs[0], picture))
        ran = self._clock()
        tensors = encode_activation(cut, facts, crossing)
        done = self._clock()
        factor = 1000 * self._slowdown
        return Encoded(tensors, (ran - began) * factor, (done - ran) * factor)

    def run_whole(self, version_name: str, image: Pixels) -> Answer:
        """Run a whole network here."""
        version = self._catalog.folder(version_name).version
        model = self._submodel(version_name, OUTPUT)
        began = self._clock()
        outputs = model.run(frame_to_input(version.inputs[0], _fitted(version, image)))
        ms = (self._clock() - began) * 1000 * self._slowdown
        self._slow(ms)
        best = best_label(version, outputs)
        rest = () if best else tuple(encode(o, "f32" if o.dtype.kind == "f" else "i8") for o in outputs)
        return Answer(best, rest, ms)

    def _submodel(self, version: str, cut: str) -> Submodel:
        key = (version, cut)
        model = self._loaded.get(key)
        if model is None:
            path = self._checked_head(version, cut)
            model = Submodel(path, threads=self._threads, prefer="light", runtime=self._runtime)
            model.warm_up()
            self._loaded[key] = model
            while len(self._loaded) > LOADED_MAX:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(key)
        return model

    def _checked_head(self, version: str, cut: str) -> Path:
        """Return the file of a head whose bytes are what the manifest says: the interpreter trusts them blindly."""
        folder = self._catalog.folder(version)
        path = folder.head(cut)
        promised = folder.version.sha256 if cut == OUTPUT else folder.version.cut(cut).head_sha256
        if promised and sha256_of(path) != promised:
            raise CatalogError(f"{path} is not the file its manifest describes (sha256 differs): deploy it again")
        return path

    def _slow(self, emulated_ms: float) -> None:
        """Make a computation last as long as on the emulated board; what it really took is part of that."""
        if self._slowdown > 1:
            self._sleep(emulated_ms * (1 - 1 / self._slowdown) / 1000)


def best_label(version: Version, outputs: tuple[Array, ...]) -> ScoredLabel | None:
    """Return the highest score where a version is a classifier (labels, and one output of that many scores)."""
    if not version.labels or len(outputs) != 1 or outputs[0].size != len(version.labels):
        return None
    scores = outputs[0].reshape(-1)
    best = int(np.argmax(scores))
    if not np.isfinite(scores[best]):
        raise ModelError(f"{version.name} answered with a score that is not a number")
    return ScoredLabel(best, float(scores[best]))


def codecs_here() -> tuple[str, ...]:
    """Return the codecs this board can encode: those of pictures need Pillow, which a 32-bit board may lack."""
    return (*TENSOR_CODECS, *(IMAGE_CODECS if importlib.util.find_spec("PIL") else ("raw8",)))


def _fitted(version: Version, image: Pixels) -> Pixels:
    shape = version.inputs[0].shape
    return fit(image, shape[1], shape[2])[np.newaxis]
