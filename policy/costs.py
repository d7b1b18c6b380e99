"""The cost model: what every plan would cost every device, given its link, its board and the load on the edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.interface import EdgeObservation, FleetObservation, Prediction
from policy.queueing import TAIL_OF_WAIT, edge_delay
from policy.reward import dropped_share, late_share, reward
from policy.table import Array, DeviceRow, EdgeRow, Index, Mask, PlanTable, device_row, edge_row, plan_table
from tflite_models.catalog import Catalog
from tflite_models.profile import DeviceProfile, EdgeProfile

ROUNDING = 1e-9
NONE = -1
"""In an assignment: this device has no plan yet."""
MAX_ROWS = 2000
"""Profiles whose rows are kept: one per class and slowdown, and a slowdown is whatever a device says."""


@dataclass(frozen=True)
class Conditions:
    """What the cost model needs of N devices, as arrays [N]; ``weights`` is [N, 3]."""

    rows: Sequence[DeviceRow]
    uplink_bps: Array
    rtt_ms: Array
    fps: Array
    """0: as fast as the plan allows."""
    deadline_ms: Array
    weights: Array
    calibration: Array


@dataclass(frozen=True)
class Outlook:
    """Predictions for any selection of (device, plan, edge state), all of one broadcast shape."""

    latency_ms: Array
    latency_p95_ms: Array
    energy_mj: Array
    late: Array
    dropped: Array
    reward: Array

    @property
    def misses(self) -> Mask:
        """Whether more than one frame in twenty is predicted to be late or dropped."""
        return np.asarray((self.late > 0) | (self.dropped > 0))


@dataclass(frozen=True)
class FleetCosts:
    """Costs of every plan on every device of one site, [devices, plans], and the edge they share."""

    table: PlanTable
    known: Mask
    """Where profile and edge profile cover the plan; costs mean nothing elsewhere."""
    head_ms: Array
    encode_ms: Array
    tx_ms: Array
    own_ms: Array
    """All of the latency that does not depend on the edge's load."""
    own_p95_ms: Array
    energy_mj: Array
    """Head, encoding and sending, with the idle power of the time they take."""
    fallback_ms: Array
    """Time and energy to finish a frame locally after all; 0 where the plan is local."""
    fallback_mj: Array
    heavy_mj: Array
    """[devices]: energy of the heaviest local plan."""
    device_utilisation: Array
    link_utilisation: Array
    rate: Array
    """Frames per second."""
    per_frame: Array
    """[plans, 1 + batch sizes]: what the edge gets of a frame: itself (0: the plan is local), and busy ms."""
    tail_ms: Array
    """[plans, batch sizes]: time of a whole batch, calibrated."""
    batches: Index
    deadline_ms: Array
    weights: Array
    rtt_ms: Array
    interpreters: int
    backlog_ms: float

    @property
    def devices(self) -> int:
        """Number of devices."""
        return len(self.deadline_ms)

    @cached_property
    def load(self) -> Array:
        """[devices, plans, 1 + batch sizes]: frames per second, and busy ms per second, that the edge would get."""
        return np.asarray(self.rate[:, :, None] * self.per_frame)

    def load_of(self, device: Any, plan: Any) -> Array:
        """Return the load [..., 1 + batch sizes] of indices that broadcast together."""
        return np.asarray(self.rate[device, plan][..., None] * self.per_frame[plan])

    def total_load(self, assignment: Index) -> Array:
        """Return the load [1 + batch sizes] of an assignment [devices] of plans (``NONE``: no plan)."""
        there = np.flatnonzero(assignment != NONE)
        return np.asarray(self.rate[there, assignment[there]] @ self.per_frame[assignment[there]])

    def misses_when_idle(self) -> Mask:
        """Return whether each plan of each device is predicted late or dropped even with the edge idle."""
        p95 = self.own_p95_ms + np.where(self.table.local, 0.0, self.tail_ms[:, 0])
        slow = (p95 > self.deadline_ms[:, None]) | (self.link_utilisation > 1 + ROUNDING)
        return np.asarray(slow | (self.device_utilisation > 1))

    def edge_delay(self, load: Array) -> tuple[Array, Index]:
        """Return wait in ms and index of the batch size for loads [..., 1 + batch sizes]."""
        return edge_delay(load, self.batches, self.interpreters, self.backlog_ms)

    def outlook(self, device: Any, plan: Any, wait_ms: Array, batch: Index) -> Outlook:
        """Predict for indices and edge states that broadcast together; the edge state is unused by local plans."""
        remote = ~self.table.local[plan]
        tail = np.where(remote, self.tail_ms[plan, batch], 0.0)
        wait = np.where(remote, wait_ms, 0.0)
        mean = self.own_ms[device, plan] + wait + tail
        p95 = self.own_p95_ms[device, plan] + wait * TAIL_OF_WAIT + tail
        deadline = self.deadline_ms[device]
        late = np.where(self.link_utilisation[device, plan] > 1 + ROUNDING, 1.0, late_share(mean, p95, deadline))
        dropped = dropped_share(self.device_utilisation[device, plan])
        back = late * remote
        felt = (1 - back) * mean + back * (deadline + self.fallback_ms[device, plan])
        energy = self.energy_mj[device, plan] + back * self.fallback_mj[device, plan]
        worth = reward(
            self.weights[device],
            self.table.accuracy_term[plan],
            felt,
            deadline,
            energy,
            self.heavy_mj[device],
            late,
            dropped,
        )
        return Outlook(mean, p95, energy, late, dropped, worth)

    def together(self, assignment: Index) -> Outlook:
        """Predict every device under one assignment [devices] without ``NONE``."""
        wait, batch = self.edge_delay(self.total_load(assignment))
        return self.outlook(np.arange(self.devices), assignment, wait, batch)

    def prediction(self, device: int, plan: int, load: Array) -> Prediction:
        """Return one prediction in full, under a total edge load [1 + batch sizes] that includes this device."""
        return self.predictions(np.array([device]), np.array([plan]), load[None])[0]

    def predictions(self, device: Index, plan: Index, load: Array) -> list[Prediction]:
        """Return predictions in full for devices [M] on plans [M], each under a total edge load [M, 1 + G]."""
        wait, batch = self.edge_delay(load)
        seen = self.outlook(device, plan, wait, batch)
        remote = ~self.table.local[plan]
        figures = {
            "latency_ms": seen.latency_ms,
            "latency_p95_ms": seen.latency_p95_ms,
            "head_ms": self.head_ms[device, plan],
            "encode_ms": self.encode_ms[device, plan],
            "tx_ms": self.tx_ms[device, plan],
            "rtt_ms": np.where(remote, self.rtt_ms[device], 0.0),
            "wait_ms": np.where(remote, wait, 0.0),
            "tail_ms": np.where(remote, self.tail_ms[plan, batch], 0.0),
            "energy_mj": seen.energy_mj,
            "bytes_mean": self.table.bytes_mean[plan],
            "edge_busy_ms_per_s": self.rate[device, plan] * self.per_frame[plan, 1 + batch],
            "device_utilisation": self.device_utilisation[device, plan],
            "link_utilisation": self.link_utilisation[device, plan],
            "late_share": seen.late,
            "dropped_share": seen.dropped,
            "reward": seen.reward,
        }
        known = self.table.accuracy_known[plan]
        accuracy = [float(a) if k else None for a, k in zip(self.table.accuracy[plan], known, strict=True)]
        rows = zip(*(values.tolist() for values in figures.values()), strict=True)
        return [
            Prediction(**dict(zip(figures, row, strict=True)), accuracy=at)
            for row, at in zip(rows, accuracy, strict=True)
        ]


