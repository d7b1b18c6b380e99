"""Which plans a device may be told at all, and why the others may not; the one place where that is settled."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import IntEnum

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
    DEVICE_REFUSES = 11


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
    Refusal.DEVICE_REFUSES: "the device was told that plan and does not follow it",
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
    refusal = _of_the_device(fleet, table)

    def refuse(where: Mask, why: Refusal) -> None:
        refusal[where & (refusal == Refusal.ALLOWED)] = why

    nameless = np.array([device.profile is None for device in fleet.devices], bool)
    refuse(~costs.known & nameless[:, None], Refusal.NO_PROFILE)
    refuse(~costs.known, Refusal.NOT_PROFILED)
    remote = np.broadcast_to(~table.local, refusal.shape)
    if edge.workers < 1 or edge.threads < 1:
        refuse(remote, Refusal.NO_WORKER)
    refuse(remote & ~_held(table, edge.versions), Refusal.WORKER_LACKS_VERSION)
    for i, device in enumerate(fleet.devices):
        if device.battery_share is not None and device.battery_share < device.battery_floor:
            _keep_least_energy(refusal[i], costs.energy_mj[i])
    misses = costs.misses_when_idle()
    punctual = ((refusal == Refusal.ALLOWED) & ~misses).any(axis=1)
    refuse(misses & punctual[:, None], Refusal.MISSES_DEADLINE)
    for i, device in enumerate(fleet.devices):
        now = table.index.get(device.current) if device.hold and device.current else None
        # That pictures must not leave it holds however little is known of the device.
        if now is not None and (device.may_ship_input or not table.ships_input[now]):
            refusal[i] = Refusal.NOTHING_FRESH
            refusal[i, now] = Refusal.ALLOWED
    for i in np.flatnonzero(~(refusal == Refusal.ALLOWED).any(axis=1)):
        refusal[i, safe_plan(table, fleet.devices[i])] = Refusal.ALLOWED
    return Masked(refusal)


def _of_the_device(fleet: FleetObservation, table: PlanTable) -> NDArray[np.int8]:
    """Return what each device cannot or will not do by what it holds and was told; worked out once per kind."""
    kinds: dict[Hashable, int] = {}
    rows: list[NDArray[np.int8]] = []
    of = np.zeros(len(fleet.devices), np.int64)
    for i, device in enumerate(fleet.devices):
        key = device.versions, device.codecs, device.may_ship_input, device.refuses
        kind = kinds.get(key)
        if kind is None:
            kind = kinds[key] = len(rows)
            rows.append(_row(device, table))
        of[i] = kind
    return np.array(rows, np.int8).reshape(len(rows), len(table))[of]


def _row(device: DeviceObservation, table: PlanTable) -> NDArray[np.int8]:
    row = np.zeros(len(table), np.int8)

    def refuse(where: Mask, why: Refusal) -> None:
        row[where & (row == Refusal.ALLOWED)] = why

    refuse(~_held(table, device.versions), Refusal.DEVICE_LACKS_VERSION)
    refuse(np.array([not (p.is_local or p.codec in device.codecs) for p in table.plans]), Refusal.DEVICE_LACKS_CODEC)
    if not device.may_ship_input:
        refuse(table.ships_input, Refusal.PRIVACY)
    refuse(np.array([plan in device.refuses for plan in table.plans]), Refusal.DEVICE_REFUSES)
    return row


def _held(table: PlanTable, versions: frozenset[str]) -> Mask:
    return np.array([plan.version in versions for plan in table.plans], bool)


def safe_plan(table: PlanTable, device: DeviceObservation) -> int:
    """Return the local plan with fewest operations of those whose version the device holds, else of the catalog."""
    local = np.flatnonzero(table.local)
    held = [int(p) for p in local if table.plans[p].version in device.versions]
    return min(held or [int(p) for p in local] or [0], key=lambda p: float(table.macs[p]))


def _keep_least_energy(row: NDArray[np.int8], energy_mj: NDArray[np.float64]) -> None:
    left = row == 0
    if left.any():
        row[left & (energy_mj > energy_mj[left].min() * LEAST_ENERGY_MARGIN)] = Refusal.BATTERY
