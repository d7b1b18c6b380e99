"""Random observed sites, for tests that hold two ways of working something out together."""

from __future__ import annotations

import dataclasses

import numpy as np

from policy.batch import Batch, Index, of_fleet
from policy.costs import FleetCosts
from policy.interface import EdgeObservation, FleetObservation, Weights
from tests.policy.builders import DEVICE, EDGE, board, small_model


def random_fleet(rng: np.random.Generator, devices: int) -> FleetObservation:
    """A site whose boards, links, rates, weights and deadlines are drawn; its edge may already be behind."""
    seen = []
    for i in range(devices):
        shares = rng.dirichlet((2, 2, 2))
        seen.append(
            dataclasses.replace(
                DEVICE,
                name=f"cam-{i}",
                profile=board(f"board-{i}", heavy_ms=float(rng.uniform(80, 600))),
                weights=Weights(*(float(s) for s in shares)),
                deadline_ms=float(rng.uniform(150, 900)),
                fps=float(rng.uniform(0.5, 6)),
                uplink_bps=float(np.exp(rng.uniform(np.log(2e5), np.log(2e7)))),
                rtt_ms=float(rng.uniform(2, 80)),
            )
        )
    backlog = float(rng.choice([0.0, 60.0]))
    edge: EdgeObservation = dataclasses.replace(EDGE, threads=int(rng.integers(1, 4)), backlog_ms=backlog)
    return FleetObservation(tuple(seen), edge)


def random_site(seed: int, devices: int, edge_heavy_ms: float = 90.0) -> tuple[FleetCosts, Batch]:
    """The costs of a random site, and the same as a batch of one."""
    rng = np.random.default_rng(seed)
    fleet = random_fleet(rng, devices)
    costs = small_model(edge_heavy_ms).costs(fleet)
    columns = np.tile(np.arange(costs.known.shape[1]), (devices, 1))
    return costs, of_fleet(costs, columns, costs.known, np.array([device.fps for device in fleet.devices]))


def random_plans(batch: Batch, rng: np.random.Generator) -> Index:
    """Any allowed plan for each device, [S, N]."""
    return np.asarray(np.argmax(np.where(batch.allowed, rng.random(batch.shape), -1), axis=-1))
