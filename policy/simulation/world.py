"""The simulated world: many fleets at once, with an edge that fills up, batteries that drain and late news."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from policy.batch import Batch, Index, Reals
from policy.calibration import BOUNDS, SMOOTHING
from policy.features import Situation
from policy.reward import DROP_PENALTY
from policy.simulation import hardware, traces
from policy.simulation.hardware import Hardware
from policy.simulation.scenario import Scenario
from policy.simulation.traces import Traces
from policy.table import Array, Mask

Source = Callable[[Scenario, int, np.random.Generator], Traces]
"""Gives what happens to so many fleets from outside; ``traces.draw`` unless a site's records are replayed."""
UTILISATION_NOISE = 0.02
TO_SPARE = 1.15
QUEUE_S = 4.0
"""A worker's queue holds at most this much work: what is older has expired."""


@dataclass(frozen=True)
class Seen:
    """What a policy may know of F fleets when it decides."""

    now: Situation
    batch: Batch
    """What every plan would cost, as far as ``now`` tells."""


@dataclass(frozen=True)
class Outcome:
    """What a period brought, arrays [F, N]."""

    reward: Reals
    latency_ms: Reals
    latency_p95_ms: Reals
    energy_mj: Reals
    accuracy: Reals
    late: Reals
    dropped: Reals
    remote: Mask
    dead: Mask
    utilisation: Reals
    """[F]: of the edge; above 1 where it was asked for more than it has."""


