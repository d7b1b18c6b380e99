"""Trains the fleet's policy: lessons in turn, one update after each, checkpoints that a broken run goes on from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy.actor import Actor
from policy.learn.a2c import A2C
from policy.learn.recipe import Lesson
from policy.learn.rollout import Player
from policy.learn.scalar_log import ScalarLog
from policy.learn.scorer import PlanScorer
from policy.learn.settings import A2CSettings

SMOOTHING = 0.05
CHECKPOINT_EVERY = 200
SEEDS = 100_000
"""Seeds of worlds that one training seed may use up; evaluation uses none of them."""


@dataclass(frozen=True)
class Progress:
    """How a training run stands."""

    update: int
    updates: int
    lesson: str
    reward: float
    """Mean per device and period of the lesson just played."""
    smoothed: float
    """The same over all lessons of late."""
    entropy: float
    """Nats per decision."""
    decisions: int
    """Of single devices, so far."""
    seconds: float


def settings(seed: int) -> A2CSettings:
    """Return the settings of the shipped weights' training."""
    return A2CSettings(
        gae_lambda=0.95, learning_rate=2e-3, learning_rate_end=0.1, entropy_start=0.04, entropy_end=0.002, seed=seed
    )


def train(
    lessons: Sequence[Lesson],
    chosen: A2CSettings,
    updates: int,
    *,
    begin: Actor | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = CHECKPOINT_EVERY,
    log_folder: Path | None = None,
    tell: Callable[[Progress], None] = lambda _: None,
    about: Mapping[str, Any] | None = None,
) -> Actor:
    """Train for so many updates and return the actor.

    ``begin`` is trained further instead of starting afresh; ``checkpoint`` is written now and then and gone on from
    where it exists (with sites drawn anew).
    """
    network = PlanScorer(seed=chosen.seed)
    if begin is not None:
        network.adopt(begin)
    learner = A2C(network, chosen)
    decisions, smoothed = 0, float("nan")
    if checkpoint is not None and checkpoint.exists():
        kept = learner.restore(checkpoint)
        decisions, smoothed = int(kept["decisions"]), float(kept["smoothed"])
    players = [
        Player(one.scenario, one.fleets, SEEDS * chosen.seed + len(lessons) * learner.updates + i, one.recorded)
        for i, one in enumerate(lessons)
    ]
    log, began = ScalarLog(log_folder), time.monotonic()
    try:
        for update in range(learner.updates, updates):
            lesson, player = lessons[update % len(lessons)], players[update % len(lessons)]
            batch, reward = player.play(network, lesson.periods, chosen.gae_lambda)
            told = learner.update(batch, update / updates)
            decisions += len(batch.actions)
            smoothed = reward if smoothed != smoothed else smoothed + SMOOTHING * (reward - smoothed)  # noqa: PLR0124
            tell(
                Progress(
                    update + 1, updates, lesson.scenario.name, reward, smoothed, told.entropy, decisions,
                    time.monotonic() - began,
                )
            )  # fmt: skip
            log.write(
                update,
                {
                    f"reward/{lesson.scenario.name}": reward,
                    f"entropy/{lesson.scenario.name}": told.entropy,
                    "value loss": told.value_loss,
                    "gradient norm": told.grad_norm,
                    "explained variance": told.explained_variance,
                },
            )
            if checkpoint is not None and (update + 1) % checkpoint_every == 0:
                learner.save(checkpoint, {"decisions": decisions, "smoothed": smoothed})
    finally:
        log.close()
    seconds = round(time.monotonic() - began, 1)
    told_of = {"updates": updates, "decisions": decisions, "seed": chosen.seed, "seconds": seconds}
    return network.actor({**told_of, **(about or {})})
