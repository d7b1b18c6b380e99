"""Measures a version: for every cut and codec the bytes it ships and the answers it gets right."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tflite_models.activation import encode_activation, frame_to_input
from tflite_models.calibration import choose_clips, through_codec
from tflite_models.catalog import (
    MANIFEST,
    MODEL,
    Cut,
    ModelsError,
    PlanFacts,
    Provenance,
    Version,
    sha256_of,
    version_to_json,
)
from tflite_models.pictures import LOSSY, Trip, through_pictures
from tflite_models.runtime import LIGHT, ModelError, RuntimeUnavailable, Submodel
from tflite_models.splitter import Graph, load_graph, split
from wire.plan import INPUT, NO_CODEC, OUTPUT
from wire.tensor import Clip

Array = NDArray[Any]
Bytes = NDArray[np.uint8]
Progress = Callable[[str, int, int], None]
"""Called with (what is measured, frames done, frames in all)."""

FLOAT_CODECS = ("f32", "f16", "q8", "q4", "q2")
INTEGER_CODECS = ("i8", "q4", "q2")
LOSSLESS = ("f32", "i8")
BATCH = 32
CHUNK = 480
SIZED_EVERY = 5
"""Tensors of every fifth frame are really encoded; accuracy is taken over all frames."""


class MeasureError(ModelsError):
    """A model cannot be measured as asked; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What to measure on.

    ``calibration`` and ``frames`` are uint8 [n, height, width, channels], of the size the model takes;
    ``truth`` holds the class of each frame, ``None``: unknown, then only bytes are measured.
    """

    calibration: Bytes
    frames: Bytes
    truth: NDArray[np.integer[Any]] | None = None
    pictures: Mapping[str, Trip] | None = None
    """``through_pictures(frames)``, where it is at hand."""


@dataclass(frozen=True, slots=True)
class _Halves:
    cut: Cut
    head: Submodel
    tail: Submodel


def named_cuts(graph: Graph, names: Sequence[str]) -> list[Cut]:
    """Return the single-tensor cuts behind the layers named: the last tensor whose name has that layer in its path."""
    found = []
    for name in names:
        layer = re.compile(rf"(?:^|[/;]){re.escape(name)}(?:_\d+)?/")
        matches = [cut for cut in graph.cuts() if layer.search(cut.tensors[0].name)]
        if not matches:
            raise MeasureError(f"{graph.origin} has no cut behind a layer '{name}'")
        found.append(dataclasses.replace(matches[-1], name=name))
    return found


def measure_version(
    model: Path,
    cuts: Sequence[Cut],
    sample: Sample,
    *,
    name: str,
    family: str,
    labels: Sequence[str],
    provenance: Provenance,
    progress: Progress = lambda _what, _done, _all: None,
) -> Version:
    """Return the manifest of a model file; ``cuts`` are inner ones, from ``named_cuts`` or ``Graph.cuts``.

    ``provenance.runtime`` and ``.frames`` are filled in here. Clip ranges are chosen on ``sample.calibration``,
    everything else is measured on ``sample.frames``. Raises ``ModelsError``.
    """
    graph = load_graph(model)
    whole = Submodel(model, prefer="fast")
    if len(whole.inputs) != 1:
        raise MeasureError(f"{model} takes {len(whole.inputs)} inputs: only models of one picture can be measured")
    _check_frames(whole, sample)
    plans = _measure_whole(whole, sample, progress)
    accuracy = plans[0].accuracy
    hashed = []
    for cut in cuts:
        head, tail = split(graph, cut.index)
        hashed.append(dataclasses.replace(cut, head_sha256=_sha256(head), tail_sha256=_sha256(tail)))
        half = _Halves(hashed[-1], Submodel(head, prefer="fast"), Submodel(tail, prefer="fast"))
        plans.extend(_measure_cut(half, sample, accuracy, progress))
    frames = 0 if sample.truth is None else len(sample.frames)
    return Version(
        name=name,
        family=family,
        sha256=sha256_of(model),
        size_bytes=model.stat().st_size,
        precision=_precision(graph),
        inputs=graph.inputs,
        outputs=graph.outputs,
        macs=graph.macs,
        accuracy=accuracy,
        labels=tuple(labels),
        least_runtime=_least_runtime(model),
        cuts=(
            Cut(INPUT, 0, graph.inputs, 0, graph.macs),
            *hashed,
            Cut(OUTPUT, len(graph), graph.outputs, graph.macs, 0),
        ),
        plans=tuple(plans),
        provenance=dataclasses.replace(provenance, runtime=whole.runtime, frames=frames),
    )


def write_version(version: Version, model: Path, folder: Path) -> Path:
    """Put a model file and its manifest into ``folder/<version>`` and return that."""
    place = folder / version.name
    place.mkdir(parents=True, exist_ok=True)
    if model.resolve() != (place / MODEL).resolve():
        shutil.copyfile(model, place / MODEL)
    (place / MANIFEST).write_text(version_to_json(version), encoding="utf-8")
    return place


def _measure_whole(whole: Submodel, sample: Sample, progress: Progress) -> list[PlanFacts]:
    """Return the plan at cut ``output``, then those at cut ``input``."""
    accuracy = _share_right(whole, sample.frames, sample.truth)
    plans = [PlanFacts(OUTPUT, NO_CODEC, 0.0, 0.0, accuracy)]
    for codec, trip in (sample.pictures or through_pictures(sample.frames)).items():
        progress(f"{INPUT}/{codec}", 0, len(sample.frames))
        right = _share_right(whole, trip.frames, sample.truth) if codec in LOSSY else accuracy
        plans.append(_facts(INPUT, codec, trip.sizes, right))
    return plans


def _measure_cut(half: _Halves, sample: Sample, accuracy: float | None, progress: Progress) -> list[PlanFacts]:
    cut = half.cut
    floats = any(spec.dtype.startswith("float") for spec in cut.tensors)
    codecs = FLOAT_CODECS if floats else INTEGER_CODECS
    arrays = _run(half.head, sample.calibration)
    wanted = _tail(half, arrays)
    clips = {codec: choose_clips(cut, arrays, codec, lambda a: _tail(half, a), wanted) for codec in codecs}
    right = dict.fromkeys(codecs, 0)
    sizes: dict[str, list[int]] = {codec: [] for codec in codecs}
    for start in range(0, len(sample.frames), CHUNK):
        progress(cut.name, start, len(sample.frames))
        arrays = _run(half.head, sample.frames[start : start + CHUNK])
        for codec in codecs:
            facts = _facts(cut.name, codec, np.zeros(1), None, clips[codec])
            for place in range(-start % SIZED_EVERY, len(arrays[0]), SIZED_EVERY):
                encoded = encode_activation(cut, facts, [array[place : place + 1] for array in arrays])
                sizes[codec].append(sum(len(one.data) for one in encoded))
            if sample.truth is not None and codec not in LOSSLESS:
                scores = _tail(half, through_codec(cut.tensors, arrays, codec, clips[codec]))
                right[codec] += int((scores.argmax(1) == sample.truth[start : start + CHUNK]).sum())
    return [
        _facts(
            cut.name,
            codec,
            np.array(sizes[codec]),
            # lossless: head and tail compose to the whole bit by bit, which the splitter proves
            accuracy if codec in LOSSLESS or sample.truth is None else right[codec] / len(sample.frames),
            clips[codec],
        )
        for codec in codecs
    ]


def _facts(cut: str, codec: str, sizes: NDArray[Any], accuracy: float | None, clips: Sequence[Clip] = ()) -> PlanFacts:
    bounds = tuple((clip.low, clip.high) for clip in clips)
    return PlanFacts(cut, codec, float(sizes.mean()), float(np.percentile(sizes, 95)), accuracy, bounds)


def _run(submodel: Submodel, frames: Bytes) -> list[Array]:
    """Run frames through a head or the whole, in batches, and return all its outputs."""
    spec = submodel.inputs[0]
    parts = [
        submodel.run(frame_to_input(spec, np.ascontiguousarray(frames[start : start + BATCH])))
        for start in range(0, len(frames), BATCH)
    ]
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def _tail(half: _Halves, arrays: Sequence[Array]) -> Array:
    """Run the tail on activations, in batches, and return its first output, one row per frame."""
    rows = [
        half.tail.run(*(array[start : start + BATCH] for array in arrays))[0]
        for start in range(0, len(arrays[0]), BATCH)
    ]
    scores = np.concatenate(rows)
    return scores.reshape(len(scores), -1).astype(np.float32)  # unsigned scores could not be subtracted


def _share_right(whole: Submodel, frames: Bytes, truth: Array | None) -> float | None:
    if truth is None:
        return None
    scores = _run(whole, frames)[0]
    return float((scores.reshape(len(scores), -1).argmax(1) == truth).mean())


def _check_frames(whole: Submodel, sample: Sample) -> None:
    wanted = whole.inputs[0].shape[1:]
    for frames in (sample.calibration, sample.frames):
        if frames.dtype != np.uint8 or frames.shape[1:] != wanted or not len(frames):
            raise MeasureError(f"the model takes pictures of shape {wanted}, the frames have {frames.shape[1:]}")
    if sample.truth is not None and len(sample.truth) != len(sample.frames):
        raise MeasureError(f"{len(sample.frames)} frames have {len(sample.truth)} labels")


def _precision(graph: Graph) -> str:
    """Return ``int8`` where most of what crosses between operators is, else ``float32``."""
    crossing = [spec.dtype for cut in graph.cuts() for spec in cut.tensors]
    return "int8" if crossing.count("int8") * 2 > len(crossing) else "float32"


def _least_runtime(model: Path) -> str:
    """Return 2.14 where the light runtime of that release runs the file, else the release that does."""
    try:
        light = Submodel(model, runtime=LIGHT)
        light.warm_up()
    except (RuntimeUnavailable, ModelError):
        return f"{Submodel(model, prefer='fast').runtime}"
    return ".".join(light.runtime.split()[-1].split(".")[:2])


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
