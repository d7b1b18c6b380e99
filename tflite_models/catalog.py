"""What is known of every version before it runs: its file, its cuts and the measured facts of its plans."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dacite

from wire.plan import INPUT, OUTPUT, Plan

MANIFEST = "version.json"
MODEL = "model.tflite"
SCHEMA = 1


class ModelsError(Exception):
    """Root of everything this package raises."""


class CatalogError(ModelsError):
    """A model folder is missing, incomplete, or not what its manifest says."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor as a submodel sees it, batch dimension included."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float = 0.0
    """Quantisation step of an integer tensor; 0 where the tensor is not quantised."""
    zero_point: int = 0

    @property
    def elements(self) -> int:
        """Number of elements for batch size one."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count


@dataclass(frozen=True, slots=True)
class Cut:
    """A place where a version is split.

    The head is operators ``[0, index)``; its outputs, the tail's inputs and ``tensors`` are in the same order.
    Cut ``input`` has index 0 and no head file; cut ``output`` has as many as there are operators and no tail file.
    """

    name: str
    index: int
    tensors: tuple[TensorSpec, ...]
    head_macs: int
    tail_macs: int
    head_sha256: str = ""
    tail_sha256: str = ""


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What was measured of one cut and codec of a version."""

    cut: str
    codec: str
    bytes_mean: float
    """Encoded activation per frame over the test frames; 0 at cut ``output``."""
    bytes_p95: float
    accuracy: float | None
    """Share of labelled test frames answered rightly through this very codec; ``None``: unknown."""
    clips: tuple[tuple[float, float], ...] = ()
    """Calibrated (low, high) clip range per tensor at the cut; empty for codecs without one."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a version came from and how its facts were measured."""

    command: str
    commit: str
    runtime: str
    frames: int
    """Labelled frames behind every accuracy; 0: accuracy unknown."""
    data: str = ""
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """One trained model file of a family, as its manifest describes it."""

    name: str
    family: str
    sha256: str
    size_bytes: int
    precision: str
    """``float32`` or ``int8``."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    macs: int
    accuracy: float | None
    labels: tuple[str, ...]
    least_runtime: str
    """Oldest TensorFlow Lite runtime version that knows every operator, such as ``2.14``."""
    cuts: tuple[Cut, ...]
    plans: tuple[PlanFacts, ...]
    provenance: Provenance
    schema: int = SCHEMA

    def cut(self, name: str) -> Cut:
        """Return the cut of that name; raises ``CatalogError`` naming those there are."""
        for cut in self.cuts:
            if cut.name == name:
                return cut
        raise CatalogError(f"{self.name} has no cut '{name}'; it has {', '.join(c.name for c in self.cuts)}")

    def facts(self, cut: str, codec: str) -> PlanFacts:
        """Return the facts of one plan of this version; raises ``CatalogError`` where there are none."""
        for facts in self.plans:
            if facts.cut == cut and facts.codec == codec:
                return facts
        raise CatalogError(f"{self.name} has no plan at cut '{cut}' with codec '{codec}'")

    def all_plans(self) -> Iterator[tuple[Plan, PlanFacts]]:
        """Yield every plan of this version with its facts."""
        for facts in self.plans:
            yield Plan(self.name, facts.cut, facts.codec), facts


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A version's folder: ``version.json``, ``model.tflite`` and, once prepared, ``<cut>.head/.tail.tflite``."""

    path: Path
    version: Version

    @property
    def model(self) -> Path:
        """The whole network."""
        return self.path / MODEL

    def head(self, cut: str) -> Path:
        """The submodel before the cut; at cut ``output`` that is the whole network."""
        if cut == INPUT:
            raise CatalogError(f"{self.version.name}: cut 'input' has no head")
        return self.model if cut == OUTPUT else self.path / f"{cut}.head.tflite"

    def tail(self, cut: str) -> Path:
        """The submodel after the cut; at cut ``input`` that is the whole network."""
        if cut == OUTPUT:
            raise CatalogError(f"{self.version.name}: cut 'output' has no tail")
        return self.model if cut == INPUT else self.path / f"{cut}.tail.tflite"


@dataclass(frozen=True, slots=True)
class Catalog:
    """All versions of one folder of model folders, by name."""

    folders: Mapping[str, ModelFolder] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Version]:
        return (folder.version for folder in self.folders.values())

    def folder(self, version: str) -> ModelFolder:
        """Return a version's folder; raises ``CatalogError`` naming those there are."""
        try:
            return self.folders[version]
        except KeyError:
            known = ", ".join(self.folders) or "none"
            raise CatalogError(f"no version '{version}' in the catalog (there are: {known})") from None

    def facts(self, plan: Plan) -> PlanFacts:
        """Return what was measured of a plan; raises ``CatalogError`` for an unknown one."""
        return self.folder(plan.version).version.facts(plan.cut, plan.codec)

    def plans(self) -> Iterator[tuple[Plan, PlanFacts]]:
        """Yield every plan of every version with its facts."""
        for version in self:
            yield from version.all_plans()


def sha256_of(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def version_from_json(text: str, origin: str) -> Version:
    """Return the version a manifest describes; raises ``CatalogError`` that names ``origin`` and the bad key."""
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
            found = raw.get("schema") if isinstance(raw, dict) else type(raw).__name__
            raise CatalogError(f"{origin}: manifest schema is {found!r}, this release reads {SCHEMA}")
        return dacite.from_dict(Version, raw, dacite.Config(cast=[tuple, float]))
    except (ValueError, TypeError, dacite.DaciteError) as error:
        raise CatalogError(f"{origin}: {error}") from error


def version_to_json(version: Version) -> str:
    """Return the manifest text of a version, stable under rewriting."""
    raw: dict[str, Any] = dataclasses.asdict(version)
    return json.dumps(raw, indent=1) + "\n"


def load_folder(path: Path, *, check_hash: bool = False) -> ModelFolder:
    """Read one model folder; with ``check_hash`` also compare ``model.tflite`` with its manifest."""
    manifest = path / MANIFEST
    try:
        version = version_from_json(manifest.read_text(encoding="utf-8"), str(manifest))
    except OSError as error:
        raise CatalogError(f"cannot read {manifest}: {error.strerror}") from error
    folder = ModelFolder(path, version)
    if not folder.model.is_file():
        raise CatalogError(f"{folder.model} is missing")
    if check_hash and sha256_of(folder.model) != version.sha256:
        raise CatalogError(f"{folder.model} is not the file that {manifest} describes (sha256 differs)")
    return folder


def load_catalog(root: Path, *, check_hash: bool = False) -> Catalog:
    """Read every model folder below ``root``, sorted by name; raises ``CatalogError`` where there is none."""
    folders = [load_folder(path.parent, check_hash=check_hash) for path in sorted(root.glob(f"*/{MANIFEST}"))]
    if not folders:
        raise CatalogError(f"no model folder (a folder with {MANIFEST}) below {root}")
    return Catalog({folder.version.name: folder for folder in folders})


def shipped_zoo() -> Path:
    """Return the folder of the versions that ship with splitfleet."""
    return Path(__file__).parent / "zoo"
