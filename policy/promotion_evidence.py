"""What a promotion is judged by: measured rewards in blocks of time, of switched devices and of the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from policy.intervals import Interval, between, difference
from policy.table import Array

BLOCK_S = 60.0
"""One sample: long enough that neighbours resemble each other little, and what resemblance stays is allowed for."""
LAG_S = 15.0
"""After a block's end: outcomes travel in batches, and repeated where a link fails."""
AHEAD_S = 3600.0
"""A frame stamped so far ahead comes from a wrong clock."""
LEAST_BLOCKS = 8
"""Before and after a switch; from fewer no spread can be told."""
KNOWN_BLOCKS = 30
"""Before the first stage: what is unsure of the time before stays unsure in every comparison with it."""
BEFORE_BLOCKS = 60
DURING_BLOCKS = 240
"""Both bound what is kept; a thousand devices then take a few megabytes."""
MANY_DEVICES = 8
"""From so many on, the spread between devices is known well enough to be held against the estimate too."""

Blocks = dict[int, dict[str, float]]
"""Number of the block → device → mean reward."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How much better (or worse, below 0) the switched devices do, beyond what the others did meanwhile."""

    effect: Interval
    switched: int
    """Devices compared."""
    others: int
    """0: nobody was left to compare with, and the figures compare before and after alone."""
    blocks: int
    reward_switched: float
    """Mean since the switch."""
    reward_others: float | None


@dataclass
class Evidence:
    """Collects rewards in blocks; ``before`` and ``during`` hold the closed ones on either side of the last switch."""

    before: Blocks = field(default_factory=dict)
    during: Blocks = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    """By device, in the closed blocks of ``during``."""
    open: dict[int, dict[str, tuple[float, int]]] = field(default_factory=dict)
    """Reward times frames, and frames, of blocks that are not over."""

    def observe(self, at_s: float, device: str, reward: float, frames: int) -> None:
        """Take in the mean measured reward of some frames; one that is no number is passed over."""
        if frames > 0 and np.isfinite(reward):
            block = self.open.setdefault(int(at_s // BLOCK_S), {})
            total, count = block.get(device, (0.0, 0))
            block[device] = (total + reward * frames, count + frames)

    def close(self, now_s: float, switched_s: float | None) -> int:
        """Close the blocks that are over; return how many count.

        ``switched_s``: since when the present groups act; blocks that began earlier (or within one block after it,
        while devices still follow their old plans) belong to neither side. ``None``: nothing is switched yet.
        """
        over = sorted(n for n in self.open if (n + 1) * BLOCK_S + LAG_S <= now_s)
        counted = 0
        for number in over:
            block = self.open.pop(number)
            means = {name: total / count for name, (total, count) in block.items()}
            # What arrives after a block was closed completes it, and changes nothing that was judged.
            if switched_s is None:
                self.before[number] = means | self.before.get(number, {})
            elif number * BLOCK_S >= switched_s + BLOCK_S:
                self.during[number] = means | self.during.get(number, {})
                for name, (_, count) in block.items():
                    self.frames[name] = self.frames.get(name, 0) + count
            else:
                continue
            counted += 1
        for number in [n for n in self.open if n * BLOCK_S > now_s + AHEAD_S]:
            del self.open[number]
        _bound(self.before, BEFORE_BLOCKS)
        _bound(self.during, DURING_BLOCKS)
        return counted

    def switch(self, *, from_now: bool) -> None:
        """Begin to collect anew for other groups; with ``from_now`` the blocks since the last switch are the before."""
        if from_now:
            self.before = self.during
            _bound(self.before, BEFORE_BLOCKS)
        self.during, self.frames = {}, {}

    def devices(self) -> list[str]:
        """Return who has been heard of in the latest blocks."""
        latest = sorted((self.before | self.during).items())[-LEAST_BLOCKS:]
        return sorted({name for _, block in latest for name in block})

    def frames_of(self, is_switched: Callable[[str], bool]) -> tuple[int, int]:
        """Return the frames since the switch of the switched devices and of the others."""
        switched = sum(count for name, count in self.frames.items() if is_switched(name))
        return switched, sum(self.frames.values()) - switched

    def verdict(self, is_switched: Callable[[str], bool], confidence: float) -> Verdict | None:
        """Compare both groups, each device with itself before; ``None`` while there are too few blocks.

        Difference in differences: what moves all devices alike (the evening, a busy edge) cancels, and so do groups
        that were unequal before. Samples are blocks of time (with allowance for their resemblance) and, in a large
        fleet, devices too: the wider interval holds. Devices without a block before are not compared.
        """
        names = sorted(_names(self.before) & _names(self.during))
        mine = np.array([is_switched(name) for name in names], bool)
        if not mine.any():
            return None
        before, during = _matrix(self.before, names), _matrix(self.during, names)
        usual = np.nanmean(before, axis=0)
        alone = bool(mine.all())
        was, is_now = _gap(before - usual, mine, alone=alone), _gap(during - usual, mine, alone=alone)
        if min(len(was), len(is_now)) < LEAST_BLOCKS:
            return None
        effect = difference(is_now, was, confidence)
        if not alone and len(names) >= MANY_DEVICES:
            change = np.nanmean(during, axis=0) - usual
            half = max(effect.half, between(change[mine], change[~mine], confidence).half)
            effect = Interval(effect.estimate, effect.estimate - half, effect.estimate + half)
        level = np.nanmean(during, axis=0)
        return Verdict(
            effect, int(mine.sum()), int((~mine).sum()), len(is_now), float(level[mine].mean()),
            None if alone else float(level[~mine].mean()),
        )  # fmt: skip


def _gap(rewards: Array, mine: Array, *, alone: bool) -> Array:
    """Return, block by block, the mean of one group less that of the other; blocks that lack a group are left out."""
    there = np.isfinite(rewards)
    total = np.where(there, rewards, 0.0)
    ours, theirs = there[:, mine].sum(axis=1), there[:, ~mine].sum(axis=1)
    ok = ours > 0 if alone else (ours > 0) & (theirs > 0)
    gap = total[ok][:, mine].sum(axis=1) / ours[ok]
    return np.asarray(gap if alone else gap - total[ok][:, ~mine].sum(axis=1) / theirs[ok])


def _matrix(blocks: Blocks, names: list[str]) -> Array:
    return np.array([[block.get(name, np.nan) for name in names] for _, block in sorted(blocks.items())])


def _names(blocks: Mapping[int, Mapping[str, float]]) -> set[str]:
    return {name for block in blocks.values() for name in block}


def _bound(blocks: Blocks, most: int) -> None:
    for number in sorted(blocks)[: max(len(blocks) - most, 0)]:
        del blocks[number]
