"""The only importer of a TensorFlow Lite runtime: choose one, load a submodel file and run it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tflite_models.catalog import ModelsError, TensorSpec

Array = NDArray[Any]
Preference = Literal["light", "fast"]
"""``light``: least memory and disk (devices); ``fast``: least latency (the edge)."""

ENVIRONMENT: Final = "SPLITFLEET_RUNTIME"
"""Names the runtime to use where the caller names none."""

LIGHT: Final = "tflite-runtime"
FAST: Final = "ai-edge-litert"
_MODULES: Final = {LIGHT: "tflite_runtime.interpreter", FAST: "ai_edge_litert.interpreter"}
_IDENTIFIER: Final = b"TFL3"


class RuntimeUnavailable(ModelsError):
    """No TensorFlow Lite runtime can be used here; the message says what to install."""


class ModelError(ModelsError):
    """A file cannot be loaded as a submodel, or cannot be run on the tensors given."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime that can be used in this process."""

    name: str
    version: str
    interpreter: Any
    """The interpreter class of that runtime."""

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def select(runtime: str | None = None, prefer: Preference = "light") -> Runtime:
    """Return the runtime named by ``runtime``, else by ``SPLITFLEET_RUNTIME``, else the preferred one.

    A runtime that was named is used or refused, never replaced. Raises ``RuntimeUnavailable``.
    """
    named = runtime or os.environ.get(ENVIRONMENT)
    if named:
        if named not in _MODULES:
            raise RuntimeUnavailable(f"unknown runtime '{named}': {ENVIRONMENT} may be {LIGHT} or {FAST}")
        return _load(named)
    reasons = []
    for name in (LIGHT, FAST) if prefer == "light" else (FAST, LIGHT):
        try:
            return _load(name)
        except RuntimeUnavailable as error:
            reasons.append(str(error))
    raise RuntimeUnavailable("no TensorFlow Lite runtime can be used: " + "; ".join(reasons))


def runtime_name(runtime: str | None = None, prefer: Preference = "light") -> str:
    """Return name and version of the runtime that ``select`` returns, such as ``tflite-runtime 2.14.0``."""
    return str(select(runtime, prefer))


def _load(name: str) -> Runtime:
    if "tensorflow" in sys.modules:
        raise RuntimeUnavailable(
            f"{name} cannot share a process with TensorFlow: run one of the two in a process of its own"
        )
    if name == LIGHT and int(np.__version__.split(".")[0]) >= 2:
        raise RuntimeUnavailable(
            f"{LIGHT} does not work with numpy {np.__version__}: pip install 'numpy<2', or pip install {FAST} instead"
        )
    try:
        module = importlib.import_module(_MODULES[name])
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = "(version unknown)"
    except (ImportError, OSError) as error:
        raise RuntimeUnavailable(f"{name} is not usable ({error}): pip install {name}") from error
    return Runtime(name, version, module.Interpreter)


def _spec(detail: dict[str, Any]) -> TensorSpec:
    dtype = np.dtype(detail["dtype"])
    scale, zero_point = detail["quantization"]
    return TensorSpec(
        name=detail["name"],
        shape=tuple(int(extent) for extent in detail["shape"]),
        dtype="string" if dtype.kind in "SOU" else dtype.name,
        scale=float(scale),
        zero_point=int(zero_point),
    )


