"""Turn a user's own ``.tflite`` file into a version of the local zoo: cuts chosen and checked, facts measured."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tflite_models.catalog import MANIFEST, Cut, ModelFolder, ModelsError, Provenance, TensorSpec, load_folder
from tflite_models.measure import Sample, measure_version, write_version
from tflite_models.splitter import Graph, check_each, load_graph, take_pixels

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
LARGEST_DIFFERENCE = 1e-3
"""A cut whose halves are further from the whole than this is left out."""

_NAME = re.compile(r"[a-z0-9-]{1,64}")
_LEAST_SHARE, _MOST_SHARE = 0.02, 0.95
"""A head with less of the work saves nothing; a tail with less of it is not worth the trip."""
_CALIBRATION_SHARE, _MOST_CALIBRATION = 0.2, 256
_INVENTED = 64


class AdoptError(ModelsError):
    """A model, its labels or its pictures cannot become a version; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """What a user says of a model."""

    name: str
    family: str
    labels: Path
    """Text file: one label per line, in the order of the outputs."""
    images: Path | None = None
    """Folder with one sub-folder of pictures per label; ``None``: accuracy stays unknown."""
    pixels: str | None = None
    """Range a float model wants its pixels in, such as ``-1:1``."""
    most_images: int = 1000


def adopt(
    file: Path, adoption: Adoption, zoo: Path, *, command: str = "", report: Callable[[str], None] = lambda _: None
) -> ModelFolder:
    """Write ``zoo/<name>`` and return it; ``report`` is told what happens. Raises ``ModelsError``.

    With pictures, a fifth of them (at most 256) calibrates the codecs and accuracy and bytes come from the rest.
    Without, bytes come from invented pictures and codecs have no calibrated range: they fit themselves to every
    frame.
    """
    if not _NAME.fullmatch(adoption.name) or not _NAME.fullmatch(adoption.family):
        raise AdoptError(f"'{adoption.name}' is not a name: at most 64 of a-z, 0-9 and dashes")
    if (zoo / adoption.name / MANIFEST).exists():
        raise AdoptError(f"{zoo / adoption.name} exists already: remove it first, or choose another name")
    with tempfile.TemporaryDirectory() as scratch:
        model, graph = _pixel_model(file, adoption.pixels, Path(scratch))
        labels = _read_labels(adoption.labels, graph)
        sample, data = _sample(adoption, labels, graph)
        cuts = _sound_cuts(graph, report)
        provenance = Provenance(command=command, commit="", runtime="", frames=0, data=data, seed=0)
        version = measure_version(
            model,
            cuts,
            sample,
            name=adoption.name,
            family=adoption.family,
            labels=labels,
            provenance=provenance,
            progress=lambda what, done, all_frames: report(f"measuring {what}: {done} of {all_frames} frames"),
        )
        if sample.truth is None:
            plans = tuple(dataclasses.replace(plan, clips=()) for plan in version.plans)
            version = dataclasses.replace(version, plans=plans)
        return load_folder(write_version(version, model, zoo), check_hash=True)


def choose_cuts(graph: Graph, most: int = 5) -> list[Cut]:
    """Return up to ``most`` one-tensor cuts, spread evenly over the work, each with the smallest tensor there.

    Places where more would cross than twice the input's elements are left out: no codec makes up for that.
    """
    largest = 2 * max((spec.elements for spec in graph.inputs), default=0)
    chosen: dict[int, Cut] = {}
    for cut in graph.cuts(max_width=1):
        share = cut.head_macs / graph.macs if graph.macs else cut.index / len(graph)
        if not _LEAST_SHARE <= share <= _MOST_SHARE or cut.tensors[0].elements > largest:
            continue
        place = min(int(most * (share - _LEAST_SHARE) / (_MOST_SHARE - _LEAST_SHARE)), most - 1)
        if place not in chosen or cut.tensors[0].elements < chosen[place].tensors[0].elements:
            chosen[place] = cut
    return [chosen[place] for place in sorted(chosen)]


