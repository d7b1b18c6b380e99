"""What happens to simulated sites from outside, drawn in advance so that every policy meets the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policy.simulation.scenario import Range, Scenario
from policy.table import Array, Index, Mask

RETURN = 0.15
"""Share of the way back to its own rate that a link goes each period."""


@dataclass(frozen=True)
class Traces:
    """T periods of F fleets with N devices, arrays [T, F, N] unless said otherwise."""

    uplink_bps: Array
    rtt_ms: Array
    """[F, N]"""
    fps: Array
    delay: Index
    """Age of what is known of a device, in periods."""
    noise: Array
    """Factor by which the measured uplink is off."""


def draw(scenario: Scenario, fleets: int, rng: np.random.Generator) -> Traces:
    """Draw everything that happens from outside."""
    shape = (scenario.periods, fleets, scenario.devices)
    return Traces(
        _uplinks(scenario, shape, rng),
        log_uniform(scenario.rtt_ms, shape[1:], rng),
        _rates(scenario, shape, rng),
        _delays(scenario, shape, rng),
        np.exp(rng.normal(0, scenario.uplink_noise, shape)),
    )


def log_uniform(bounds: Range, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Draw between two bounds, uniformly in the logarithm."""
    return np.asarray(np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]), shape)))


def spells(shape: tuple[int, ...], begin: float, length: float, rng: np.random.Generator) -> Mask:
    """Return whether a spell lasts [T, ...]: per period it begins by chance ``begin`` and ends by 1/``length``."""
    starts, ends = rng.random(shape) < begin, rng.random(shape) < 1 / max(length, 1.0)
    on = np.zeros(shape, bool)
    now = np.zeros(shape[1:], bool)
    for t in range(shape[0]):
        now = np.where(now, ~ends[t], starts[t])
        on[t] = now
    return on


def _uplinks(scenario: Scenario, shape: tuple[int, int, int], rng: np.random.Generator) -> Array:
    presets = np.log(np.array(scenario.uplink_mbps) * 1e6)
    switch = rng.random(shape) < scenario.uplink_switch
    switch[0] = True
    fresh = presets[rng.integers(0, len(presets), shape)]
    steps = rng.normal(0, scenario.uplink_jitter, shape)
    own = fresh[0]
    off = np.zeros(shape[1:])
    rates = np.empty(shape)
    for t in range(shape[0]):
        own = np.where(switch[t], fresh[t], own)
        off = (1 - RETURN) * off + steps[t]
        rates[t] = own + off
    out = spells(shape, scenario.outage, scenario.outage_periods, rng)
    together = spells(shape[:2], scenario.site_outage, scenario.outage_periods, rng)
    out |= together[..., None] & (rng.random(shape[1:]) < 0.5)[None]
    out &= spells(shape, scenario.drop, scenario.drop_periods, rng)
    return np.where(out, scenario.outage_mbps * 1e6, np.exp(rates))


def _rates(scenario: Scenario, shape: tuple[int, int, int], rng: np.random.Generator) -> Array:
    fps = np.broadcast_to(log_uniform(scenario.fps, shape[1:], rng), shape).copy()
    burst = spells(shape[:2], scenario.burst, scenario.burst_periods, rng)
    fps *= np.where(burst, log_uniform(scenario.burst_factor, shape[1:2], rng), 1.0)[..., None]
    if scenario.day:
        fps *= _day(shape, rng)
    return fps


def _day(shape: tuple[int, int, int], rng: np.random.Generator) -> Array:
    """Return factors of the frame rate over a day: calm hours at a fifth, two shifts at up to twice the mean."""
    hours = np.linspace(0, 1, shape[0])[:, None, None]
    factor = np.full(shape, 0.2)
    for centre in (0.3, 0.75):
        middle = centre + rng.normal(0, 0.06, shape[1:])
        width = rng.uniform(0.06, 0.14, shape[1:])
        factor += rng.uniform(0.8, 1.8, shape[1:]) * np.exp(-(((hours - middle) / width) ** 2))
    return factor


def _delays(scenario: Scenario, shape: tuple[int, int, int], rng: np.random.Generator) -> Index:
    low, high = scenario.telemetry_delay
    fresh = rng.integers(low, high + 1, shape)
    change = rng.random(shape) < 0.1
    change[0] = True
    last = np.maximum.accumulate(np.where(change, np.arange(shape[0])[:, None, None], 0), axis=0)
    return np.take_along_axis(fresh, last, axis=0)
