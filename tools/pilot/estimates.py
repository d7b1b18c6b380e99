"""What the frames of the blocks say: figures per block and arm, and how arms differ, with intervals. Pure.

Frames of one block resemble each other, so they are no independent samples: whole rounds are redrawn (a round holds one
block of each arm, so the difference is paired and what drifts from round to round cancels). With few rounds a
percentile bootstrap is too narrow; its deviations are therefore widened to those of Student's t,
by √(R/(R−1))·t(R−1)/z (T. Hesterberg, *What Teachers Should Know About the Bootstrap*, 2015, on narrowness bias).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from policy.intervals import Interval, t_quantile
from policy.table import Array, Index, Mask
from tools.pilot.frames import OUTCOMES, Frames
from tools.pilot.schedule import CURRENT, Stretch
from wire.messages import Outcome
from wire.plan import OUTPUT, Plan

CONFIDENCE = 0.95
LEAST_ROUNDS = 4
"""Fewer give no interval worth the name."""
DRAWS = 4000


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a block: a sum over frames by the number of frames it is over."""

    key: str
    title: str
    unit: str


METRICS = (
    Metric("latency_ms", "latency, mean", "ms"),
    Metric("latency_p50_ms", "latency, p50 of a block", "ms"),
    Metric("latency_p95_ms", "latency, p95 of a block", "ms"),
    Metric("energy_measured_mj", "energy per frame (measured)", "mJ"),
    Metric("energy_modelled_mj", "energy per frame (modelled)", "mJ"),
    Metric("accuracy", "right answers, of labelled frames", "%"),
    Metric("accuracy_catalog", "right answers, by the catalog", "%"),
    Metric("fallback_share", "fallbacks", "%"),
    Metric("dropped_share", "dropped", "%"),
    Metric("late_share", "past the deadline, of answered", "%"),
    Metric("sent_bytes", "bytes sent per frame", "B"),
)
"""Latency is over answered frames, capture to answer; energy is the device's alone."""


@dataclass(frozen=True)
class Figures:
    """Sums over the frames of each block by metric; every array is [blocks], in the order of the stretches."""

    stretches: tuple[Stretch, ...]
    frames: Index
    outcomes: Mapping[str, Index]
    total: Mapping[str, Array]
    count: Mapping[str, Array]

    def of(self, arm: str) -> Index:
        """Return the places of the whole blocks of an arm, by round."""
        return np.array([i for i, s in enumerate(self.stretches) if s.is_whole and s.block.arm == arm], np.int64)

    def mean(self, key: str, blocks: Index) -> float | None:
        """Return a metric over some blocks; ``None`` where it is over no frame."""
        count = float(self.count[key][blocks].sum())
        return float(self.total[key][blocks].sum()) / count if count > 0 else None


@dataclass(frozen=True, slots=True)
class Compared:
    """The current policy beside another arm in one metric; differences are current − other."""

    arm: str
    metric: str
    rounds: int
    """Of which both blocks are whole and have frames of that metric."""
    current: float
    other: float
    difference: float
    ratio: float | None
    """Current over other; ``None``: the other is 0."""
    interval: Interval | None
    """Of the difference, 95 %; ``None``: too few rounds."""
    ratio_interval: Interval | None

    @property
    def verdict(self) -> str:
        """What may be said of it."""
        if self.interval is None:
            return "too few rounds to say"
        if self.interval.low <= 0 <= self.interval.high:
            return "no difference shown"
        return "lower" if self.interval.high < 0 else "higher"


def figures(
    frames: Frames,
    stretches: Sequence[Stretch],
    deadline_ms: Mapping[str, float],
    accuracy_of: Mapping[Plan, float],
) -> Figures:
    """Sum up each block. ``deadline_ms`` by device; ``accuracy_of``: the catalog's, of plans it has measured."""
    numbers = {stretch.block.number: i for i, stretch in enumerate(stretches)}
    block = np.array([numbers.get(int(place), -1) for place in frames.place], np.int64)
    inside = block >= 0
    blocks, column = len(stretches), {name: values[inside] for name, values in frames.columns.items()}
    block = block[inside]

    def add(values: Array, where: Mask) -> tuple[Array, Array]:
        weight = where.astype(np.float64)
        return _per_block(block, values * weight, blocks), _per_block(block, weight, blocks)

    outcome = column["outcome"].astype(np.int64)
    is_now = {told: outcome == OUTCOMES.index(told) for told in Outcome}
    answered = ~is_now[Outcome.DROPPED]
    everyone = np.ones(len(block), bool)
    plan = column["plan"].astype(np.int64)
    catalog = _catalogued(frames.plans, accuracy_of, plan, is_now[Outcome.FALLBACK])
    deadline = np.array([deadline_ms.get(name, math.inf) for name in frames.devices])[column["device"].astype(np.int64)]
    metered, latency = column["metered"] > 0, column["latency_ms"]
    sums = {
        "latency_ms": add(latency, answered),
        "latency_p50_ms": _quantile(latency, answered, block, blocks, 0.50),
        "latency_p95_ms": _quantile(latency, answered, block, blocks, 0.95),
        "energy_measured_mj": add(column["energy_mj"], metered),
        "energy_modelled_mj": add(column["energy_mj"], ~metered),
        "accuracy": add(column["right"], answered & (column["labelled"] > 0)),
        "accuracy_catalog": add(np.nan_to_num(catalog), answered & np.isfinite(catalog)),
        "fallback_share": add(is_now[Outcome.FALLBACK] * 1.0, everyone),
        "dropped_share": add(is_now[Outcome.DROPPED] * 1.0, everyone),
        "late_share": add((latency > deadline) * 1.0, answered & np.isfinite(deadline)),
        "sent_bytes": add(column["sent_bytes"], everyone),
    }
    return Figures(
        tuple(stretches),
        np.bincount(block, minlength=blocks),
        {str(told): np.bincount(block[which], minlength=blocks) for told, which in is_now.items()},
        {key: total for key, (total, _) in sums.items()},
        {key: count for key, (_, count) in sums.items()},
    )


