"""What only a simulation can know: at which price of energy each battery would last until the end of its day."""

from __future__ import annotations

import numpy as np

from policy.batch import Reals
from policy.simulation.world import World
from policy.table import Array

BISECTIONS = 12
HIGHEST = 16.0
"""Reward per energy of a usual period on the dearest plan; at this price only the cheapest plans are left."""
EDGE_DELAY_MS = 20.0
"""Typical wait for the edge; the price is not sensitive to it."""


class Day:
    """The whole episode of a world with batteries, seen in advance.

    With the day's links and rates known, the best use of a charge is one constant price of energy: the multiplier of
    the budget in the Lagrangian of the day's sum of rewards. A period with many frames costs more of it than a calm
    one.
    """

    def __init__(self, world: World) -> None:
        scenario, fleets = world.scenario, world.fleets
        zeros, wait = np.zeros(fleets), np.full((1, 1, 1), EDGE_DELAY_MS, np.float32)
        worth, energy, frames = [], [], []
        for t in range(scenario.periods):
            batch = world.hardware.costs(
                world.traces.uplink_bps[t], world.traces.rtt_ms, world.traces.fps[t], zeros, world.hardware.edge_truth
            )
            worth.append(np.where(batch.allowed, batch.rewards(wait, np.zeros((1, 1, 1), np.int64)), np.float32(-1e9)))
            energy.append(batch.energy_mj)
            frames.append(world.traces.fps[t] * scenario.period_s)
        self._worth, self._energy, self._frames = np.stack(worth), np.stack(energy), np.stack(frames)
        self._unit = np.maximum(self._energy[0].max(axis=-1) * self._frames.mean(axis=0), 1e-9)

    def price(self, t: int, battery_mj: Array) -> Reals:
        """Return the price [F, N] per mJ at which what is left at period ``t`` lasts; 0 where it lasts anyway."""
        worth, frames = self._worth[t:], self._frames[t:]
        energy = self._energy[t:] * frames[..., None]

        def spent(level: Array) -> Array:
            best = np.argmax(worth - (level / self._unit)[None, ..., None] * energy, axis=-1)
            return np.asarray(np.take_along_axis(energy, best[..., None], axis=-1)[..., 0].sum(axis=0))

        low, high = np.zeros(battery_mj.shape), np.full(battery_mj.shape, HIGHEST)
        lasts = spent(low) <= battery_mj
        for _ in range(BISECTIONS):
            # Small prices matter as much as great ones, so the middle is a geometric one.
            middle = np.where(low > 0, np.sqrt(low * high), high / 16)
            over = spent(middle) > battery_mj
            low, high = np.where(over, middle, low), np.where(over, high, middle)
        return np.where(lasts, 0.0, high / self._unit).astype(np.float32)
