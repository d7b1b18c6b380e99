"""What adopting the current policy brings in money against each other arm, with the same intervals. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from policy.intervals import Interval
from policy.table import Array, Index
from tools.pilot.estimates import Figures, redrawn, shared_rounds, widened
from tools.pilot.kpi import MJ_PER_KWH, KpiSheet
from wire.messages import Outcome


@dataclass(frozen=True, slots=True)
class Amount:
    """An amount of money, or of months, and where it lies with 95 %; ``None``: too few rounds to say."""

    estimate: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Return:
    """Adopting the current policy where an arm decides today."""

    arm: str
    rounds: int
    saved_per_million: Mapping[str, float]
    """Currency per million frames by what is saved: latency, energy, wrong answers, lost frames, data."""
    saving_per_million: Amount
    net_per_month: Amount
    """For the whole site, monthly costs of adoption paid."""
    payback_months: Amount | None
    """Until what adoption costs once is earned; ``None``: it is not, by the estimate. No ``high``: perhaps never."""


def accuracy_key(sheet: KpiSheet, figures: Figures) -> str | None:
    """Return the metric that tells right answers: the sheet's, else the other one, else none."""
    wanted = ["accuracy", "accuracy_catalog"]
    if sheet.accuracy == "catalog":
        wanted.reverse()
    whole = [place for place, stretch in enumerate(figures.stretches) if stretch.is_whole]
    return next((key for key in wanted if whole and (figures.count[key][whole] > 0).all()), None)


def frames_per_second(figures: Figures, devices: int) -> float:
    """Return the frames that one device captured per second of the measured stretches."""
    seconds = sum(max(0.0, stretch.until_s - stretch.from_s) for stretch in figures.stretches)
    return float(figures.frames.sum()) / (seconds * devices) if seconds > 0 and devices else 0.0


def returns(
    sheet: KpiSheet, figures: Figures, arm: str, frames_per_month: float, rng: np.random.Generator
) -> Return | None:
    """Weigh the current policy against an arm by the sheet; ``None`` where no round holds both."""
    key = accuracy_key(sheet, figures)
    ours, theirs = shared_rounds(figures, arm, ["sent_bytes", *([key] if key else [])])
    rounds = len(ours)
    if not rounds:
        return None
    saved = _saved(sheet, figures, key, ours[None], theirs[None])
    saving = sum(float(part[0]) for part in saved.values())
    picks = redrawn(rounds, rng)
    drawn = np.sum(list(_saved(sheet, figures, key, ours[picks], theirs[picks]).values()), axis=0)
    interval = widened(saving, drawn, rounds)
    net = _scaled(saving, interval, frames_per_month, -sheet.adoption.monthly)
    return Return(
        arm,
        rounds,
        {name: 1e6 * float(part[0]) for name, part in saved.items()},
        _scaled(saving, interval, 1e6, 0.0),
        net,
        payback(sheet.adoption.once, net),
    )


def payback(once: float, net: Amount) -> Amount | None:
    """Return the months until ``once`` is earned by ``net`` per month; ``None`` where that never happens."""
    if net.estimate <= 0:
        return None
    if net.low is None or net.high is None:
        return Amount(once / net.estimate)
    return Amount(once / net.estimate, once / net.high, once / net.low if net.low > 0 else None)


def _scaled(estimate: float, interval: Interval | None, by: float, plus: float) -> Amount:
    if interval is None:
        return Amount(by * estimate + plus)
    return Amount(by * estimate + plus, by * interval.low + plus, by * interval.high + plus)


def _saved(sheet: KpiSheet, figures: Figures, key: str | None, ours: Index, theirs: Index) -> dict[str, Array]:
    """Return currency per frame [draws] that the arm costs more than the current policy; blocks are [draws, rounds]."""
    mine, others = _costs(sheet, figures, key, ours), _costs(sheet, figures, key, theirs)
    return {name: others[name] - mine[name] for name in mine}


def _costs(sheet: KpiSheet, figures: Figures, key: str | None, blocks: Index) -> dict[str, Array]:
    worth, total = sheet.worth, figures.total

    def summed(values: Array | Index) -> Array:
        return np.asarray(values[blocks].sum(axis=-1), np.float64)

    frames = summed(figures.frames)
    lost = summed(figures.outcomes[Outcome.DROPPED])
    energy_mj = summed(total["energy_measured_mj"]) + summed(total["energy_modelled_mj"])
    wrong = np.zeros(len(frames))
    if key is not None:
        wrong = (frames - lost) * (1 - summed(total[key]) / summed(figures.count[key]))
    return {
        "latency": worth.second_of_latency / 1000 * summed(total["latency_ms"]) / frames,
        "energy": worth.kilowatt_hour / MJ_PER_KWH * energy_mj / frames,
        "wrong answers": worth.wrong_answer * wrong / frames,
        "lost frames": worth.no_answer * lost / frames,
        "data": worth.gigabyte / 1e9 * summed(total["sent_bytes"]) / frames,
    }