class World:
    """F fleets that live through a scenario. What comes from outside is drawn at ``reset``, whatever is decided."""

    def __init__(self, scenario: Scenario, fleets: int, seed: int, recorded: Source | None = None) -> None:
        self.scenario = scenario
        self.fleets = fleets
        self._recorded = recorded
        self._rng = np.random.default_rng(seed)
        self.reset()

    def reset(self) -> None:
        """Begin anew with other sites, links and days."""
        scenario, rng = self.scenario, self._rng
        self.traces = (self._recorded or traces.draw)(scenario, self.fleets, rng)
        self.hardware: Hardware = hardware.draw(scenario, self.fleets, self.traces.fps.mean(axis=0), rng)
        shape = (self.fleets, scenario.devices)
        self._utilisation_noise = rng.normal(0, UTILISATION_NOISE, (scenario.periods, self.fleets))
        self.t = 0
        self.current = np.full(shape, -1, np.int64)
        self.edge_backlog_ms = np.zeros(self.fleets, np.float32)
        self.link_backlog_ms = np.zeros(shape, np.float32)
        self.late = np.zeros(shape, np.float32)
        self.utilisation = np.zeros(self.fleets, np.float32)
        self.expected = np.zeros(self.fleets, np.float32)
        self.calibration = np.ones(self.fleets, np.float32)
        self.capacity_mj = self._capacity()
        self.battery_mj = self.capacity_mj.copy()

    @property
    def over(self) -> bool:
        """Whether all periods have passed."""
        return self.t >= self.scenario.periods

    def _capacity(self) -> Array:
        """Return the charge [F, N] at first: between what the day takes on the cheapest plans, with something to spare,
        and on those that are best without regard to it."""
        shape = (self.fleets, self.scenario.devices)
        if self.scenario.battery is None:
            return np.full(shape, np.inf)
        mean = self.traces.fps.mean(axis=0)
        usual = np.exp(np.log(self.traces.uplink_bps).mean(axis=0))
        batch = self.hardware.costs(usual, self.traces.rtt_ms, mean, np.zeros(self.fleets), np.ones(self.fleets))
        idle = batch.rewards(np.zeros((1, 1, 1), np.float32), np.zeros((1, 1, 1), np.int64))
        best = batch.pick(batch.energy_mj, np.argmax(np.where(batch.allowed, idle, -np.inf), axis=-1))
        # Plans that must be given up half the time are no way to save.
        light = np.where(batch.allowed & batch.local, batch.energy_mj, np.inf).min(axis=-1) * TO_SPARE
        share = traces.log_uniform(self.scenario.battery, shape, self._rng)
        frames = mean * self.scenario.period_s * self.scenario.periods
        return np.asarray((light + share * np.maximum(best - light, 0)) * frames)

    # -- what is known, and what is true ---------------------------------------------------------------------------

    def seen(self) -> Seen:
        """Return what is known now: measured in the period before, or longer ago where news is late."""
        past = np.maximum(self.t - 1 - self.traces.delay[self.t], 0)
        fleet, device = np.indices((self.fleets, self.scenario.devices))
        # Before anything was measured, the first period's own link is known roughly.
        uplink = self.traces.uplink_bps[past, fleet, device] * self.traces.noise[past, fleet, device]
        fps = self.traces.fps[past, fleet, device]
        left_s = (self.scenario.periods - self.t) * self.scenario.period_s
        mains = np.isinf(self.capacity_mj)
        share = np.where(mains, 1.0, np.where(mains, 1.0, self.battery_mj) / np.where(mains, 1.0, self.capacity_mj))
        now = Situation(
            uplink,
            self.traces.delay[self.t].astype(np.float64),
            self.traces.rtt_ms,
            fps,
            self.late,
            share,
            self.battery_mj,
            np.full(share.shape, left_s),
            self.current,
            self.utilisation,
            self.expected,
            self.edge_backlog_ms,
            self.calibration,
        )
        return Seen(now, self.hardware.costs(uplink, self.traces.rtt_ms, fps, self.edge_backlog_ms, self.calibration))

    def truth(self) -> Batch:
        """Return what every plan really costs in this period, before anything is decided."""
        now = self.hardware.costs(
            self.traces.uplink_bps[self.t],
            self.traces.rtt_ms,
            self.traces.fps[self.t],
            self.edge_backlog_ms,
            self.hardware.edge_truth,
        )
        # What still waits to be sent delays the frames of remote plans.
        waits = self.link_backlog_ms[..., None] * ~now.local
        now.own_ms[...] += waits
        now.own_p95_ms[...] += waits
        return now

    # -- a period --------------------------------------------------------------------------------------------------

    def step(self, assignment: Index, truth: Batch | None = None) -> Outcome:
        """Let a period pass under an assignment [F, N]; ``truth`` saves working it out again."""
        now = self.truth() if truth is None else truth
        wait, index = now.delay(now.total_load(assignment))
        tail = np.take_along_axis(now.pick(now.tail_ms, assignment), index[:, None, None], axis=-1)[..., 0]
        seen = now.felt(assignment, wait[:, None], tail)
        dead = self.battery_mj <= 0
        remote = ~now.pick(now.local, assignment)
        outcome = Outcome(
            np.where(dead, -np.float32(DROP_PENALTY), seen.reward),
            seen.latency_ms,
            seen.latency_p95_ms,
            np.where(dead, 0, seen.energy_mj),
            np.where(dead, 0, now.pick(self.hardware.accuracy, assignment)),
            np.where(dead, 0, seen.late),
            np.where(dead, 1, seen.dropped),
            remote & ~dead,
            dead,
            self._busy(now, assignment, index),
        )
        self._carry_on(now, assignment, outcome)
        return outcome

    def _busy(self, batch: Batch, assignment: Index, index: Index) -> Reals:
        load = batch.total_load(assignment)
        busy = np.take_along_axis(load, 1 + index[:, None], axis=1)[:, 0]
        return np.asarray(busy / (1000 * np.maximum(batch.interpreters, 1)))

    def _carry_on(self, now: Batch, assignment: Index, outcome: Outcome) -> None:
        """Carry backlogs, charge, measurements and calibration into the next period."""
        period_ms = self.scenario.period_s * 1000
        # Work beyond capacity waits; what waits longer than frames may take expires, on the way and at the edge.
        limit = self.hardware.deadline_ms.max(axis=1)
        grown = self.edge_backlog_ms + (outcome.utilisation - 1) * min(period_ms, 1000.0 * QUEUE_S)
        self.edge_backlog_ms = np.clip(grown, 0, limit).astype(np.float32)
        sent = now.pick(now.link_utilisation, assignment)
        self.link_backlog_ms = np.clip(
            self.link_backlog_ms + (sent - 1) * period_ms, 0, self.hardware.deadline_ms
        ).astype(np.float32)
        self.late = outcome.late
        model = self.hardware.costs(
            self.traces.uplink_bps[self.t], self.traces.rtt_ms, self.traces.fps[self.t],
            np.zeros(self.fleets), self.calibration,
        )  # fmt: skip
        _, index = model.delay(model.total_load(assignment))
        self.expected = self._busy(model, assignment, index)
        noise = self._utilisation_noise[self.t]
        self.utilisation = np.clip(outcome.utilisation * (1 + noise), 0, 1).astype(np.float32)
        if self.scenario.calibrated:
            # The workers report busy time per frame they served, so that overload does not hide it.
            ratio = np.clip(self.hardware.edge_truth * (1 + noise), *BOUNDS)
            served = self.expected > 0.02
            self.calibration = np.where(
                served, self.calibration + SMOOTHING * (ratio - self.calibration), self.calibration
            ).astype(np.float32)
        spent = outcome.energy_mj * self.traces.fps[self.t] * self.scenario.period_s
        self.battery_mj = np.where(np.isinf(self.battery_mj), np.inf, np.maximum(self.battery_mj - spent, 0))
        self.current = assignment.copy()
        self.t += 1
