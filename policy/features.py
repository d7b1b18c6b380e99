"""What the learned policy sees: the state of each device with its site, and what each of its plans would bring."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policy.batch import Batch, Index, Reals
from policy.coordination import Priced, Turn, affordable, spendable
from policy.memory import Memory
from policy.table import Array

FACTORS = (1.0, 0.5, 2.0, 4.0)
"""How much longer tails might take than modelled."""
SLOWER_LINKS = (2.0, 4.0)
"""By how much the uplink might be slower than known."""
PLAN_FEATURES = (
    "own", "own, link half", "own, link quarter", "own, edge half", "own, edge double", "own, edge fourfold",
    "others", "others, edge half", "others, edge double", "others, edge fourfold",
    "battery price", "energy", "edge share", "link share", "current", "pricing's", "local",
)  # fmt: skip
STATE = (
    "uplink", "uplink trend", "uplink unrest", "uplink worst", "age", "rtt", "fps", "fps trend", "deadline",
    "accuracy weight", "latency weight", "energy weight", "late", "on battery", "charge", "budget", "horizon",
    "battery price", "utilisation", "expected", "edge ratio", "ratio now", "backlog", "backlog trend", "devices",
    "edge price", "planned utilisation", "calibration", "remote",
)  # fmt: skip
MOST_OTHERS = 3.0
"""Bound of what a plan can do to the others, so that large sites look like those of training."""


@dataclass(frozen=True)
class Situation:
    """What is known of S sites with N devices beside what plans cost, arrays [S, N] unless said otherwise."""

    uplink_bps: Array
    age_periods: Array
    """Age of what is known of the device, in decision periods."""
    rtt_ms: Array
    fps: Array
    late_share: Array
    battery_share: Array
    """1 on mains."""
    battery_mj: Array
    """Energy left; infinite on mains."""
    horizon_s: Array
    """Time the charge must last."""
    current: Index
    """−1: none."""
    utilisation: Array
    """[S]: measured; that of the edge in the period before."""
    expected: Array
    """[S]: what the calibrated model expected of the same period."""
    backlog_ms: Array
    """[S]"""
    calibration: Array
    """[S]"""

    def budget_mj_per_s(self) -> Array:
        """Return the power [S, N] at which each battery lasts; infinite on mains."""
        return np.asarray(self.battery_mj / np.maximum(self.horizon_s, 1.0))

    def remember(self, memory: Memory) -> None:
        """Take this into a memory."""
        memory.update(self.uplink_bps, self.fps, self.late_share, self.utilisation, self.expected, self.backlog_ms)


def afford(now: Situation, memory: Memory, batch: Batch) -> tuple[Batch, Reals]:
    """Return the batch of what batteries afford now, and the power [S, N] that they do (infinite on mains)."""
    power = spendable(now.budget_mj_per_s(), now.fps, memory.rate)
    return affordable(batch, power), power


def states(now: Situation, memory: Memory, batch: Batch, priced: Priced) -> Reals:
    """Return the state [S, N, len(STATE)] of every device with its site, every entry of order 1."""
    sites, devices, _ = batch.shape
    log_uplink = np.log(now.uplink_bps)
    mains = np.isinf(now.battery_mj)
    use = np.maximum(batch.heavy_mj * np.maximum(memory.rate, 1e-3), 1e-9)
    budget = np.where(mains, 1.0, now.budget_mj_per_s() / use)
    load = batch.total_load(priced.assignment)
    planned = load[:, 1:].min(axis=1) / (1000 * np.maximum(batch.interpreters, 1))
    ratio = np.log(np.clip(now.utilisation, 1e-3, None) / np.clip(now.expected, 0.05, None))
    remote = (~batch.pick(batch.local, priced.assignment)).mean(axis=1)
    own = [
        (log_uplink - np.log(3e6)) / 2,
        log_uplink - memory.usual,
        memory.unrest * 3,
        (memory.worst - memory.usual) / 2,
        np.minimum(now.age_periods, 20) / 5,
        np.log10(np.maximum(now.rtt_ms, 1)) - 1,
        np.log2(np.maximum(now.fps, 0.05)) / 2,
        np.log2(np.maximum(now.fps, 0.05) / np.maximum(memory.rate, 0.05)),
        np.log2(batch.deadline_ms / 300) / 2,
        *(batch.weights[..., k] * 2 for k in range(3)),
        memory.late * 3,
        np.where(mains, 0.0, 1.0),
        np.where(mains, 0.0, now.battery_share),
        np.where(mains, 0.0, np.log2(np.clip(budget, 1e-3, 1e3)) / 3),
        np.where(mains, 0.0, np.minimum(now.horizon_s / 43_200, 3.0)),
        np.log1p(priced.battery_price * batch.heavy_mj * 5),
    ]
    site = [
        now.utilisation,
        np.minimum(now.expected, 2.0),
        memory.edge_ratio,
        np.clip(ratio, -2, 2),
        np.log1p(now.backlog_ms / 50) / 2,
        np.clip((now.backlog_ms - memory.backlog_ms) / 200, -2, 2),
        np.full(sites, np.log2(devices / 8)) - np.log2(np.maximum(batch.interpreters, 1)),
        np.log1p(priced.price * 5),
        np.minimum(planned, 2.0),
        np.log2(np.clip(now.calibration, 0.1, 10)),
        remote,
    ]
    columns = own + [np.broadcast_to(value[:, None], (sites, devices)) for value in site]
    return np.clip(np.stack(columns, axis=-1), -5, 5).astype(np.float32)


def plan_features(turn: Turn, current: Index, priced: Priced, interpreters: Reals) -> Reals:
    """Return the features [S, C, P, len(PLAN_FEATURES)] of the plans of the devices of a turn."""
    batch, shape = turn.batch, turn.own[0].shape
    site = np.arange(shape[0])[:, None]
    plans = np.arange(shape[2])[None, None]
    slower = [batch.rewards(turn.wait_ms, turn.tail_index, link_factor=factor) for factor in SLOWER_LINKS]
    share = batch.load[..., 1:].min(axis=-1) / (1000 * np.maximum(interpreters, 1))[:, None, None]
    mu = priced.battery_price[site, turn.chosen][..., None]
    columns = [
        turn.own[0],
        *slower,
        *turn.own[1:],
        *(np.clip(others, -MOST_OTHERS, MOST_OTHERS) for others in turn.others),
        -np.minimum(mu * batch.energy_mj, 4),
        -np.minimum(batch.energy_mj / batch.heavy_mj[..., None], 2),
        -np.minimum(share * priced.assignment.shape[1], 4),
        -np.minimum(batch.link_utilisation, 2),
        plans == current[site, turn.chosen][..., None],
        plans == priced.assignment[site, turn.chosen][..., None],
        batch.local,
    ]
    return np.stack([np.asarray(column, np.float32) for column in columns], axis=-1)