class Submodel:
    """A loaded ``.tflite`` file, ready to run.

    ``inputs`` and ``outputs`` are in the order of the file: for heads and tails, that of ``Cut.tensors``.
    The first thread that calls ``run`` owns it: interpreters are not safe to share, so make one per thread.
    The file is trusted: tflite-runtime does not check it, so compare hashes before loading what came from afar.
    """

    def __init__(
        self,
        source: Path | bytes,
        *,
        threads: int = 1,
        prefer: Preference = "light",
        runtime: str | None = None,
        origin: str = "",
    ) -> None:
        """Load a file, or its contents; errors call it ``origin``. Raises ``ModelError``, ``RuntimeUnavailable``."""
        chosen = select(runtime, prefer)
        self.runtime = str(chosen)
        self._origin = origin or (str(source) if isinstance(source, Path) else f"model of {len(source)} bytes")
        self._owner: int | None = None
        _check_identifier(source, self._origin)
        content = {"model_path": str(source)} if isinstance(source, Path) else {"model_content": source}
        try:
            self._interpreter = chosen.interpreter(num_threads=threads, **content)
            self._interpreter.allocate_tensors()
            inputs = self._interpreter.get_input_details()
            outputs = self._interpreter.get_output_details()
        except (ValueError, RuntimeError, TypeError) as error:
            raise ModelError(f"{self.runtime} cannot load {self._origin}: {_first_line(error)}") from error
        self.inputs: tuple[TensorSpec, ...] = tuple(_spec(detail) for detail in inputs)
        self.outputs: tuple[TensorSpec, ...] = tuple(_spec(detail) for detail in outputs)
        self._input_slots = [int(detail["index"]) for detail in inputs]
        self._output_slots = [int(detail["index"]) for detail in outputs]
        self._free = [_free_extents(detail) for detail in inputs]
        self._shapes: list[tuple[int, ...]] | None = [spec.shape for spec in self.inputs]

    def run(self, *arrays: Array) -> tuple[Array, ...]:
        """Return the outputs for one array per input.

        Types must match exactly; shapes too, except for the batch and dimensions the file leaves open.
        The arrays returned are the caller's own. Raises ``ModelError``.
        """
        thread = threading.get_ident()
        if self._owner is None:
            self._owner = thread
        elif self._owner != thread:
            raise ModelError(f"{self._origin} belongs to another thread: load one Submodel per thread")
        return self._run(arrays)

    def warm_up(self, batch: int = 1) -> None:
        """Run once on zeros so that the first real frame pays no set-up; does not claim the submodel."""
        self._run(
            [
                np.zeros((batch, *spec.shape[1:]) if 0 in free else spec.shape, _dtype(spec))
                for spec, free in zip(self.inputs, self._free, strict=True)
            ]
        )

    def _run(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        self._check(arrays)
        try:
            self._resize([array.shape for array in arrays])
            for slot, array in zip(self._input_slots, arrays, strict=True):
                self._interpreter.set_tensor(slot, array)
            self._interpreter.invoke()
            return tuple(self._interpreter.get_tensor(slot) for slot in self._output_slots)
        except (ValueError, RuntimeError) as error:
            self._shapes = None  # the interpreter may be half resized: start over at the next call
            raise ModelError(f"{self.runtime} cannot run {self._origin}: {_first_line(error)}") from error

    def _check(self, arrays: Sequence[Array]) -> None:
        if len(arrays) != len(self.inputs):
            raise ModelError(f"{self._origin} takes {len(self.inputs)} tensors, not {len(arrays)}")
        for array, spec, free in zip(arrays, self.inputs, self._free, strict=True):
            if spec.dtype not in ("string", array.dtype.name):
                raise ModelError(f"{self._origin}: '{spec.name}' is {spec.dtype}, not {array.dtype.name}")
            fits = array.ndim == len(spec.shape) and all(
                have == want or (axis in free and have > 0)
                for axis, (have, want) in enumerate(zip(array.shape, spec.shape, strict=True))
            )
            if not fits:
                raise ModelError(f"{self._origin}: '{spec.name}' has shape {spec.shape}, not {array.shape}")

    def _resize(self, shapes: list[tuple[int, ...]]) -> None:
        if shapes == self._shapes:
            return
        for slot, shape in zip(self._input_slots, shapes, strict=True):
            self._interpreter.resize_tensor_input(slot, shape)
        self._interpreter.allocate_tensors()
        self._shapes = shapes


def _check_identifier(source: Path | bytes, origin: str) -> None:
    try:
        if isinstance(source, Path):
            with source.open("rb") as file:
                start = file.read(8)
        else:
            start = source[:8]
    except OSError as error:
        raise ModelError(f"cannot read {origin}: {error.strerror}") from error
    if start[4:8] != _IDENTIFIER:
        raise ModelError(f"{origin} is not a .tflite file")


def _free_extents(detail: dict[str, Any]) -> frozenset[int]:
    """Return the axes whose extent a caller may choose: a batch of one, and those the file leaves open."""
    signature = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    return frozenset(axis for axis, extent in enumerate(signature) if extent == -1 or (axis == 0 and extent == 1))


def _dtype(spec: TensorSpec) -> np.dtype[Any]:
    return np.dtype("S1" if spec.dtype == "string" else spec.dtype)


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
