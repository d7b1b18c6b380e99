"""One agent playing one world from beginning to end, and what came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from policy.batch import Index, Mask, Reals
from policy.references.agent import Agent
from policy.simulation.world import World


@dataclass(frozen=True)
class Episode:
    """T periods of F fleets with N devices, arrays [T, F, N]."""

    plan: Index
    reward: Reals
    latency_ms: Reals
    energy_mj: Reals
    accuracy: Reals
    late: Reals
    dropped: Reals
    remote: Mask
    dead: Mask
    fps: Reals
    decide_s: float
    """Wall time of all decisions."""

    @property
    def switches(self) -> float:
        """Changes of plan per device and period."""
        if len(self.plan) < 2:
            return 0.0
        return float((self.plan[1:] != self.plan[:-1]).mean())


FIELDS = ("reward", "latency_ms", "energy_mj", "accuracy", "late", "dropped", "remote", "dead")


def play(world: World, agent: Agent, rng: np.random.Generator) -> Episode:
    """Let an agent play a world that has just begun."""
    agent.begin(world)
    plans, kept, decide_s = [], {name: [] for name in FIELDS}, 0.0  # type: ignore[var-annotated]
    while not world.over:
        seen = world.seen()
        begun = time.perf_counter()
        plan = agent.act(world, seen, rng)
        decide_s += time.perf_counter() - begun
        outcome = world.step(plan)
        agent.learn(outcome)
        plans.append(plan)
        for name in FIELDS:
            kept[name].append(getattr(outcome, name))
    columns = {name: np.stack(values) for name, values in kept.items()}
    return Episode(np.stack(plans), **columns, fps=world.traces.fps.astype(np.float32), decide_s=decide_s)
