"""The cost model reproduces the optima that Infer-EDGE states for its Jetson TX2 table (server free)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from policy.costs import CostModel, FleetCosts
from policy.table import Array
from tests.policy.builders import DEVICE, EDGE, fleet, tx2


def costs_of(model: str, uplink_mbps: float, tx_power_mw: float = 700.0) -> FleetCosts:
    catalog, profile, edge = tx2(model)
    device = dataclasses.replace(
        DEVICE,
        profile=dataclasses.replace(profile, tx_power_mw=tx_power_mw),
        fps=0.1,
        uplink_bps=uplink_mbps * 1e6,
        rtt_ms=0.0,
        deadline_ms=60_000.0,
    )
    return CostModel(catalog, edge).costs(fleet(device, edge=EDGE))


def layers_by(values: Array, costs: FleetCosts) -> list[int]:
    return [int(costs.table.plans[i].cut) for i in np.argsort(values, kind="stable")]


def latencies(costs: FleetCosts) -> Array:
    wait, batch = costs.edge_delay(costs.load[0])
    return costs.outlook(0, np.arange(len(costs.table)), wait, batch).latency_ms


@pytest.mark.parametrize(
    ("model", "mbps", "first_two"),
    [("vgg11", 8, {21, 22}), ("vgg11", 20, {21, 22}), ("vgg19", 20, {10, 19}), ("vgg19", 8, {37, 38})],
)
def test_the_two_fastest_layers(model: str, mbps: float, first_two: set[int]) -> None:
    costs = costs_of(model, mbps)
    assert set(layers_by(latencies(costs), costs)[:2]) == first_two


@pytest.mark.parametrize(
    ("model", "mbps", "layer"), [("vgg11", 8, 6), ("vgg11", 20, 3), ("vgg19", 8, 5), ("vgg19", 20, 5)]
)
@pytest.mark.parametrize("tx_power_mw", [485.0, 700.0, 1005.0])
def test_the_least_energy_layer(model: str, mbps: float, layer: int, tx_power_mw: float) -> None:
    costs = costs_of(model, mbps, tx_power_mw)
    assert layers_by(costs.energy_mj[0], costs)[0] == layer


def test_the_best_float32_split_of_vgg11_at_8_mbps() -> None:
    """753 ms to layer 21 and 100,352 bytes at 8 Mbit/s: 0.853 s, as the published figures add up."""
    assert latencies(costs_of("vgg11", 8)).min() == pytest.approx(753 + 100.352)
