"""Policies that learn nothing and look at one device at a time: fixed, local, remote, greedy and sequential."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from policy.costs import NONE, CostModel, FleetCosts
from policy.errors import PolicyError
from policy.interface import Choice, FleetObservation, Prediction
from policy.mask import WORDS, Masked, Refusal, mask
from policy.table import Array, Index
from wire.plan import Plan

PASSES = 2
"""How often ``sequential`` goes round the site."""
ORDERS = 4
SMALL_SITE = 32
"""Up to ``ORDERS`` random orders are tried while that takes no more turns than a site of this size in one order;
among few devices it matters who goes first, among many it averages out."""
WORTH_MOVING = 0.01
"""Reward per device by which a fresh start must beat settling from where the site is."""


@dataclass(frozen=True)
class Scene:
    """A fleet with its costs, its mask and the plans it follows now ([devices]; ``NONE``: none the catalog has)."""

    fleet: FleetObservation
    costs: FleetCosts
    masked: Masked
    current: Index

    def is_allowed(self, device: int, plan: int) -> bool:
        """Whether the device may be told the plan; False for ``NONE``."""
        return plan != NONE and bool(self.masked.refusal[device, plan] == Refusal.ALLOWED)


def look(model: CostModel, fleet: FleetObservation) -> Scene:
    """Work out everything a policy looks at."""
    costs = model.costs(fleet)
    masked = mask(fleet, costs)
    index = costs.table.index
    now = [index.get(d.current, NONE) if d.current else NONE for d in fleet.devices]
    return Scene(fleet, costs, masked, np.array(now, np.int64))


def own_rewards(costs: FleetCosts, device: int, plans: Index, others: Array) -> Array:
    """Return the device's own reward [plans] for each plan, beside a load of others [1 + batch sizes]."""
    wait, batch = costs.edge_delay(others + costs.load_of(device, plans))
    return costs.outlook(device, plans, wait, batch).reward


def site_rewards(costs: FleetCosts, device: int, plans: Index, assignment: Index) -> Array:
    """Return the sum over the site [plans] if this device takes each plan and the others stay at ``assignment``."""
    others = assignment.copy()
    others[device] = NONE
    wait, batch = costs.edge_delay(costs.total_load(others) + costs.load_of(device, plans))
    total = costs.outlook(device, plans, wait, batch).reward
    felt = np.flatnonzero((others != NONE) & ~costs.table.local[others])
    if len(felt):
        seen = costs.outlook(felt[:, None], others[felt][:, None], wait[None, :], batch[None, :])
        total = total + seen.reward.sum(axis=0)
    return total


def choices(scene: Scene, chosen: Index, gains: Sequence[float], reason: str) -> dict[str, Choice]:
    """Put an assignment [N] into words; predictions, for those who move, hold for everybody following it."""
    costs, now = scene.costs, scene.current
    moves = np.flatnonzero(chosen != now)
    predicted = _predictions(costs, moves, chosen[moves], chosen)
    leaves = moves[now[moves] != NONE]
    staying = _predictions(costs, leaves, now[leaves], chosen)
    out: dict[str, Choice] = {}
    for i, device in enumerate(scene.fleet.devices):
        why = scene.masked.why(i, int(now[i])) if i in staying else Refusal.ALLOWED
        refused = "" if why == Refusal.ALLOWED else WORDS[why]
        plan = costs.table.plans[chosen[i]]
        out[device.name] = Choice(plan, reason, gains[i], predicted.get(i), staying.get(i), refused)
    return out


def _predictions(costs: FleetCosts, devices: Index, plans: Index, chosen: Index) -> dict[int, Prediction | None]:
    """Predict some devices on plans, the others following ``chosen`` [N]; ``None`` where nobody profiled the plan."""
    load = costs.total_load(chosen) - costs.load_of(devices, chosen[devices]) + costs.load_of(devices, plans)
    told = costs.predictions(devices, plans, load)
    known = costs.known[devices, plans]
    return {int(i): one if k else None for i, one, k in zip(devices, told, known, strict=True)}


class _Alone:
    """Each device takes the best for itself of some plans, given the load of the others as it is now."""

    name: str
    reason: str

    def __init__(self, model: CostModel) -> None:
        self._model = model

    def candidates(self, scene: Scene, device: int) -> Index:
        """Return the plans this policy picks from; all must be allowed."""
        raise NotImplementedError

    def decide(self, fleet: FleetObservation, rng: np.random.Generator) -> Mapping[str, Choice]:  # noqa: ARG002
        """Decide each device on its own."""
        scene = look(self._model, fleet)
        chosen, gains = self.assign(scene)
        return choices(scene, chosen, gains, self.reason)

    def assign(self, scene: Scene) -> tuple[Index, list[float]]:
        """Return the plan [devices] of each device and what each gains for itself."""
        costs = scene.costs
        load = costs.total_load(scene.current)
        chosen, gains = np.full(costs.devices, NONE), []
        for i in range(costs.devices):
            now = int(scene.current[i])
            others = load - costs.load_of(i, now) if now != NONE else load
            plans = self.candidates(scene, i)
            worth = own_rewards(costs, i, plans, others)
            best = int(np.argmax(worth))
            chosen[i] = plans[best]
            stay = worth[plans == now]
            gains.append(float(worth[best] - stay[0]) if len(stay) else math.inf)
        return chosen, gains


class Greedy(_Alone):
    """Each device takes what is best for itself on current estimates; herds when the edge is shared."""

    name = "greedy"
    reason = "best for this device alone"

    def candidates(self, scene: Scene, device: int) -> Index:
        """All that is allowed."""
        return scene.masked.plans(device)


