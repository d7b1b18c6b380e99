"""Plays every scenario of a suite with every agent, on the same worlds, and puts the figures together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policy.errors import PolicyError
from policy.evaluation.episode import Episode, play
from policy.evaluation.figures import Yardsticks, by_period, by_seed, change, difference, summarise
from policy.evaluation.results import SCHEMA, Difference, PolicyResult, Results
from policy.references.agent import Agent
from policy.references.registry import BATTERY_ONLY, REFERENCES
from policy.simulation.scenario import Scenario, Suite
from policy.simulation.stacking import stacked
from policy.simulation.tables import PlanSet
from policy.simulation.world import World

FIRST_SEED = 10_001
"""Training draws its worlds from seeds below 10,000; evaluation from here on, so that no world was seen before."""
NEEDED = ("random", "oracle_observed", "oracle_clairvoyant")
"""What scores are measured by; played whether asked for or not."""
MANY = 32
"""Sites with more devices are played in proportionally fewer fleets: they hold as many devices."""
LEAST_FLEETS = 2


@dataclass(frozen=True)
class Progress:
    """A policy has begun to play a scenario."""

    scenario: str
    policy: str
    done: int
    of: int


@dataclass(frozen=True)
class _Played:
    """A scenario played by all agents."""

    scenario: Scenario
    fleets: int
    sets: tuple[PlanSet, ...]
    episodes: dict[str, Episode]


def evaluation_seeds(count: int) -> tuple[int, ...]:
    """Return so many seeds that no training uses."""
    return tuple(range(FIRST_SEED, FIRST_SEED + count))


def evaluate(
    suite: Suite,
    agents: Mapping[str, Callable[[], Agent]],
    seeds: Sequence[int],
    fleets: int = 8,
    progress: Callable[[Progress], None] | None = None,
    command: str = "",
) -> Results:
    """Play and sum up; raises ``PolicyError`` where seeds are too few for intervals or belong to training.

    Each seed is a world of its own, the same for every agent; its random numbers depend on the agent's name and the
    seeds alone, so that a policy's figures do not depend on which others are played.
    """
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise PolicyError("intervals need at least two seeds (five for a table), each once")
    if min(seeds) < FIRST_SEED:
        raise PolicyError(f"seeds below {FIRST_SEED} belong to training: evaluate on {FIRST_SEED} and above")
    if fleets < 1:
        raise PolicyError("an evaluation needs at least one fleet per seed")
    begun = time.perf_counter()
    agents = _complete(agents)
    players = {scenario.name: _players(scenario, agents) for scenario in suite.scenarios}
    total, done = sum(map(len, players.values())), 0
    found = Results(
        schema=SCHEMA, suite=suite.name, command=command, modelled=True, seeds=list(seeds), fleets=fleets, fleets_of={},
        seconds=0.0, titles={}, versions={}, oracle={}, policies=list(agents), scenarios={}, differences={},
    )  # fmt: skip
    for scenario in suite.scenarios:
        worlds = [World(scenario, fleets_for(scenario, fleets), seed) for seed in seeds]
        episodes: dict[str, Episode] = {}
        for name, make in players[scenario.name].items():
            if progress is not None:
                progress(Progress(scenario.name, name, done, total))
            rng = np.random.default_rng([*seeds, *name.encode()])
            episodes[name] = play(stacked(worlds), make(), rng)
            done += 1
        sets = tuple(plans for world in worlds for plans in world.hardware.sets)
        _add(found, _Played(scenario, worlds[0].fleets, sets, episodes), len(seeds))
    found["seconds"] = round(time.perf_counter() - begun, 1)
    return found


def fleets_for(scenario: Scenario, fleets: int) -> int:
    """Return how many fleets of a scenario are played per seed."""
    if scenario.devices <= MANY:
        return fleets
    return min(fleets, max(LEAST_FLEETS, fleets * MANY // (2 * scenario.devices)))


def _complete(agents: Mapping[str, Callable[[], Agent]]) -> dict[str, Callable[[], Agent]]:
    """Return the agents with those that scores need, references in the order of tables, others after them."""
    wanted = {**{name: REFERENCES[name] for name in NEEDED}, **agents}
    known = {name: wanted[name] for name in REFERENCES if name in wanted}
    return {**known, **{name: make for name, make in wanted.items() if name not in known}}


def _players(scenario: Scenario, agents: Mapping[str, Callable[[], Agent]]) -> dict[str, Callable[[], Agent]]:
    on_mains = scenario.battery is None
    return {name: make for name, make in agents.items() if not (on_mains and name in BATTERY_ONLY)}


def _add(found: Results, played: _Played, seeds: int) -> None:
    """Add the figures of a scenario."""
    scenario, episodes = played.scenario, played.episodes
    rewards = {name: by_seed(episode, seeds) for name, episode in episodes.items()}
    oracle = "oracle_clairvoyant"
    if "oracle_battery" in rewards and rewards["oracle_battery"].mean() > rewards[oracle].mean():
        oracle = "oracle_battery"
    marks = Yardsticks(rewards["random"], rewards[oracle], rewards["oracle_observed"], by_period(episodes[oracle]))
    rows = {name: summarise(episode, seeds, marks, played.sets) for name, episode in episodes.items()}
    if "local_heavy" in rows:
        heavy = rows["local_heavy"]
        rows = {name: PolicyResult(**{**row, "against_local_heavy": change(row, heavy)}) for name, row in rows.items()}
    found["scenarios"][scenario.name] = rows
    found["differences"][scenario.name] = _differences(episodes, seeds, marks)
    found["titles"][scenario.name] = scenario.title
    found["versions"][scenario.name] = scenario.version
    found["oracle"][scenario.name] = oracle
    found["fleets_of"][scenario.name] = played.fleets


def _differences(episodes: Mapping[str, Episode], seeds: int, marks: Yardsticks) -> dict[str, Difference]:
    """Return every policy that is no reference, less every other policy."""
    return {
        f"{one}-{other}": difference(episodes[one], episodes[other], seeds, marks)
        for one in episodes
        if one not in REFERENCES
        for other in episodes
        if other != one
    }
