"""The policies that decide for a whole site by matrices: pricing, and the trained network that starts from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from policy.actor import Actor, load_actor
from policy.baselines import Scene, choices, look
from policy.batch import Index, Reals
from policy.candidates import Candidates, Sieve
from policy.coordination import TURNS, Turn, look_at, pricing_and_sweep, take_turns
from policy.costs import CostModel
from policy.features import FACTORS, PLAN_FEATURES, Situation
from policy.interface import Choice, FleetObservation
from policy.memory import Memory
from policy.table import Array
from policy.view import View, view

WEIGHTS = Path(__file__).parent / "weights" / "a2c.npz"
"""The weights that ship with splitfleet."""
PERIOD_MS = 1000.0
"""Telemetry younger than this is as fresh as in training."""
PASSES = 2
"""How often the devices of a site settle."""
LARGE_SITE = 256
"""From more devices on one round has to do, in fewer turns: the herd that decides at once is small among so many."""
FEW_TURNS = 8
OWN = [i for i, name in enumerate(PLAN_FEATURES) if name.startswith("own")]
"""Features in units of a device's own reward."""


class Pricing:
    """Everybody answers to a price of the edge's time; then each in turn corrects its plan for the site's sum."""

    name = "pricing"
    reason = "best for the whole site at a price of the edge's time"

    def __init__(self, model: CostModel) -> None:
        self._model = model
        self._sieve = Sieve(model)

    def decide(self, fleet: FleetObservation, rng: np.random.Generator) -> Mapping[str, Choice]:
        """Decide by price and sweep; batteries with a horizon are paced."""
        if not fleet.devices:
            return {}
        scene = look(self._model, fleet)
        found = self._sieve.candidates(scene)
        now = situation(scene, found)
        priced = pricing_and_sweep(found.batch, rng, now.budget_mj_per_s().astype(np.float32))
        penalty = priced.battery_price[..., None] * found.batch.energy_mj
        gains = _gains_for_the_site(found, priced.assignment, penalty)
        return choices(scene, found.plans(priced.assignment), gains, self.reason)


class Learned:
    """The trained network: what plans would bring, weighed by what it has learned of links, edges and batteries."""

    name = "a2c"
    reason = "best for the whole site, as learned"

    def __init__(self, model: CostModel, actor: Actor) -> None:
        self.actor = actor
        self._model = model
        self._sieve = Sieve(model)
        self._memory = Memory((1, 0))
        self._names: tuple[str, ...] = ()

    def decide(self, fleet: FleetObservation, rng: np.random.Generator) -> Mapping[str, Choice]:
        """One forward pass for all devices, then turns in which they see what the others have taken."""
        if not fleet.devices:
            return {}
        scene = look(self._model, fleet)
        found = self._sieve.candidates(scene)
        now = situation(scene, found)
        self._follow(tuple(device.name for device in fleet.devices))
        looked = view(self.actor, now, found.batch, self._memory)
        assignment, gains = self._settle(looked, rng)
        return choices(scene, found.plans(assignment), gains, self.reason)

    def outside(self, fleet: FleetObservation) -> Mapping[str, str]:
        """Return, by device, in which respect it lies outside what training has seen."""
        figures = np.array([(d.uplink_bps, d.rtt_ms, d.fps, d.deadline_ms) for d in fleet.devices]).reshape(-1, 4)
        low, high = np.array(list(TRAINED.values())).T
        inside = (figures >= low) & (figures <= high)
        found = {}
        for i in np.flatnonzero(~inside.all(axis=1)):
            which = int(np.argmin(inside[i]))
            name = list(TRAINED)[which].replace("_", " ")
            found[fleet.devices[i].name] = (
                f"{name} {figures[i, which]:g} is outside the trained range {low[which]:g} to {high[which]:g}"
            )
        return found

    def _follow(self, names: tuple[str, ...]) -> None:
        if names != self._names:
            place = {name: i for i, name in enumerate(self._names)}
            self._memory.follow(np.array([place.get(name, -1) for name in names], np.int64))
            self._names = names

    def _settle(self, looked: View, rng: np.random.Generator) -> tuple[Index, list[float]]:
        gains = np.full(looked.current.shape, math.inf)
        # Training sharpens its choices by larger coefficients: a gain is told in units of the device's own reward.
        unit = np.maximum(looked.coefficients[..., OWN].sum(axis=-1), 1.0)

        def seen(turn: Turn, worth: Reals, plans: Index) -> None:
            now = looked.current[0][turn.chosen]
            best = np.take_along_axis(worth, plans[..., None], axis=-1)[..., 0]
            stay = np.take_along_axis(worth, np.maximum(now, 0)[..., None], axis=-1)[..., 0]
            gains[0, turn.chosen] = np.where(now >= 0, (best - stay) / unit[0, turn.chosen], math.inf)

        assignment = looked.priced.assignment
        passes, turns = (1, FEW_TURNS) if len(self._names) > LARGE_SITE else (PASSES, TURNS)
        for _ in range(passes):
            assignment = take_turns(
                looked.batch, assignment, looked.score, rng, factors=FACTORS, turns=turns, on_turn=seen
            )
        return assignment, [float(gain) for gain in gains[0]]


