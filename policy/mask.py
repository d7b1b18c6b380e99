"""Which plans a device may be told at all, and why the others may not; the one place where that is settled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray

from policy.costs import FleetCosts
from policy.interface import DeviceObservation, FleetObservation
from policy.table import Index, Mask, PlanTable

LEAST_ENERGY_MARGIN = 1.1
"""Below the battery floor plans may cost this much of the least energy."""


class Refusal(IntEnum):
    """Why a plan is not allowed; the first reason that holds is kept."""

    ALLOWED = 0
    DEVICE_LACKS_VERSION = 1
    DEVICE_LACKS_CODEC = 2
    PRIVACY = 3
    NO_PROFILE = 4
    NOT_PROFILED = 5
    NO_WORKER = 6
    WORKER_LACKS_VERSION = 7
    BATTERY = 8
    MISSES_DEADLINE = 9
    NOTHING_FRESH = 10


WORDS = {
    Refusal.ALLOWED: "allowed",
    Refusal.DEVICE_LACKS_VERSION: "the device does not hold that version",
    Refusal.DEVICE_LACKS_CODEC: "the device does not know that codec",
    Refusal.PRIVACY: "pictures must not leave this device",
    Refusal.NO_PROFILE: "nobody profiled this class of device",
    Refusal.NOT_PROFILED: "that plan is not in the profiles of device and edge",
    Refusal.NO_WORKER: "no edge worker is ready",
    Refusal.WORKER_LACKS_VERSION: "not every ready worker holds that version",
    Refusal.BATTERY: "the battery is below its floor",
    Refusal.MISSES_DEADLINE: "the deadline would be missed even with the edge idle",
    Refusal.NOTHING_FRESH: "nothing fresh is known of the device",
}


@dataclass(frozen=True)
class Masked:
    """The mask of a fleet: ``refusal`` [devices, plans] holds ``Refusal`` values, 0 where allowed."""

    refusal: NDArray[np.int8]

    @property
    def allowed(self) -> Mask:
        """[devices, plans]; every row has at least one."""
        return np.asarray(self.refusal == Refusal.ALLOWED)

    def plans(self, device: int) -> Index:
        """Return the indices of the plans a device may be told."""
        return np.flatnonzero(self.refusal[device] == Refusal.ALLOWED)

    def tolerable(self, device: int, among: Mask) -> Index:
        """Return the plans of ``among`` [plans] that are allowed; where none is, those that only miss the deadline.

        For policies that are bound to a kind of plan: a predicted miss must not turn them into another policy.
        """
        row = np.where(among, self.refusal[device], np.int8(-1))
        allowed = np.flatnonzero(row == Refusal.ALLOWED)
        return allowed if len(allowed) else np.flatnonzero(row == Refusal.MISSES_DEADLINE)

    def why(self, device: int, plan: int) -> Refusal:
        """Return why a plan is refused, or ``ALLOWED``."""
        return Refusal(int(self.refusal[device, plan]))


def mask(fleet: FleetObservation, costs: FleetCosts) -> Masked:
    """Return what each device may be told.

    Never empty: where every plan is refused, the lightest local plan the device holds is allowed after all (without
    any, the lightest local plan of the catalog). A deadline miss counts only with the edge idle: misses made by
    contention are for the policy to weigh, since masking them would drive every device the same way at once.
    """
    table, edge = costs.table, fleet.edge
    refusal = np.zeros(costs.known.shape, np.int8)
    held_at = cache(lambda versions: np.array([p.version in versions for p in table.plans], bool))
    spoken_by = cache(lambda codecs: np.array([p.is_local or p.codec in codecs for p in table.plans], bool))
    at_workers = held_at(edge.versions)
    idle = costs.outlook(
        np.arange(costs.devices)[:, None], np.arange(len(table))[None, :], np.zeros(()), np.zeros((), np.int64)
    )
    for i, device in enumerate(fleet.devices):
        row = refusal[i]
        refuse = _refuser(row)
        refuse(~held_at(device.versions), Refusal.DEVICE_LACKS_VERSION)
        refuse(~spoken_by(device.codecs), Refusal.DEVICE_LACKS_CODEC)
        if not device.may_ship_input:
            refuse(table.ships_input, Refusal.PRIVACY)
        refuse(~costs.known[i], Refusal.NOT_PROFILED if device.profile else Refusal.NO_PROFILE)
        if edge.workers < 1 or edge.threads < 1:
            refuse(~table.local, Refusal.NO_WORKER)
        refuse(~table.local & ~at_workers, Refusal.WORKER_LACKS_VERSION)
        if device.battery_share is not None and device.battery_share < device.battery_floor:
            _keep_least_energy(row, costs.energy_mj[i])
        if (row == 0).any() and not idle.misses[i][row == 0].all():
            refuse(idle.misses[i], Refusal.MISSES_DEADLINE)
        now = table.index.get(device.current) if device.current else None
        if device.hold and now is not None:
            row[:] = Refusal.NOTHING_FRESH
            row[now] = Refusal.ALLOWED
        if not (row == 0).any():
            row[safe_plan(table, device)] = Refusal.ALLOWED
    return Masked(refusal)


def safe_plan(table: PlanTable, device: DeviceObservation) -> int:
    """Return the local plan with fewest operations of those whose version the device holds, else of the catalog."""
    local = np.flatnonzero(table.local)
    held = [int(p) for p in local if table.plans[p].version in device.versions]
    return min(held or [int(p) for p in local] or [0], key=lambda p: float(table.macs[p]))


def _refuser(row: NDArray[np.int8]) -> Callable[[Mask, Refusal], None]:
    def refuse(where: Mask, why: Refusal) -> None:
        row[where & (row == 0)] = why

    return refuse


def _keep_least_energy(row: NDArray[np.int8], energy_mj: NDArray[np.float64]) -> None:
    left = row == 0
    if left.any():
        row[left & (energy_mj > energy_mj[left].min() * LEAST_ENERGY_MARGIN)] = Refusal.BATTERY
