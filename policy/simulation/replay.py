"""Real links and frame rates in the simulation: windows of a site's recording, drawn for any number of fleets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policy.errors import PolicyError
from policy.simulation import traces
from policy.simulation.scenario import Range, Scenario
from policy.simulation.traces import Traces
from policy.simulation.world import Source
from policy.table import Array

LEAST_PERIODS = 20
LEAST_RTT_MS = 0.1
LEAST_FPS = 0.01


@dataclass(frozen=True)
class Recording:
    """What was recorded at a site, arrays [devices, periods] with gaps filled."""

    uplink_bps: Array
    rtt_ms: Array
    fps: Array
    edge_truth: Range
    """Least and greatest factor by which tails took longer than the profile says."""

    def __post_init__(self) -> None:
        if self.devices < 1 or self.periods < LEAST_PERIODS:
            raise PolicyError(
                f"a recording of {self.devices} devices over {self.periods} periods is too short to train on: "
                f"at least 1 device and {LEAST_PERIODS} periods are needed"
            )

    @property
    def devices(self) -> int:
        """How many."""
        return len(self.uplink_bps)

    @property
    def periods(self) -> int:
        """How many."""
        return int(self.uplink_bps.shape[1]) if self.uplink_bps.ndim == 2 else 0


def recording(uplink_bps: Array, rtt_ms: Array, fps: Array, tail_factor: Array) -> Recording:
    """Return a recording; tail factors that were not measured (NaN) do not count."""
    known = tail_factor[np.isfinite(tail_factor) & (tail_factor > 0)]
    truth = (float(known.min()), float(known.max())) if len(known) else (1.0, 1.0)
    return Recording(uplink_bps, np.maximum(rtt_ms, LEAST_RTT_MS), np.maximum(fps, LEAST_FPS), truth)


def replayed(of: Recording) -> Source:
    """Return a source of traces: each fleet gets devices and a window of the recording at random."""

    def draw(scenario: Scenario, fleets: int, rng: np.random.Generator) -> Traces:
        if scenario.periods > of.periods:
            raise PolicyError(f"{scenario.periods} periods asked of a recording of {of.periods}")
        shape = (scenario.periods, fleets, scenario.devices)
        device = rng.integers(0, of.devices, shape[1:])
        begin = rng.integers(0, of.periods - scenario.periods + 1, (fleets, 1))
        when = begin + np.arange(scenario.periods)[:, None, None]
        other = traces.draw(scenario, fleets, rng)
        return Traces(
            of.uplink_bps[device, when],
            of.rtt_ms[device, when].mean(axis=0),
            of.fps[device, when],
            other.delay,
            other.noise,
        )

    return draw