class CostModel:
    """A catalog's plans with the profile of the edge; gives the costs of any fleet."""

    def __init__(self, catalog: Catalog, edge: EdgeProfile | None) -> None:
        self.table = plan_table(catalog)
        self.edge: EdgeRow = edge_row(self.table, edge)
        self._unknown = device_row(self.table, None)
        self._rows: dict[int, tuple[DeviceProfile, DeviceRow]] = {}

    def row(self, profile: DeviceProfile | None) -> DeviceRow:
        """Return the costs of a class of device, looked up once per profile object."""
        if profile is None:
            return self._unknown
        held = self._rows.get(id(profile))
        if held is None:
            if len(self._rows) >= MAX_ROWS:
                self._rows.clear()
            # The profile is kept with its row, so that its id stays its own.
            held = self._rows[id(profile)] = (profile, device_row(self.table, profile))
        return held[1]

    def costs(self, fleet: FleetObservation) -> FleetCosts:
        """Return the costs of an observed fleet."""
        devices = fleet.devices
        return self.costs_under(
            Conditions(
                [self.row(d.profile) for d in devices],
                uplink_bps=np.array([d.uplink_bps for d in devices], np.float64),
                rtt_ms=np.array([d.rtt_ms for d in devices], np.float64),
                fps=np.array([d.fps for d in devices], np.float64),
                deadline_ms=np.array([d.deadline_ms for d in devices], np.float64),
                weights=np.array(
                    [(d.weights.accuracy, d.weights.latency, d.weights.energy) for d in devices], np.float64
                ).reshape(-1, 3),
                calibration=np.array([d.calibration for d in devices], np.float64),
            ),
            fleet.edge,
        )

    def costs_under(self, now: Conditions, edge: EdgeObservation) -> FleetCosts:
        """Return the costs of every plan under conditions given as arrays: the way in for a simulation."""
        table, plans = self.table, len(self.table)
        remote = ~table.local
        factor = now.calibration[:, None]
        rows, of = _kinds(now.rows)  # a fleet has few
        head = _stack([r.head_ms for r in rows], plans)[of] * factor
        head_p95 = _stack([r.head_p95_ms for r in rows], plans)[of] * factor
        encode = _stack([r.encode_ms for r in rows], plans)[of] * factor
        compute_mj = _stack([r.compute_mj for r in rows], plans)[of] * factor
        tx_mw = np.array([r.tx_power_mw for r in rows], np.float64)[of, None]
        idle_mw = np.array([r.idle_power_mw for r in rows], np.float64)[of, None]
        overhead = np.array([r.frame_overhead_ms for r in rows], np.float64)[of, None]
        known = _stack([r.known for r in rows], plans).astype(bool)[of] & self.edge.known

        ms_per_byte = 8000.0 / now.uplink_bps[:, None]
        tx: Array = np.where(remote, table.bytes_mean * ms_per_byte, 0.0)
        link: Array = np.where(remote, now.rtt_ms[:, None] + self.edge.overhead_ms, 0.0)
        busy = head + encode
        energy = compute_mj + (tx_mw * tx + idle_mw * (busy + tx)) / 1000
        fps = np.where(now.fps[:, None] > 0, now.fps[:, None], 1000 / np.maximum(np.maximum(busy, tx), 1.0))
        tail_ms = self.edge.tail_ms * edge.calibration
        per_frame = np.concatenate([remote[:, None], tail_ms / self.edge.batches], axis=1)
        has_twin = remote & (table.twin >= 0)
        home = np.flatnonzero(table.local)
        heavy = np.where(known[:, home], energy[:, home], 0.0).max(axis=1, initial=0.0)
        guest = np.flatnonzero(heavy <= 0)
        heavy[guest] = np.where(known[guest], energy[guest], 0.0).max(axis=1, initial=0.0)
        return FleetCosts(
            table,
            known,
            head,
            encode,
            tx,
            own_ms=overhead + busy + tx + link,
            own_p95_ms=overhead + head_p95 + encode + table.bytes_p95 * ms_per_byte * remote + link,
            energy_mj=energy,
            fallback_ms=np.where(has_twin, head[:, table.twin], 0.0),
            fallback_mj=np.where(has_twin, energy[:, table.twin], 0.0),
            heavy_mj=np.maximum(heavy, 1e-9),
            device_utilisation=busy * fps / 1000,
            link_utilisation=tx * fps / 1000,
            rate=fps,
            per_frame=per_frame,
            tail_ms=tail_ms,
            batches=self.edge.batches,
            deadline_ms=now.deadline_ms,
            weights=now.weights,
            rtt_ms=now.rtt_ms,
            interpreters=edge.threads if edge.workers > 0 else 0,
            backlog_ms=edge.backlog_ms,
        )


def _kinds(rows: Sequence[DeviceRow]) -> tuple[list[DeviceRow], Index]:
    """Return the rows that differ, and which of them each is."""
    place: dict[int, int] = {}
    of = np.array([place.setdefault(id(row), len(place)) for row in rows], np.int64)
    different = {id(row): row for row in rows}
    return [different[key] for key in place], of


def _stack(rows: Sequence[NDArray[Any]], plans: int) -> Array:
    return np.array(rows, np.float64).reshape(len(rows), plans)
