"""``python -m device_client.updates.selftest FOLDER``: does a version work here? In a process of its own.

A model that crashes or hangs the interpreter ends this process, not the client.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from tflite_models.activation import Array
from tflite_models.catalog import ModelFolder, ModelsError, load_folder
from tflite_models.runtime import ModelError, Submodel
from wire.bundle import GOLDEN
from wire.plan import INPUT, OUTPUT


def check(folder: ModelFolder, tolerance: float, *, runtime: str | None = None, threads: int = 1) -> int:
    """Load every submodel and compare the golden outputs; return how many samples agree. Raises ``ModelsError``."""
    whole = Submodel(folder.model, threads=threads, runtime=runtime)
    inputs, outputs = _golden(folder.path / GOLDEN, len(whole.inputs), len(whole.outputs))
    for sample in range(len(inputs[0])):
        answers = whole.run(*(array[sample : sample + 1] for array in inputs))
        for number, (answer, wanted) in enumerate(zip(answers, outputs, strict=True)):
            _compare(answer, wanted[sample : sample + 1], tolerance, f"golden sample {sample}, output {number}")
    for cut in folder.version.cuts:
        if cut.name not in (INPUT, OUTPUT) and cut.head_sha256:
            Submodel(folder.head(cut.name), threads=threads, runtime=runtime).warm_up()
    return len(inputs[0])


def _golden(path: Path, inputs: int, outputs: int) -> tuple[list[Array], list[Array]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            given = [stored[f"input-{number}"] for number in range(inputs)]
            wanted = [stored[f"output-{number}"] for number in range(outputs)]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ModelError(f"{path.name} does not hold the golden inputs and outputs: {error}") from error
    if len({len(array) for array in (*given, *wanted)}) != 1 or not len(given[0]):
        raise ModelError(f"{path.name} has not as many golden outputs as inputs")
    return given, wanted


def _compare(answer: Array, wanted: Array, tolerance: float, what: str) -> None:
    if answer.shape != wanted.shape or answer.dtype != wanted.dtype:
        raise ModelError(f"{what} is {answer.dtype} {answer.shape}, not {wanted.dtype} {wanted.shape}")
    apart = np.abs(answer.astype(np.float64) - wanted.astype(np.float64))
    if not np.isfinite(apart).all() or apart.max(initial=0.0) > tolerance:
        raise ModelError(f"{what} is {apart.max(initial=0.0):.3g} off here, allowed is {tolerance:.3g}")


def main() -> int:
    """Return 0 when it works; else 1, with the reason as last line of stderr."""
    parser = argparse.ArgumentParser(prog="python -m device_client.updates.selftest", description=__doc__)
    parser.add_argument("folder", type=Path, help="the version's folder, with its golden inputs and outputs")
    parser.add_argument("--tolerance", type=float, required=True, help="how far an output may be off")
    parser.add_argument("--runtime", help="the TensorFlow Lite runtime to use")
    parser.add_argument("--threads", type=int, default=1, help="threads of the interpreter")
    told = parser.parse_args()
    try:
        samples = check(load_folder(told.folder), told.tolerance, runtime=told.runtime, threads=told.threads)
    except ModelsError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{samples} golden samples agree")
    return 0


if __name__ == "__main__":
    sys.exit(main())