class Local(_Alone):
    """Everything on the device: the best version that meets deadline and frame rate."""

    name = "local"
    reason = "best version the device runs alone"

    def candidates(self, scene: Scene, device: int) -> Index:
        """Local plans; all that is allowed where none is."""
        local = scene.masked.tolerable(device, scene.costs.table.local)
        return local if len(local) else scene.masked.plans(device)


class Remote(_Alone):
    """Everything on the edge: the frame itself, by the best version and codec."""

    name = "remote"
    reason = "whole network on the edge"

    def candidates(self, scene: Scene, device: int) -> Index:
        """Plans at cut ``input``; all that is allowed where none is."""
        remote = scene.masked.tolerable(device, scene.costs.table.ships_input)
        return remote if len(remote) else scene.masked.plans(device)


@dataclass(frozen=True)
class FixedPlans:
    """The plan that ``fixed`` gives each device."""

    default: Plan | None = None
    devices: Mapping[str, Plan] = field(default_factory=dict)

    def of(self, name: str) -> Plan | None:
        """Return the plan of one device."""
        return self.devices.get(name, self.default)


class Fixed:
    """Each device follows the plan its settings name; where that is refused, the best for itself."""

    name = "fixed"
    reason = "set by the operator"

    def __init__(self, model: CostModel, plans: FixedPlans) -> None:
        if plans.default is None and not plans.devices:
            raise PolicyError("policy 'fixed' needs a plan: set plan = \"version/cut/codec\" under [defaults]")
        for plan in (plans.default, *plans.devices.values()):
            if plan is not None and plan not in model.table.index:
                raise PolicyError(f"policy 'fixed': the catalog has no plan {plan}")
        self._model = model
        self._plans = plans
        self._greedy = Greedy(model)

    def decide(self, fleet: FleetObservation, rng: np.random.Generator) -> Mapping[str, Choice]:  # noqa: ARG002
        """Give each device its plan."""
        scene = look(self._model, fleet)
        chosen, gains = self._greedy.assign(scene)
        index = self._model.table.index
        for i, device in enumerate(fleet.devices):
            plan = self._plans.of(device.name)
            if plan is not None and scene.masked.why(i, index[plan]) in (Refusal.ALLOWED, Refusal.MISSES_DEADLINE):
                chosen[i], gains[i] = index[plan], math.inf
        return choices(scene, chosen, gains, self.reason)


class Sequential:
    """Each device in turn takes the plan that is best for the whole site, given what the others have taken.

    Every turn can only raise the site's sum, so the order (random) decides which optimum is found, not whether.
    Two starts are tried: where the site is now (new devices at their own best), and an empty edge; the fresh start
    wins only by a margin, so that equal optima do not alternate.
    """

    name = "sequential"
    reason = "best for the whole site"

    def __init__(self, model: CostModel, passes: int = PASSES) -> None:
        self._model = model
        self._passes = passes
        self._greedy = Greedy(model)

    def decide(self, fleet: FleetObservation, rng: np.random.Generator) -> Mapping[str, Choice]:
        """Decide one device after another."""
        scene = look(self._model, fleet)
        chosen = self.assign(scene, rng)
        return choices(scene, chosen, self._gains(scene, chosen), self.reason)

    def assign(self, scene: Scene, rng: np.random.Generator) -> Index:
        """Return the plan [devices] of each device."""
        costs = scene.costs
        if not costs.devices:
            return scene.current
        greedy, _ = self._greedy.assign(scene)
        here = np.array([now if scene.is_allowed(i, now) else greedy[i] for i, now in enumerate(scene.current)])
        nowhere = np.full(costs.devices, NONE)
        orders = max(1, min(ORDERS, SMALL_SITE // costs.devices))
        settled, worth_settled = self._best(scene, here, orders, rng)
        fresh, worth_fresh = self._best(scene, nowhere, orders, rng)
        return fresh if worth_fresh > worth_settled + WORTH_MOVING * costs.devices else settled

    def _best(self, scene: Scene, start: Index, orders: int, rng: np.random.Generator) -> tuple[Index, float]:
        """Settle in several random orders; return the best assignment and its sum of rewards."""
        ends = [self._settle(scene, start, rng) for _ in range(orders)]
        sums = [float(scene.costs.together(end).reward.sum()) for end in ends]
        best = int(np.argmax(sums))
        return ends[best], sums[best]

    def _settle(self, scene: Scene, start: Index, rng: np.random.Generator) -> Index:
        assignment = start.copy()
        for _ in range(self._passes):
            before = assignment.copy()
            for i in rng.permutation(scene.costs.devices):
                plans = scene.masked.plans(int(i))
                worth = site_rewards(scene.costs, int(i), plans, assignment)
                best = int(np.argmax(worth))
                stay = np.flatnonzero(plans == assignment[i])
                if not len(stay) or worth[best] > worth[stay[0]] + 1e-9:
                    assignment[i] = plans[best]
            if (assignment == before).all():
                break
        return assignment

    def _gains(self, scene: Scene, chosen: Index) -> list[float]:
        """What the site wins by each device's move alone, the others having made theirs."""
        gains = []
        for i, now in enumerate(scene.current):
            if not scene.is_allowed(i, now):
                gains.append(math.inf)
                continue
            moved, stayed = site_rewards(scene.costs, i, np.array([chosen[i], now]), chosen)
            gains.append(float(moved - stayed))
        return gains
