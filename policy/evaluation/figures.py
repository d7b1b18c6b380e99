"""From an episode to the figures of one policy in one scenario."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policy.batch import Reals
from policy.evaluation.episode import Episode
from policy.evaluation.results import Change, Difference, PlanShare, PolicyResult, Regret, Shares
from policy.evaluation.statistics import mean_interval, scores, weighted_quantiles
from policy.intervals import Interval
from policy.simulation.tables import PlanSet
from policy.table import Array

TOP_PLANS = 8
POINTS = 60
DIGITS = 6


@dataclass(frozen=True)
class Yardsticks:
    """Mean rewards [seeds] that scores are measured by, and the oracle's reward per period [T]."""

    random: Array
    oracle: Array
    observed: Array
    oracle_by_period: Array


def by_seed(episode: Episode, seeds: int) -> Array:
    """Return the mean reward [seeds] of an episode whose fleets are in order of seed."""
    per_fleet = episode.reward.mean(axis=(0, 2), dtype=np.float64)
    return np.asarray(per_fleet.reshape(seeds, -1).mean(axis=1))


def by_period(episode: Episode) -> Array:
    """Return the mean reward [T]."""
    return np.asarray(episode.reward.mean(axis=(1, 2), dtype=np.float64))


def summarise(episode: Episode, seeds: int, marks: Yardsticks, sets: Sequence[PlanSet]) -> PolicyResult:
    """Return the figures of one policy; ``sets`` are the plans of each fleet."""
    rewards = by_seed(episode, seeds)
    reward = mean_interval(rewards)
    score = mean_interval(scores(rewards, marks.random, marks.oracle))
    observed = mean_interval(scores(rewards, marks.random, marks.observed))
    taken: Reals = np.where(episode.dead, np.float32(0), episode.fps)
    answered: Reals = taken * (1 - episode.dropped)
    median, p95 = weighted_quantiles(episode.latency_ms, answered, (0.5, 0.95))
    periods, fleets, _ = episode.plan.shape
    return PolicyResult(
        score=_figure(score.estimate),
        score_ci95=_ends(score),
        score_observed=_figure(observed.estimate),
        score_observed_ci95=_ends(observed),
        reward=_figure(reward.estimate),
        reward_ci95=_ends(reward),
        reward_by_seed=[_figure(value) for value in rewards],
        latency_ms_p50=_figure(median),
        latency_ms_p95=_figure(p95),
        energy_mj=_figure(_mean(episode.energy_mj, taken)),
        accuracy=_figure(_mean(episode.accuracy, answered)),
        shares=_shares(episode),
        plan_mix=_plan_mix(episode, sets),
        switches=_figure(episode.switches),
        dead=_figure(float(episode.dead.mean())),
        regret=_regret(marks.oracle_by_period - by_period(episode)),
        decide_ms=_figure(1000 * episode.decide_s / (periods * fleets)),
    )


def difference(one: Episode, other: Episode, seeds: int, marks: Yardsticks) -> Difference:
    """Return one policy less another, seed by seed."""
    a, b = by_seed(one, seeds), by_seed(other, seeds)
    reward = mean_interval(a - b)
    score = mean_interval(scores(a, marks.random, marks.oracle) - scores(b, marks.random, marks.oracle))
    return Difference(
        reward=_figure(reward.estimate),
        ci95=_ends(reward),
        score=_figure(score.estimate),
        score_ci95=_ends(score),
    )


def change(result: PolicyResult, local_heavy: PolicyResult) -> Change:
    """Return what a policy changes against running the most accurate version on the device; latencies are medians."""

    def percent(now: float, before: float) -> float:
        return _figure(100 * (now / before - 1)) if before > 0 else 0.0

    return Change(
        latency_percent=percent(result["latency_ms_p50"], local_heavy["latency_ms_p50"]),
        energy_percent=percent(result["energy_mj"], local_heavy["energy_mj"]),
        accuracy_points=_figure(100 * (result["accuracy"] - local_heavy["accuracy"])),
    )


def _figure(value: float) -> float:
    return round(float(value), DIGITS)


def _ends(interval: Interval) -> list[float]:
    return [_figure(interval.low), _figure(interval.high)]


def _mean(values: Reals, weights: Reals) -> float:
    total = float(weights.sum(dtype=np.float64))
    return float((values * weights).sum(dtype=np.float64)) / total if total > 0 else 0.0


def _shares(episode: Episode) -> Shares:
    begun = 1 - episode.dropped
    sent = episode.remote * begun

    def share(of: Reals) -> float:
        return _figure(_mean(of, episode.fps))

    return Shares(
        edge=share(sent * (1 - episode.late)),
        device=share(begun - sent),
        fallback=share(sent * episode.late),
        dropped=share(episode.dropped),
    )


def _plan_mix(episode: Episode, sets: Sequence[PlanSet]) -> list[PlanShare]:
    counts: Counter[str] = Counter()
    for f, plans in enumerate(sets):
        used, times = np.unique(episode.plan[:, f], return_counts=True)
        for plan, number in zip(used, times, strict=True):
            counts[plans.names[plan]] += int(number)
    total = counts.total()
    top = counts.most_common(TOP_PLANS)
    mix = [PlanShare(plan=name, share=_figure(number / total)) for name, number in top]
    rest = total - sum(number for _, number in top)
    return [*mix, PlanShare(plan="others", share=_figure(rest / total))] if rest else mix


def _regret(lost: Array) -> Regret:
    cumulated = np.cumsum(lost)
    at = np.unique(np.linspace(0, len(lost) - 1, min(POINTS, len(lost))).round().astype(int))
    return Regret(period=[int(t) + 1 for t in at], cumulated=[_figure(cumulated[t]) for t in at])