def _per_block(block: Index, values: Array, blocks: int) -> Array:
    return np.asarray(np.bincount(block, values, blocks), np.float64)


def _catalogued(plans: Sequence[Plan], known: Mapping[Plan, float], plan: Index, fell_back: Mask) -> Array:
    """Return the catalog's accuracy of what answered each frame; a fallback is the same version, whole."""
    nan = math.nan
    own = np.array([known.get(one, nan) for one in plans] or [nan])
    whole = {one.version: accuracy for one, accuracy in known.items() if one.cut == OUTPUT}
    twin = np.array([whole.get(one.version, nan) for one in plans] or [nan])
    return np.where(fell_back, twin[plan], own[plan])


def _quantile(values: Array, where: Mask, block: Index, blocks: int, share: float) -> tuple[Array, Array]:
    """Return the nearest-rank quantile of each block as a sum over one, so that a mean of it is one over blocks."""
    total, count = np.zeros(blocks), np.zeros(blocks)
    for i in range(blocks):
        mine = values[where & (block == i)]
        if len(mine):
            total[i], count[i] = np.quantile(mine, share, method="inverted_cdf"), 1.0
    return total, count


def redrawn(rounds: int, rng: np.random.Generator) -> Index:
    """Return [draws, rounds]: rounds drawn with replacement."""
    return rng.integers(rounds, size=(DRAWS, rounds))


def widened(estimate: float, drawn: Array, rounds: int, confidence: float = CONFIDENCE) -> Interval | None:
    """Return the interval of an estimate by its bootstrap draws; ``None`` where rounds are too few."""
    if rounds < LEAST_ROUNDS:
        return None
    edge = (1 + confidence) / 2
    factor = math.sqrt(rounds / (rounds - 1)) * t_quantile(edge, rounds - 1) / NormalDist().inv_cdf(edge)
    low, high = np.quantile(drawn - estimate, [1 - edge, edge])
    return Interval(estimate, estimate + factor * float(low), estimate + factor * float(high))


def shared_rounds(figures_: Figures, arm: str, keys: Sequence[str]) -> tuple[Index, Index]:
    """Return the blocks of the current policy and of an arm, paired by round, that have frames of all these metrics."""
    by_round = [{figures_.stretches[i].block.round: int(i) for i in figures_.of(name)} for name in (CURRENT, arm)]
    pairs = [
        (by_round[0][number], by_round[1][number])
        for number in sorted(by_round[0].keys() & by_round[1].keys())
        if all(figures_.count[key][[by_round[0][number], by_round[1][number]]].min() > 0 for key in keys)
    ]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def compare(figures_: Figures, arm: str, key: str, rng: np.random.Generator) -> Compared | None:
    """Hold the current policy against another arm in one metric; ``None`` where no round has it for both."""
    ours, theirs = shared_rounds(figures_, arm, [key])
    rounds = len(ours)
    if not rounds:
        return None
    current, other = figures_.mean(key, ours), figures_.mean(key, theirs)
    assert current is not None and other is not None, "every round has frames of it"
    picks = redrawn(rounds, rng)
    total, count = figures_.total[key], figures_.count[key]
    means = [total[one][picks].sum(axis=1) / count[one][picks].sum(axis=1) for one in (ours, theirs)]
    interval = widened(current - other, means[0] - means[1], rounds)
    ratio = ratio_interval = None
    if current > 0 and other > 0:
        ratio = current / other
        if means[0].min() > 0 and means[1].min() > 0:
            log = widened(math.log(ratio), np.log(means[0] / means[1]), rounds)
            ratio_interval = log and Interval(ratio, math.exp(log.low), math.exp(log.high))
    return Compared(arm, key, rounds, current, other, current - other, ratio, interval, ratio_interval)
