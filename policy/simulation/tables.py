"""What plans cost on boards and edge machines that were measured: the raw material of simulated sites."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from policy import pareto
from policy.costs import CostModel
from policy.errors import PolicyError
from policy.table import Array, Index, Mask, device_row
from tflite_models.catalog import load_catalog, shipped_zoo
from tflite_models.profile import load_device_profile, load_edge_profile

FOLDER = Path(__file__).parent / "measured"


@dataclass(frozen=True)
class PlanSet:
    """P plans on one board and one edge machine, arrays [P]; times and energies as measured, before any scaling."""

    versions: tuple[str, ...]
    """Of each plan."""
    names: tuple[str, ...]
    """``version/cut/codec``"""
    local: Mask
    ships_input: Mask
    compute_ms: Array
    """Head and encoding."""
    compute_p95_ms: Array
    compute_mj: Array
    """Above idle."""
    bytes_mean: Array
    bytes_p95: Array
    accuracy: Array
    tail_ms: Array
    """[P, G]: time of a whole batch on one interpreter; 0 for local plans."""
    batches: Index
    twin: Index
    """The local plan of the same version; −1 where there is none."""
    tx_power_mw: float
    idle_power_mw: float
    overhead_ms: float

    def __len__(self) -> int:
        return len(self.names)

    def only(self, keep: Mask | Index) -> PlanSet:
        """Return the plans kept [P]; without a version's local plan among them its fallbacks cost nothing."""
        index = np.flatnonzero(keep) if keep.dtype == bool else keep
        place = {int(old): new for new, old in enumerate(index)}
        picked = {name: getattr(self, name)[index] for name in _PER_PLAN}
        return replace(
            self,
            versions=tuple(self.versions[i] for i in index),
            names=tuple(self.names[i] for i in index),
            twin=np.array([place.get(int(self.twin[i]), -1) for i in index], np.int64),
            **picked,
        )


_PER_PLAN = (
    "local", "ships_input", "compute_ms", "compute_p95_ms", "compute_mj", "bytes_mean", "bytes_p95", "accuracy",
    "tail_ms",
)  # fmt: skip


@cache
def zoo() -> PlanSet:
    """Return all plans of the shipped models, measured on one x86 core (``measured/*.json``)."""
    model = CostModel(load_catalog(shipped_zoo()), load_edge_profile(FOLDER / "zoo_edge.json"))
    table, profile = model.table, load_device_profile(FOLDER / "zoo_device.json")
    row = device_row(table, profile)
    known = row.known & model.edge.known
    everything = PlanSet(
        tuple(plan.version for plan in table.plans),
        tuple(map(str, table.plans)),
        table.local,
        table.ships_input,
        row.head_ms + row.encode_ms,
        row.head_p95_ms + row.encode_ms,
        row.compute_mj,
        table.bytes_mean,
        table.bytes_p95,
        table.accuracy,
        model.edge.tail_ms,
        model.edge.batches,
        table.twin,
        row.tx_power_mw,
        row.idle_power_mw,
        model.edge.overhead_ms,
    )
    return everything.only(known)


@cache
def tx2() -> PlanSet:
    """Return the plans of six ImageNet networks on a Jetson TX2 (``measured/tx2.csv``, from arXiv 2501.18842).

    Heads, energies and sizes are the published ones; edge times, codecs of the picture and the accuracy that low-bit
    activations cost are modelled, as the file's own columns say.
    """
    with (FOLDER / "tx2.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    column = {name: np.array([float(row[name]) for row in rows]) for name in _TX2_NUMBERS}
    versions = tuple(row["version"] for row in rows)
    local = np.array([row["cut"] == "output" for row in rows])
    batches = np.array([1, 2, 4, 8, 16], np.int64)
    # A batch of b takes (0.3 + 0.7 b) times one frame: convolutions of this size gain little from batching.
    tail = column["tail_ms"][:, None] * (0.3 + 0.7 * batches)
    home = {version: i for i, version in enumerate(versions) if local[i]}
    return PlanSet(
        versions,
        tuple(f"{row['version']}/{row['cut']}/{row['codec']}" for row in rows),
        local,
        np.array([row["cut"] == "input" for row in rows]),
        column["head_ms"],
        column["head_ms"] * 1.05,
        column["energy_mj"],
        column["bytes"],
        column["bytes"] * np.where([row["cut"] == "input" and row["codec"] != "raw8" for row in rows], 1.4, 1.0),
        column["accuracy"],
        tail,
        batches,
        np.array([home.get(version, -1) for version in versions], np.int64),
        tx_power_mw=700.0,
        idle_power_mw=0.0,
        overhead_ms=1.0,
    )


_TX2_NUMBERS = ("bytes", "accuracy", "head_ms", "energy_mj", "tail_ms")


def of_families(plans: PlanSet, families: Sequence[str]) -> PlanSet:
    """Return the plans whose version begins with one of the names given; raises ``PolicyError`` where none does."""
    keep = np.array([any(version.startswith(f) for f in families) for version in plans.versions], bool)
    if not keep.any():
        raise PolicyError(
            f"no version begins with {', '.join(families)}: there are {', '.join(sorted(set(plans.versions)))}"
        )
    return plans.only(keep)


def varied(plans: PlanSet, rng: np.random.Generator, spread: float) -> PlanSet:
    """Return plans of a site that was never measured: each version's costs differ by a factor of its own.

    ``spread`` is the standard deviation of the factors' logarithm.
    """
    names = sorted(set(plans.versions))
    of = np.array([names.index(v) for v in plans.versions])

    def factors(width: float) -> Array:
        return np.asarray(np.exp(rng.normal(0, width, len(names)))[of])

    head, size, tail = factors(spread), factors(spread), factors(spread)
    shift = rng.normal(0, 0.15 * spread, len(names))[of]
    return replace(
        plans,
        compute_ms=plans.compute_ms * head,
        compute_p95_ms=plans.compute_p95_ms * head,
        compute_mj=plans.compute_mj * head,
        bytes_mean=plans.bytes_mean * size,
        bytes_p95=plans.bytes_p95 * size,
        tail_ms=plans.tail_ms * tail[:, None],
        accuracy=np.clip(plans.accuracy + shift, 0.05, 1.0),
    )


def undominated(plans: PlanSet, most: int) -> PlanSet:
    """Return the plans that no other beats in everything (time, energy, bytes, accuracy, edge time), ``most`` at most.

    Every version's local plan stays: frames that come back from the edge are finished by it.
    """
    traits = np.concatenate(
        [
            np.stack([plans.compute_ms, plans.compute_mj, plans.bytes_mean, plans.bytes_p95, -plans.accuracy], axis=1),
            plans.tail_ms,
        ],
        axis=1,
    )
    keep = pareto.undominated(traits)
    used = {plans.versions[i] for i in np.flatnonzero(keep)}
    keep |= plans.local & np.array([v in used for v in plans.versions])
    index = np.flatnonzero(keep)
    if len(index) > most:
        # What is left over is thinned evenly among the remote plans, which are ordered by version and cut.
        homes, rest = index[plans.local[index]], index[~plans.local[index]]
        rest = rest[np.linspace(0, len(rest) - 1, max(0, most - len(homes))).astype(int)]
        index = np.sort(np.concatenate([homes, np.unique(rest)]))
    return plans.only(index)
