"""Costs of every plan on every device of many sites at once: what coordination and learning compute on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.costs import FleetCosts
from policy.queueing import TAIL_OF_WAIT, at_last, edge_delay
from policy.reward import dropped_share, late_share, reward

Reals = NDArray[np.floating[Any]]
"""float32, for speed; sums of rewards need no more."""
Mask = NDArray[np.bool_]
Index = NDArray[np.int64]

NOTHING = -1e9
"""Score of a plan that may not be chosen."""


@dataclass(frozen=True)
class Batch:
    """S sites with N devices and P plans each; arrays [S, N, P] unless said otherwise."""

    allowed: Mask
    local: Mask
    own_ms: Reals
    """Latency that does not depend on the edge's load."""
    own_p95_ms: Reals
    tx_ms: Reals
    """Time of sending, mean; part of ``own_ms``."""
    energy_mj: Reals
    fallback_ms: Reals
    fallback_mj: Reals
    device_utilisation: Reals
    link_utilisation: Reals
    accuracy_term: Reals
    load: Reals
    """[S, N, P, 1 + G]: frames per second, and busy ms per second by batch size, that the edge would get."""
    tail_ms: Reals
    """[S, N, P, G]: time of a whole batch."""
    weights: Reals
    """[S, N, 3]"""
    deadline_ms: Reals
    """[S, N]"""
    heavy_mj: Reals
    """[S, N]: energy of the dearest local plan."""
    fps: Reals
    """[S, N]: offered frames per second; 0: as fast as the plan allows."""
    batches: Index
    """[G]"""
    interpreters: Reals
    """[S]"""
    backlog_ms: Reals
    """[S]"""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(sites, devices, plans)."""
        sites, devices, plans = self.allowed.shape
        return sites, devices, plans

    @cached_property
    def _site(self) -> Index:
        return np.arange(self.shape[0])[:, None]

    def devices(self, chosen: Index) -> Batch:
        """Return the batch of some devices [S, C] of each site."""
        at = (self._site, chosen)
        names = (
            "allowed", "local", "own_ms", "own_p95_ms", "tx_ms", "energy_mj", "fallback_ms", "fallback_mj",
            "device_utilisation", "link_utilisation", "accuracy_term", "load", "tail_ms", "weights", "deadline_ms",
            "heavy_mj", "fps",
        )  # fmt: skip
        return replace(self, **{name: getattr(self, name)[at] for name in names})

    def pick(self, values: NDArray[Any], assignment: Index) -> NDArray[Any]:
        """Return values [S, N, P, ...] at an assignment [S, N]."""
        sites, devices = assignment.shape
        return np.asarray(values[np.arange(sites)[:, None], np.arange(devices)[None, :], assignment])

    def total_load(self, assignment: Index) -> Reals:
        """Return the load [S, 1 + G] of an assignment [S, N]."""
        return np.asarray(self.pick(self.load, assignment).sum(axis=1))

    def delay(self, load: Reals) -> tuple[Reals, Index]:
        """Return wait in ms and index of the batch size for loads [S, ..., 1 + G]."""
        spread = (slice(None),) + (None,) * (load.ndim - 2)
        wait, batch = edge_delay(load, self.batches, self.interpreters[spread], self.backlog_ms[spread])
        return wait.astype(np.float32), batch

    def rewards(self, wait_ms: Reals, batch: Index, link_factor: float = 1.0) -> Reals:
        """Return the reward [S, N, P] of every plan under edge states that broadcast to [S, N, P].

        ``link_factor`` divides the uplink: sending takes so many times as long.
        """
        tail = at_last(self.tail_ms, np.broadcast_to(batch, self.shape))
        return self._worth(wait_ms, tail, link_factor)

    def _worth(self, wait_ms: Reals, tail_ms: Reals, link_factor: float) -> Reals:
        remote = ~self.local
        edge = (wait_ms + tail_ms) * remote
        mean, p95 = self.own_ms + edge, self.own_p95_ms + (wait_ms * TAIL_OF_WAIT + tail_ms) * remote
        link = self.link_utilisation
        if link_factor != 1.0:
            more = self.tx_ms * (link_factor - 1)
            mean, p95, link = mean + more, p95 + more * 1.2, link * link_factor
        return _felt(
            self, mean, p95, link, self.deadline_ms[..., None], self.weights[..., None, :], self.heavy_mj[..., None]
        ).reward

    def rewards_under(self, wait_ms: Reals, batch: Index, longer: Reals) -> Reals:
        """Return rewards [F, S, N, P] under waits and sizes of that shape, tails so much ``longer`` [F, 1, 1, 1]."""
        tail = at_last(np.broadcast_to(self.tail_ms, (*batch.shape, self.tail_ms.shape[-1])), batch)
        return self._worth(wait_ms, tail * longer, 1.0)

    def at(self, assignment: Index) -> AtPlan:
        """Return these devices at one plan each [S, N]."""
        return AtPlan(
            _View({name: self.pick(getattr(self, name), assignment)[:, None] for name in _PER_PLAN}),
            self.weights[:, None],
            self.deadline_ms[:, None],
            self.heavy_mj[:, None],
        )

    def felt(self, assignment: Index, wait_ms: Reals, tail_ms: Reals) -> Felt:
        """Return what frames are like [S, N] at an assignment, waits [S, 1] and batch times [S, N] given."""
        one = {name: self.pick(getattr(self, name), assignment) for name in _PER_PLAN}
        remote = ~one["local"]
        mean = one["own_ms"] + (wait_ms + tail_ms) * remote
        p95 = one["own_p95_ms"] + (wait_ms * TAIL_OF_WAIT + tail_ms) * remote
        return _felt(_View(one), mean, p95, one["link_utilisation"], self.deadline_ms, self.weights, self.heavy_mj)

    def together(self, assignment: Index) -> Reals:
        """Return the reward [S, N] of each device when all follow an assignment [S, N]."""
        wait, batch = self.delay(self.total_load(assignment))
        tail = np.take_along_axis(self.pick(self.tail_ms, assignment), batch[:, None, None], axis=-1)[..., 0]
        return self.felt(assignment, wait[:, None], tail).reward


_PER_PLAN = (
    "local", "own_ms", "own_p95_ms", "energy_mj", "fallback_ms", "fallback_mj", "device_utilisation",
    "link_utilisation", "accuracy_term",
)  # fmt: skip


class _View:
    """The columns of a batch at one plan per device."""

    def __init__(self, columns: dict[str, NDArray[Any]]) -> None:
        self.__dict__.update(columns)


@dataclass(frozen=True)
class AtPlan:
    """Devices at one plan each, all of them on the edge; arrays [S, 1, N]."""

    _of: _View
    _weights: Reals
    _deadline_ms: Reals
    _heavy_mj: Reals

    def rewards(self, wait_ms: Reals, tail_ms: Reals) -> Reals:
        """Return rewards [..., S, K, N] under K waits [..., S, K, 1] and batch times [..., S, 1 or K, N]."""
        of: Any = self._of
        mean = of.own_ms + (wait_ms + tail_ms)
        p95 = of.own_p95_ms + (wait_ms * TAIL_OF_WAIT + tail_ms)
        return _felt(of, mean, p95, of.link_utilisation, self._deadline_ms, self._weights, self._heavy_mj).reward


@dataclass(frozen=True)
class Felt:
    """What frames are like under a plan and an edge state, arrays of one shape."""

    reward: Reals
    latency_ms: Reals
    """Of what the user gets: late frames are finished on the device."""
    latency_p95_ms: Reals
    energy_mj: Reals
    late: Reals
    dropped: Reals


def _felt(of: Any, mean: Reals, p95: Reals, link: Reals, deadline: Reals, weights: Reals, heavy: Reals) -> Felt:
    """Return what frames are like; the same formula as ``FleetCosts.outlook`` (a test holds them together)."""
    late = np.where(link > 1 + 1e-6, np.float32(1), late_share(mean, p95, deadline))
    dropped = dropped_share(of.device_utilisation)
    back = late * ~of.local
    felt = mean + back * (deadline + of.fallback_ms - mean)
    energy = of.energy_mj + back * of.fallback_mj
    worth = reward(weights, of.accuracy_term, felt, deadline, energy, heavy, late, dropped)
    return Felt(worth, felt, np.maximum(p95, felt), energy, late, dropped)


def of_fleet(costs: FleetCosts, columns: Index, allowed: Mask, fps: NDArray[np.float64]) -> Batch:
    """Return one observed site as a batch of one.

    ``columns`` [N, K] are the plans looked at, device by device, ``allowed`` [N, K] which of them count (the rest fill
    up), ``fps`` [N] the offered frame rates.
    """
    row = np.arange(costs.devices)[:, None]

    def device(values: NDArray[Any]) -> Reals:
        return np.asarray(values[row, columns], np.float32)[None]

    def plan(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(values[columns])[None]

    def reals(values: NDArray[Any]) -> Reals:
        return np.asarray(values, np.float32)[None]

    table = costs.table
    return Batch(
        allowed=allowed[None],
        local=plan(table.local),
        own_ms=device(costs.own_ms),
        own_p95_ms=device(costs.own_p95_ms),
        tx_ms=device(costs.tx_ms),
        energy_mj=device(costs.energy_mj),
        fallback_ms=device(costs.fallback_ms),
        fallback_mj=device(costs.fallback_mj),
        device_utilisation=device(costs.device_utilisation),
        link_utilisation=device(costs.link_utilisation),
        accuracy_term=plan(table.accuracy_term.astype(np.float32)),
        load=np.asarray(costs.load_of(row, columns), np.float32)[None],
        tail_ms=plan(costs.tail_ms.astype(np.float32)),
        weights=reals(costs.weights),
        deadline_ms=reals(costs.deadline_ms),
        heavy_mj=reals(costs.heavy_mj),
        fps=reals(fps),
        batches=costs.batches,
        interpreters=np.array([costs.interpreters], np.float32),
        backlog_ms=np.array([costs.backlog_ms], np.float32),
    )