TRAINED: Mapping[str, tuple[float, float]] = {
    "uplink_bps": (5e3, 1e9),
    "rtt_ms": (0.0, 2_000.0),
    "fps": (0.0, 60.0),
    "deadline_ms": (20.0, 20_000.0),
}
"""Beyond these, what the network says of a device is a guess; with a margin around what training draws."""


def load_learned(model: CostModel, path: Path = WEIGHTS) -> Learned:
    """Return the policy with the weights of a file; raises ``PolicyError``."""
    return Learned(model, load_actor(path))


def situation(scene: Scene, found: Candidates) -> Situation:
    """Return what is known of an observed site beside the costs of its plans, as arrays [1, N]."""
    devices, edge = scene.fleet.devices, scene.fleet.edge

    def each(values: Sequence[float]) -> Array:
        return np.array([values], np.float64)

    known = [d.battery_mj is not None and d.horizon_s is not None for d in devices]
    ages = [max(d.telemetry_age_ms or 0.0, d.uplink_age_ms or 0.0) for d in devices]
    # Of what is followed, whether or not it may be kept; a device without a plan loads nothing.
    busy = scene.costs.total_load(scene.current)[1:].min() / (1000 * max(scene.costs.interpreters, 1))
    expected = np.array([busy], np.float64)
    return Situation(
        uplink_bps=each([d.uplink_bps for d in devices]),
        age_periods=each([max(0.0, age / PERIOD_MS - 1) for age in ages]),
        rtt_ms=each([d.rtt_ms for d in devices]),
        fps=each([d.fps if d.fps > 0 else 1.0 for d in devices]),
        late_share=each([d.late_share or 0.0 for d in devices]),
        battery_share=each([1.0 if d.battery_share is None else d.battery_share for d in devices]),
        battery_mj=each(
            [d.battery_mj if k and d.battery_mj is not None else math.inf for d, k in zip(devices, known, strict=True)]
        ),
        horizon_s=each(
            [d.horizon_s if k and d.horizon_s is not None else 0.0 for d, k in zip(devices, known, strict=True)]
        ),
        current=found.current,
        utilisation=expected if edge.utilisation is None else np.array([edge.utilisation]),
        expected=expected,
        backlog_ms=np.array([edge.backlog_ms]),
        calibration=np.array([edge.calibration]),
    )


def _gains_for_the_site(found: Candidates, assignment: Index, penalty: Reals) -> list[float]:
    """Return what the site wins by each device's move alone, the others having made theirs."""
    batch = found.batch
    turn = look_at(batch, assignment, np.arange(batch.shape[1])[None])
    worth = turn.own[0] + turn.others[0] - penalty
    moved, stayed = batch.pick(worth, assignment), batch.pick(worth, np.maximum(found.current, 0))
    return [float(gain) for gain in np.where(found.current >= 0, moved - stayed, math.inf)[0]]
