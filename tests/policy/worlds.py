"""Small simulated worlds, and how to play them."""

from __future__ import annotations

import dataclasses

import numpy as np

from policy.evaluation.episode import Episode, play
from policy.references.registry import REFERENCES
from policy.simulation.scenario import Scenario
from policy.simulation.world import World

SMALL = Scenario("small", "A small site", devices=4, periods=10, families=("resnet",), demand=(2.0, 4.0))


def scenario(**changes: object) -> Scenario:
    """The small scenario, changed."""
    return dataclasses.replace(SMALL, **changes)  # type: ignore[arg-type]


def played(name: str, of: Scenario = SMALL, fleets: int = 3, seed: int = 1) -> Episode:
    """A reference's episode."""
    return play(World(of, fleets, seed), REFERENCES[name](), np.random.default_rng(0))
