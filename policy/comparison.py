"""How a policy in shadow compares with the acting one, by predictions, and how far predictions may be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policy.errors import PolicyError
from policy.intervals import Interval, bootstrap_ratio
from policy.site_periods import SitePeriods
from policy.site_record import Rows
from policy.table import Array, Index

BLOCK_MS = 60_000
"""Blocks of time are redrawn whole: neighbouring periods resemble each other."""
LEAST_BLOCKS = 8
"""Shorter records are cut into so many shorter blocks; with fewer there is no interval worth the name."""
CONFIDENCE = 0.95
COMMON_PAIRS = 10


@dataclass(frozen=True, slots=True)
class DeviceDifference:
    """One device: mean predicted reward of the shadow less that of the acting policy."""

    device: str
    difference: float
    periods: int
    differing: float
    """Share of decisions that differ."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The shadow policy beside the acting one; rewards are predictions of the cost model, for both."""

    acting: str
    shadow: str
    periods: int
    """Device periods with a prediction for both."""
    unpredicted: int
    """Device periods left out: the device has no profile."""
    hours: float
    """From the first to the last."""
    blocks: int
    """Of time, redrawn for the interval."""
    difference: Interval | None
    """Shadow − acting, mean per device period, 95 %; ``None``: too few blocks for an interval."""
    estimate: float
    acting_reward: float
    shadow_reward: float
    differing: float
    """Share of decisions that differ."""
    pairs: tuple[tuple[str, str, int, float], ...]
    """Commonest differing (acting plan, shadow plan, device periods, mean difference), most frequent first."""
    devices: tuple[DeviceDifference, ...]
    """Rising: where the shadow would lose most comes first."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Predicted against measured reward of the acting policy, over blocks of one device and one minute."""

    blocks: int
    predicted: float
    measured: float
    bias: float
    """Mean of predicted − measured."""
    typical_error: float
    """Mean of its size without sign, per block."""
    correlation: float | None
    """Over blocks; ``None`` where one of the two never varies."""


def compare(rows: Rows, rng: np.random.Generator) -> list[Comparison]:
    """Compare each pair of policies in rows of table ``shadow``, most rows first; raises ``PolicyError`` if none."""
    acting, shadow = rows.texts["acting"], rows.texts["shadow"]
    if not len(rows):
        raise PolicyError("no shadow decisions of that time: let a policy run in shadow, or take a longer --since")
    pair = acting.code * len(shadow.words) + shadow.code
    numbers, counts = np.unique(pair, return_counts=True)
    out = []
    for number in numbers[np.argsort(-counts, kind="stable")]:
        mine = np.flatnonzero(pair == number)
        who, whom = divmod(int(number), len(shadow.words))
        out.append(_one(rows, mine, acting.words[who], shadow.words[whom], rng))
    return out


def _one(rows: Rows, every: Index, acting: str, shadow: str, rng: np.random.Generator) -> Comparison:
    ours, theirs = rows.numbers["acting_reward"][every], rows.numbers["shadow_reward"][every]
    known = np.isfinite(ours) & np.isfinite(theirs)
    mine = every[known]
    if not len(mine):
        raise PolicyError(f"no device under {acting} and {shadow} has a predicted reward: profile its device class")
    gain = (theirs - ours)[known]
    at_ms = rows.at_ms[mine]
    block_total, block_count = _blocks(at_ms, gain)
    interval = bootstrap_ratio(block_total, block_count, CONFIDENCE, rng) if len(block_total) >= LEAST_BLOCKS else None
    words = list(dict.fromkeys((*rows.texts["acting_plan"].words, *rows.texts["shadow_plan"].words)))
    index = {word: i for i, word in enumerate(words)}
    chosen, would = rows.places("acting_plan", index)[mine], rows.places("shadow_plan", index)[mine]
    differs = chosen != would
    numbers, where = np.unique(chosen[differs] * len(words) + would[differs], return_inverse=True)
    counts, gains = np.bincount(where, minlength=len(numbers)), np.bincount(where, gain[differs], len(numbers))
    pairs = tuple(
        (words[numbers[i] // len(words)], words[numbers[i] % len(words)], int(counts[i]), float(gains[i] / counts[i]))
        for i in np.argsort(-counts, kind="stable")[:COMMON_PAIRS]
    )
    devices = [
        DeviceDifference(name, float(gain[of].mean()), int(of.sum()), float(differs[of].mean()))
        for code, name in enumerate(rows.texts["device"].words)
        if (of := rows.texts["device"].code[mine] == code).any()
    ]
    return Comparison(
        acting, shadow, len(mine), len(every) - len(mine), float(at_ms[-1] - at_ms[0]) / 3.6e6, len(block_total),
        interval, float(gain.mean()), float(ours[known].mean()), float(theirs[known].mean()), float(differs.mean()),
        pairs, tuple(sorted(devices, key=lambda one: (one.difference, one.device))),
    )  # fmt: skip


def _blocks(at_ms: Index, gain: Array) -> tuple[Array, Array]:
    """Return sum and count per block of time that has any."""
    span = int(at_ms[-1] - at_ms[0]) + 1
    length = max(min(BLOCK_MS, span // LEAST_BLOCKS), 1)
    block = (at_ms - at_ms[0]) // length
    _, place = np.unique(block, return_inverse=True)
    return np.asarray(np.bincount(place, gain), np.float64), np.asarray(np.bincount(place), np.float64)


def trust(rows: Rows, measured: SitePeriods) -> Trust | None:
    """Hold the acting policy's predictions against measured rewards of the same device and period.

    ``measured`` should have periods of a minute; ``None`` where nothing was measured under the same sky.
    """
    index = {name: i for i, name in enumerate(measured.devices)}
    device = rows.places("device", index)
    period = (rows.at_ms - measured.start_ms) // measured.period_ms
    reward = rows.numbers["acting_reward"]
    ok = (device >= 0) & (period >= 0) & (period < measured.periods) & np.isfinite(reward)
    cell = device[ok] * measured.periods + period[ok]
    size = len(measured.devices) * measured.periods
    count = np.bincount(cell, minlength=size)
    total = np.bincount(cell, reward[ok], size)
    real = measured.figures["reward"].ravel()
    both = (count > 0) & np.isfinite(real)
    if not both.any():
        return None
    predicted, real = total[both] / count[both], real[both]
    error = predicted - real
    varies = len(error) > 2 and predicted.std() > 1e-9 and real.std() > 1e-9
    correlation = float(np.corrcoef(predicted, real)[0, 1]) if varies else None
    return Trust(
        len(error), float(predicted.mean()), float(real.mean()), float(error.mean()), float(np.abs(error).mean()),
        correlation,
    )  # fmt: skip
