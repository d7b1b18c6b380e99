"""Builds versions from nothing: frames, then training in a process of its own, then measuring in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tflite_models.builder.frames import DATA_FOLDER, LABELS, frame_labels, load_garments, write_frames
from tflite_models.builder.recipes import INT8, RECIPES, Recipe
from tflite_models.catalog import ModelsError, Provenance
from tflite_models.measure import Sample, measure_version, named_cuts, write_version
from tflite_models.pack import balanced, write_pack
from tflite_models.pictures import through_pictures
from tflite_models.splitter import load_graph

CALIBRATION_FRAMES = 256
PACK_FRAMES_PER_CLASS = 36

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done so far, to do in all)."""


class BuildError(ModelsError):
    """A version could not be built; the message holds the end of the training log."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to build with; the defaults are those of the shipped versions."""

    epochs: float | None = None
    """Passes over the training frames; ``None``: what the recipe says."""
    train_frames: int = 120_000
    test_frames: int = 10_000
    workers: int = 2
    data: Path = field(default=DATA_FOLDER)


def default_work_folder() -> Path:
    """Return where frames and weights are kept between builds, below the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "splitfleet" / "zoo-build"


def build(
    out: Path,
    versions: Sequence[str] = tuple(RECIPES),
    *,
    effort: Effort = Effort(),
    work: Path | None = None,
    progress: Progress = lambda _what, _done, _all: None,
) -> list[Path]:
    """Build each version named and its int8 twin into ``out``; return the version folders.

    What lies finished in ``work`` (frames, weights of the same effort) is used again. Raises ``ModelsError``.
    """
    unknown = [name for name in versions if name not in RECIPES]
    if unknown:
        raise BuildError(f"no recipe for {', '.join(unknown)}: there are {', '.join(RECIPES)}")
    work = work or default_work_folder()
    train = make_frames("train", effort.train_frames, work, effort, progress)
    folders = []
    for name in versions:
        trained = train_version(RECIPES[name], work, effort, progress)
        folders += measure_trained(
            RECIPES[name], trained, np.asarray(train[:CALIBRATION_FRAMES]), out, work, effort, progress
        )
    return folders


def make_frames(split: str, count: int, work: Path, effort: Effort, progress: Progress) -> NDArray[np.uint8]:
    """Compose the first ``count`` frames of a split, once, and return them memory-mapped."""
    path = work / "frames" / f"{split}-{count}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_frames(
        split,
        count,
        path,
        folder=effort.data,
        workers=effort.workers,
        progress=partial(progress, f"frames {split}"),
    )
    frames: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return frames


def train_version(recipe: Recipe, work: Path, effort: Effort, progress: Progress) -> Path:
    """Train and export one version in a child process; return the folder with both model files."""
    epochs = effort.epochs or recipe.epochs
    folder = work / f"{recipe.name}-{epochs:g}x{effort.train_frames}"
    folder.mkdir(parents=True, exist_ok=True)
    if all((folder / f"{name}.tflite").exists() for name in (recipe.name, recipe.name + INT8)):
        return folder
    frames = work / "frames" / f"train-{effort.train_frames}.npy"
    arguments = [recipe.name, str(frames), str(effort.data), str(folder), str(epochs), str(effort.workers)]
    log = folder / "training.log"
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "tflite_models.builder.child", *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as child,
    ):
        for line in child.stdout or ():
            words = line.split()
            if words[:1] == ["step"]:
                progress(f"train {recipe.name} (loss {words[3]})", int(words[1]), int(words[2]))
    if child.returncode != 0:
        last = "\n".join(log.read_text(encoding="utf-8").splitlines()[-5:])
        raise BuildError(f"training {recipe.name} failed ({log}):\n{last}")
    return folder


def measure_trained(
    recipe: Recipe,
    trained: Path,
    calibration: NDArray[np.uint8],
    out: Path,
    work: Path,
    effort: Effort,
    progress: Progress,
) -> list[Path]:
    """Measure a trained version and its int8 twin and write both into ``out``."""
    frames = np.asarray(make_frames("test", effort.test_frames, work, effort, progress))
    truth = frame_labels(load_garments("test", effort.data), effort.test_frames)
    sample = Sample(calibration, frames, truth, through_pictures(frames, work / "pictures"))
    epochs = effort.epochs or recipe.epochs
    provenance = Provenance(
        command=f"splitfleet models build {recipe.name} --epochs {epochs:g} --out ZOO",
        commit=_commit(),
        runtime="",
        frames=0,
        data=f"composed from Fashion-MNIST: {effort.train_frames} training, {effort.test_frames} test frames",
        seed=recipe.seed,
    )
    folders = []
    for name in (recipe.name, recipe.name + INT8):
        model = trained / f"{name}.tflite"
        version = measure_version(
            model,
            named_cuts(load_graph(model), recipe.cuts),
            sample,
            name=name,
            family=recipe.family,
            labels=LABELS,
            provenance=provenance,
            progress=_labelled(f"measure {name}", progress),
        )
        folders.append(write_version(version, model, out))
    return folders


def build_pack(path: Path, *, effort: Effort = Effort(), work: Path | None = None) -> None:
    """Write the pack of labelled test frames that ships with splitfleet."""
    frames = make_frames("test", effort.test_frames, work or default_work_folder(), effort, lambda *_: None)
    labels = frame_labels(load_garments("test", effort.data), effort.test_frames)
    chosen = balanced(labels, PACK_FRAMES_PER_CLASS)
    write_pack(path, frames[chosen], labels[chosen], LABELS)


def _labelled(label: str, progress: Progress) -> Progress:
    return lambda what, done, all_: progress(f"{label} {what}", done, all_)


def _commit() -> str:
    """Return the commit of the source tree this runs from, or nothing where it is installed."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
