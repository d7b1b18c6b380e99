"""The boards and the edge of simulated sites: what does not change over time, drawn from measured tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.batch import Batch, Index, Mask, Reals
from policy.queueing import Array
from policy.reward import accuracy_term
from policy.simulation.scenario import Scenario
from policy.simulation.tables import PlanSet, of_families, tx2, undominated, varied, zoo
from policy.simulation.traces import log_uniform


@dataclass(frozen=True)
class Hardware:
    """F fleets of N devices with P plans each (padded), arrays [F, N, P] unless said otherwise."""

    sets: tuple[PlanSet, ...]
    """[F]: the plans of each fleet."""
    allowed: Mask
    local: Mask
    ships_input: Mask
    compute_ms: Reals
    compute_p95_ms: Reals
    compute_mj: Reals
    bytes_mean: Reals
    bytes_p95: Reals
    accuracy: Reals
    accuracy_term: Reals
    tail_ms: Reals
    """[F, N, P, G]: as the profile says."""
    twin: Index
    tx_power_mw: Reals
    """[F, 1, 1]"""
    idle_power_mw: Reals
    overhead_ms: Reals
    """[F, 1, 1]"""
    batches: Index
    interpreters: Reals
    """[F]"""
    deadline_ms: Reals
    """[F, N]"""
    weights: Reals
    """[F, N, 3]"""
    edge_truth: Reals
    """[F]: how much longer tails really take."""

    def costs(self, uplink_bps: Array, rtt_ms: Array, fps: Array, backlog_ms: Array, tail_factor: Array) -> Batch:
        """Return what every plan costs under conditions [F, N], and an edge [F] with tails ``tail_factor`` as long."""
        uplink, rtt, rate = (np.asarray(v, np.float32)[..., None] for v in (uplink_bps, rtt_ms, fps))
        remote = ~self.local
        tx = self.bytes_mean * (8000 / uplink)
        link = (rtt + self.overhead_ms) * remote
        busy = self.compute_ms
        energy = self.compute_mj + (self.tx_power_mw * tx + self.idle_power_mw * (busy + tx)) / 1000
        tail = self.tail_ms * np.asarray(tail_factor, np.float32)[:, None, None, None]
        per_frame = np.concatenate([remote[..., None].astype(np.float32), tail / self.batches], axis=-1)
        has_twin = remote & (self.twin >= 0)
        return Batch(
            allowed=self.allowed,
            local=self.local,
            own_ms=busy + tx + link,
            own_p95_ms=self.compute_p95_ms + self.bytes_p95 * (8000 / uplink) + link,
            tx_ms=tx,
            energy_mj=energy,
            fallback_ms=np.where(has_twin, np.take_along_axis(busy, self.twin, axis=2), np.float32(0)),
            fallback_mj=np.where(has_twin, np.take_along_axis(energy, self.twin, axis=2), np.float32(0)),
            device_utilisation=busy * rate / 1000,
            link_utilisation=tx * rate / 1000,
            accuracy_term=self.accuracy_term,
            load=per_frame * rate[..., None],
            tail_ms=tail,
            weights=self.weights,
            deadline_ms=self.deadline_ms,
            heavy_mj=np.maximum(np.where(self.local & self.allowed, energy, 0).max(axis=2), np.float32(1e-9)),
            fps=rate[..., 0],
            batches=self.batches,
            interpreters=self.interpreters,
            backlog_ms=np.asarray(backlog_ms, np.float32),
        )


def draw(scenario: Scenario, fleets: int, fps: Array, rng: np.random.Generator) -> Hardware:
    """Draw the sites of a scenario; ``fps`` [F, N] are typical frame rates, by which the edge is dimensioned."""
    devices = scenario.devices
    sets = tuple(_plans(scenario, rng) for _ in range(fleets))
    most, batches = max(len(s) for s in sets), sets[0].batches
    slow = log_uniform(scenario.slowdown, (fleets, devices), rng)
    shape = (fleets, devices, most)
    names = (
        "local",
        "ships_input",
        "compute_ms",
        "compute_p95_ms",
        "compute_mj",
        "bytes_mean",
        "bytes_p95",
        "accuracy",
    )
    columns = {
        name: np.zeros((fleets, most), bool if name in ("local", "ships_input") else np.float64) for name in names
    }
    terms, twin = np.zeros((fleets, most)), np.full((fleets, most), -1)
    tails, there = np.zeros((fleets, most, len(batches))), np.zeros((fleets, most), bool)
    for f, plans in enumerate(sets):
        n = len(plans)
        for name in names:
            columns[name][f, :n] = getattr(plans, name)
        columns["local"][f, n:] = True
        tails[f, :n], twin[f, :n], there[f, :n] = plans.tail_ms, plans.twin, True
        terms[f, :n] = accuracy_term(plans.accuracy)
    tails *= _edge_scale(scenario, sets, fps, rng)[:, None, None]

    def each(values: NDArray[Any]) -> NDArray[Any]:
        return np.broadcast_to(values[:, None], (fleets, devices, *values.shape[1:]))

    def reals(name: str, by: Array | None = None) -> Reals:
        values = each(columns[name])
        return np.asarray(values if by is None else values * by[..., None], np.float32)

    def site(values: list[float]) -> Reals:
        return np.array(values, np.float32)[:, None, None]

    return Hardware(
        sets,
        allowed=np.ascontiguousarray(np.broadcast_to(there[:, None], shape)),
        local=np.ascontiguousarray(each(columns["local"])),
        ships_input=np.ascontiguousarray(each(columns["ships_input"])),
        compute_ms=reals("compute_ms", slow),
        compute_p95_ms=reals("compute_p95_ms", slow),
        compute_mj=reals("compute_mj", slow),
        bytes_mean=reals("bytes_mean"),
        bytes_p95=reals("bytes_p95"),
        accuracy=reals("accuracy"),
        accuracy_term=np.asarray(each(terms), np.float32),
        tail_ms=np.ascontiguousarray(each(tails).astype(np.float32)),
        twin=np.ascontiguousarray(each(twin)),
        tx_power_mw=site([s.tx_power_mw for s in sets]),
        idle_power_mw=site([s.idle_power_mw for s in sets]),
        overhead_ms=site([s.overhead_ms for s in sets]),
        batches=batches,
        interpreters=np.full(fleets, scenario.interpreters, np.float32),
        deadline_ms=log_uniform(scenario.deadline_ms, (fleets, devices), rng).astype(np.float32),
        weights=_weights(scenario, (fleets, devices), rng),
        edge_truth=log_uniform(scenario.edge_truth, (fleets,), rng).astype(np.float32),
    )


def _plans(scenario: Scenario, rng: np.random.Generator) -> PlanSet:
    plans = zoo() if scenario.table == "zoo" else tx2()
    if scenario.table == "zoo" and not scenario.mixed_families:
        plans = of_families(plans, [scenario.families[rng.integers(len(scenario.families))]])
    elif scenario.table == "zoo":
        plans = of_families(plans, scenario.families)
    if scenario.spread:
        plans = varied(plans, rng, scenario.spread)
    return undominated(plans, scenario.most_plans)


def _edge_scale(scenario: Scenario, sets: tuple[PlanSet, ...], fps: Array, rng: np.random.Generator) -> Array:
    """Return by how much the measured tails are scaled [F], so that the edge is as busy as the scenario asks."""
    demand = log_uniform(scenario.demand, (len(sets),), rng)
    dearest = np.array([plans.tail_ms[:, 0].max() for plans in sets])
    offered = fps.mean(axis=1) * (scenario.edge_of or scenario.devices)
    return np.asarray(demand * 1000 * scenario.interpreters / (offered * dearest))


def _weights(scenario: Scenario, shape: tuple[int, int], rng: np.random.Generator) -> Reals:
    if scenario.weights == "equal":
        return np.full((*shape, 3), 1 / 3, np.float32)
    if scenario.weights == "accuracy":
        return np.broadcast_to(np.array([0.8, 0.1, 0.1], np.float32), (*shape, 3)).copy()
    concentration = (3.0, 3.0, 0.5) if scenario.weights == "demanding" else (2.0, 2.0, 2.0)
    return rng.dirichlet(concentration, shape).astype(np.float32)