def read_pictures(
    root: Path, labels: Sequence[str], size: tuple[int, int], most: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return up to ``most`` frames [n, height, width, 3] resized to ``size``, and the number of each one's label.

    ``root`` holds one sub-folder per label, named as the label. Raises ``AdoptError``.
    """
    from PIL import Image

    if not root.is_dir():
        raise AdoptError(f"{root} is not a folder")
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    strange = [path.name for path in folders if path.name not in labels]
    if strange or not folders:
        found = f"'{strange[0]}' is none of the labels" if strange else "there is no sub-folder"
        raise AdoptError(f"{root}: {found}; put the pictures into one sub-folder per label")
    paths = [path for folder in folders for path in sorted(folder.iterdir()) if path.suffix.lower() in PICTURES]
    paths = [paths[int(place)] for place in np.linspace(0, len(paths) - 1, min(most, len(paths)))]
    if len(paths) < 10:
        raise AdoptError(f"{root} holds {len(paths)} pictures ({', '.join(PICTURES)}): at least 10 are needed")
    frames = np.empty((len(paths), *size, 3), np.uint8)
    for place, path in enumerate(paths):
        try:
            with Image.open(path) as picture:
                frames[place] = np.asarray(picture.convert("RGB").resize((size[1], size[0])))
        except OSError as error:
            raise AdoptError(f"cannot read the picture {path}: {error}") from error
    return frames, np.array([labels.index(path.parent.name) for path in paths])


def _pixel_model(file: Path, pixels: str | None, scratch: Path) -> tuple[Path, Graph]:
    """Return a model that takes uint8 or int8 pixels: the file itself, or one with its range built in."""
    graph = load_graph(file)
    if len(graph.inputs) != 1:
        raise AdoptError(f"{file} takes {len(graph.inputs)} inputs: only models of one picture can be added")
    _picture_size(graph.inputs[0])
    floats = graph.inputs[0].dtype == "float32"
    if floats != bool(pixels):
        wanted = "say which range it wants its pixels in, such as --pixels 0:1" if floats else "leave --pixels out"
        raise AdoptError(f"{file} takes {graph.inputs[0].dtype} pixels: {wanted}")
    if not pixels:
        return file, graph
    try:
        low, high = (float(bound) for bound in pixels.split(":"))
    except ValueError as error:
        raise AdoptError(f"'{pixels}' is not a range: write 0:1, -1:1 or 0:255") from error
    model = scratch / file.name
    model.write_bytes(take_pixels(graph, low, high))
    return model, load_graph(model)


def _picture_size(spec: TensorSpec) -> tuple[int, int]:
    if len(spec.shape) != 4 or spec.shape[3] != 3 or spec.dtype not in ("uint8", "int8", "float32"):
        shape = "×".join(map(str, spec.shape))
        raise AdoptError(
            f"the model takes {spec.dtype} {shape}, not colour pictures 1×height×width×3 of uint8, int8 or float32"
        )
    return spec.shape[1], spec.shape[2]


def _read_labels(path: Path, graph: Graph) -> tuple[str, ...]:
    try:
        labels = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise AdoptError(f"cannot read labels from {path}: {error}") from error
    scores = graph.outputs[0].elements
    if len(labels) != scores:
        raise AdoptError(f"{path} has {len(labels)} labels, but the model's first output has {scores} scores")
    return labels


def _sample(adoption: Adoption, labels: Sequence[str], graph: Graph) -> tuple[Sample, str]:
    size = _picture_size(graph.inputs[0])
    rng = np.random.default_rng(0)
    if adoption.images is None:
        frames = _invented(size, rng)
        return Sample(frames, frames), "invented pictures"
    frames, truth = read_pictures(adoption.images, labels, size, adoption.most_images)
    order = rng.permutation(len(frames))
    held = min(int(len(frames) * _CALIBRATION_SHARE), _MOST_CALIBRATION)
    calibration, rest = order[:held], order[held:]
    return Sample(frames[calibration], frames[rest], truth[rest]), f"{len(frames)} pictures of {adoption.images.name}"


def _invented(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return smooth coloured noise: nothing to see, but it costs a codec about what a picture does."""
    from PIL import Image

    frames = np.empty((_INVENTED, *size, 3), np.uint8)
    for frame in frames:
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
        smooth = np.asarray(coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC), np.float32)
        frame[:] = np.clip(smooth + rng.normal(0, 5, smooth.shape), 0, 255)
    return frames


def _sound_cuts(graph: Graph, report: Callable[[str], None]) -> list[Cut]:
    cuts = choose_cuts(graph)
    sound: list[Cut] = []
    for cut, check in zip(cuts, check_each(graph, cuts), strict=True):
        verdict = "used" if check.max_abs_diff <= LARGEST_DIFFERENCE else "left out"
        report(f"cut {cut.name}: halves differ from the whole by {check.max_abs_diff:g}, {verdict}")
        if verdict == "used":
            sound.append(cut)
    if not sound:
        report("no inner cut is worth it: this version runs whole, on the device or on the edge")
    return sound
