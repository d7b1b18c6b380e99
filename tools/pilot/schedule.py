"""Which policy decides when: rounds that hold each arm once, in an order that is random and balanced. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

CURRENT = "current"
"""The arm in which the site's own policy decides, undisturbed."""
ARMS = ("local", "remote", "greedy", CURRENT)


@dataclass(frozen=True, slots=True)
class Block:
    """A while in which one arm decides."""

    number: int
    round: int
    """From 0; so is ``number``."""
    arm: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """When a block really was; monotonic seconds of the pilot's own clock."""

    block: Block
    began_s: float
    """From here on the block before is over, and plans may change."""
    from_s: float
    """The end of the wash-out: what is captured from here on is measured."""
    until_s: float
    is_whole: bool = True
    """False: the pilot was interrupted in it."""


def schedule(arms: Sequence[str], rounds: int, rng: np.random.Generator) -> tuple[Block, ...]:
    """Return the blocks of so many rounds.

    Rounds come from Williams' Latin squares (E. J. Williams, 1949): in as many rounds as there are arms, each arm has
    had each place once, and with an even number of arms has followed each other one once. Names and rows are shuffled.
    """
    blocks: list[Block] = []
    squares = _rows(len(arms), rng)
    for number in range(rounds):
        for arm in next(squares):
            blocks.append(Block(len(blocks), number, arms[arm]))
    return tuple(blocks)


def _rows(count: int, rng: np.random.Generator) -> Iterator[list[int]]:
    zigzag = [(count - (i // 2)) % count if i % 2 == 0 else i // 2 + 1 for i in range(count)]
    while True:
        names = rng.permutation(count)
        for shift in rng.permutation(count):
            yield [int(names[(place + shift) % count]) for place in zigzag]
