"""What frames that really ran were worth: outcomes of a device and period on the scale of the modelled reward."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policy.costs import NONE
from policy.reward import reward
from policy.table import Array, DeviceRow, Index, Mask, PlanTable


@dataclass(frozen=True)
class EndedFrames:
    """Frames with their outcomes; every array is [frames]."""

    plan: Index
    """The plan a frame was captured under, as its place in the table; ``NONE`` where the catalog lacks it."""
    fallback: Mask
    dropped: Mask
    latency_ms: Array
    """Capture to answer; unused for dropped frames."""
    energy_mj: Array
    """Of the device for the frame, idle power included (see ``with_idle``)."""
    right: Array
    """1 or 0 where the true label is known, else NaN."""


@dataclass(frozen=True)
class Yardsticks:
    """By what the frames of each group are judged; a group is one device in one period."""

    weights: Array
    """[groups, 3]: accuracy, latency, energy."""
    deadline_ms: Array
    heavy_mj: Array
    """Energy of the heaviest local plan; NaN where no profile tells it, and then there is no reward."""


@dataclass(frozen=True)
class Measured:
    """One figure per group, NaN where the group has no frames (or no answered ones)."""

    frames: Index
    reward: Array
    accuracy: Array
    """Mean of the catalog's accuracies of what answered."""
    right: Array
    """Share of right answers among frames with known label."""
    latency_ms: Array
    energy_mj: Array
    late: Array
    """Share of frames that fell back or were answered past the deadline."""
    dropped: Array


def heavy_mj(table: PlanTable, row: DeviceRow) -> float:
    """Return the energy of the heaviest local plan, uncalibrated, as the cost model has it; NaN where none is known."""
    energy = row.compute_mj + row.idle_power_mw * (row.head_ms + row.encode_ms) / 1000
    local = energy[row.known & table.local]
    return float(local.max()) if len(local) else float("nan")


def with_idle(energy_mj: Array, metered: Mask, idle_mw: Array, busy_ms: Array, sent_bytes: Array, bps: Array) -> Array:
    """Add idle power for the time a frame occupies the board, as the cost model does; meters have it in already.

    Time to send is counted where the rate of the uplink is known (else NaN).
    """
    sending_ms = np.nan_to_num(8000 * sent_bytes / np.where(bps > 0, bps, np.nan))
    return np.asarray(np.where(metered, energy_mj, energy_mj + idle_mw * (busy_ms + sending_ms) / 1000))


def measure(table: PlanTable, frames: EndedFrames, group: Index, yard: Yardsticks) -> Measured:
    """Return what the frames of each group [groups of ``yard``] were worth; ``group`` [frames] says whose they are.

    The formula is that of ``policy.reward`` over the group's means. Accuracy is the catalog's for the plan that
    answered (for a fallback the local plan of the same version): it was measured over far more frames than a period
    has, whose own share of right answers would drown every other term in noise and so stands beside it. A group of
    which no frame was answered earns nothing but the penalty.
    """
    groups = len(yard.deadline_ms)

    def total(values: Array) -> Array:
        return np.asarray(np.bincount(group, values, groups), np.float64)

    def share(part: Array, whole: Array) -> Array:
        return np.asarray(np.divide(part, whole, out=np.full(groups, np.nan), where=whole > 0))

    count = total(np.ones(len(group)))
    answered = ~frames.dropped
    done = total(answered * 1.0)
    late = answered & (frames.fallback | (frames.latency_ms > yard.deadline_ms[group]))
    twin = table.twin[frames.plan]
    by = np.where(frames.fallback & (twin >= 0), twin, frames.plan)
    by = np.where(frames.plan == NONE, NONE, by)
    term = np.where(by == NONE, 0.0, table.accuracy_term[by])
    catalogued = np.where(by == NONE, table.accuracy.min(), table.accuracy[by])
    labelled = answered & ~np.isnan(frames.right)

    def mean(values: Array) -> Array:
        return share(total(np.where(answered, values, 0.0)), done)

    latency, energy = mean(frames.latency_ms), mean(frames.energy_mj)
    late_share, dropped_share = share(total(late * 1.0), count), share(total(frames.dropped * 1.0), count)
    nothing = done == 0
    worth = reward(
        yard.weights,
        np.where(nothing, 0.0, mean(term)),
        np.where(nothing, yard.deadline_ms, latency),
        yard.deadline_ms,
        np.where(nothing, yard.heavy_mj, energy),
        yard.heavy_mj,
        late_share,
        dropped_share,
    )
    return Measured(
        frames=count.astype(np.int64),
        reward=np.where(count > 0, worth, np.nan),
        accuracy=mean(catalogued),
        right=share(total(np.where(labelled, frames.right, 0.0)), total(labelled * 1.0)),
        latency_ms=latency,
        energy_mj=energy,
        late=late_share,
        dropped=dropped_share,
    )
