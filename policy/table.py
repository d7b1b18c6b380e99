"""The plans of a catalog and what classes of devices and the edge need for each, as arrays over plans."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.errors import PolicyError
from policy.reward import accuracy_term
from tflite_models.catalog import Catalog
from tflite_models.profile import DeviceProfile, EdgeProfile, ProfileError
from wire.plan import OUTPUT, Plan

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class PlanTable:
    """Every plan of a catalog, in a fixed order that all arrays [plans] follow."""

    plans: tuple[Plan, ...]
    index: Mapping[Plan, int]
    bytes_mean: Array
    bytes_p95: Array
    accuracy: Array
    """Unknown accuracies count as the least known one of the catalog."""
    accuracy_known: Mask
    accuracy_term: Array
    local: Mask
    ships_input: Mask
    twin: Index
    """The local plan of the same version, which finishes what the edge does not; −1 where there is none."""
    macs: Array
    """Of the whole version."""

    def __len__(self) -> int:
        return len(self.plans)


def plan_table(catalog: Catalog) -> PlanTable:
    """Lay out the plans of a catalog; raises ``PolicyError`` where it has none."""
    rows = list(catalog.plans())
    if not rows:
        raise PolicyError("the catalog has no plans: build or add a version first")
    plans = tuple(plan for plan, _ in rows)
    index = {plan: i for i, plan in enumerate(plans)}
    local_of = {plan.version: i for i, plan in enumerate(plans) if plan.cut == OUTPUT}
    known = np.array([facts.accuracy is not None for _, facts in rows])
    accuracy = np.array([np.nan if f.accuracy is None else f.accuracy for _, f in rows], np.float64)
    least = float(accuracy[known].min()) if known.any() else 0.0
    accuracy = np.where(known, accuracy, least)
    macs = {version.name: float(version.macs) for version in catalog}
    return PlanTable(
        plans,
        index,
        bytes_mean=np.array([f.bytes_mean for _, f in rows], np.float64),
        bytes_p95=np.array([f.bytes_p95 for _, f in rows], np.float64),
        accuracy=accuracy,
        accuracy_known=known,
        accuracy_term=accuracy_term(accuracy),
        local=np.array([p.is_local for p in plans]),
        ships_input=np.array([p.ships_input for p in plans]),
        twin=np.array([local_of.get(p.version, -1) for p in plans], np.int64),
        macs=np.array([macs[p.version] for p in plans], np.float64),
    )


@dataclass(frozen=True)
class DeviceRow:
    """What each plan costs one class of device, uncalibrated. Plans its profile lacks are ``not known`` and zero."""

    known: Mask
    head_ms: Array
    head_p95_ms: Array
    encode_ms: Array
    compute_mj: Array
    """Head and encoding, above idle."""
    tx_power_mw: float
    idle_power_mw: float
    frame_overhead_ms: float = 0.0


def device_row(table: PlanTable, profile: DeviceProfile | None) -> DeviceRow:
    """Look up every plan in a profile; without one, or with figures that cannot be, nothing is known."""
    known = np.zeros(len(table), bool)
    values = np.zeros((4, len(table)))
    if profile is None or not _possible(profile.tx_power_mw, profile.idle_power_mw, profile.frame_overhead_ms):
        return DeviceRow(known, values[0], values[1], values[2], values[3], 0.0, 0.0)
    for i, plan in enumerate(table.plans):
        try:
            head = profile.head(plan.version, plan.cut)
            encode_ms = profile.encode_ms(plan.version, plan.cut, plan.codec)
        except ProfileError:
            continue
        energy = head.energy_mj + encode_ms * profile.active_power_mw / 1000
        costs = head.head_ms_p50, head.head_ms_p95, encode_ms, energy
        if _possible(*costs):
            known[i] = True
            values[:, i] = costs
    head_ms, head_p95_ms, encode_ms, compute_mj = values
    return DeviceRow(
        known, head_ms, head_p95_ms, encode_ms, compute_mj, profile.tx_power_mw, profile.idle_power_mw,
        profile.frame_overhead_ms,
    )  # fmt: skip


@dataclass(frozen=True)
class EdgeRow:
    """What each plan costs an edge interpreter, uncalibrated, by batch size."""

    known: Mask
    """True for local plans, which need no tail."""
    batches: Index
    """Powers of two from 1 to the largest batch that was measured."""
    tail_ms: Array
    """[plans, batch sizes]: time of the whole batch; 0 for local plans."""
    overhead_ms: float


def edge_row(table: PlanTable, profile: EdgeProfile | None) -> EdgeRow:
    """Look up every plan's tail; without a profile (``None``) only local plans are known."""
    measured = [b for tail in profile.tails for b, _ in tail.batch_ms] if profile else []
    largest = max(measured, default=1)
    batches = np.array([2**k for k in range(16) if 2**k <= largest], np.int64)
    known = table.local.copy()
    tail_ms = np.zeros((len(table), len(batches)))
    for i, plan in enumerate(table.plans):
        if plan.is_local or profile is None:
            continue
        try:
            tail = profile.tail(plan.version, plan.cut)
        except ProfileError:
            continue
        times = [tail.ms(int(b)) for b in batches]
        if _possible(*times):
            known[i] = True
            tail_ms[i] = times
    overhead_ms = profile.overhead_ms if profile else 0.0
    if not _possible(overhead_ms):
        raise PolicyError(f"overhead_ms = {overhead_ms:g} in the edge profile: profile the edge again")
    return EdgeRow(known, batches, tail_ms, overhead_ms)


def _possible(*figures: float) -> bool:
    """Whether measured figures can be true; a plan with one that cannot counts as not profiled."""
    return all(0 <= figure < math.inf for figure in figures)
