"""From what is known of a site to the decisions to publish: policy, hysteresis, rising revisions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from policy.errors import PolicyError
from policy.fleet import MAX_DEVICES, Fleet
from policy.hysteresis import Hysteresis
from policy.interface import Choice, DeviceObservation, FleetObservation, Policy
from policy.reasons import Circumstances, circumstances, explain
from policy.refusals import Refusals
from wire.plan import Plan

STEADY_S = 3.0
"""Time after the last switch from which the edge's load is that of the plans we know of."""
MAX_REV = 2**53
"""No site decides as often: a larger revision is a mistake or a lie, and what must rise beyond it would not fit."""
ROUNDING = 1e-6
"""Numbers lose more than this to nobody on their way: they travel as float32."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A decision to publish, retained."""

    device: str
    rev: int
    plan: Plan
    deadline_ms: float
    policy: str
    reason: str


@dataclass(frozen=True, slots=True)
class Round:
    """What the last round saw and what the policy wanted, before hysteresis."""

    fleet: FleetObservation
    choices: Mapping[str, Choice]


@dataclass(slots=True)
class _Held:
    """What the broker holds for one device, as far as we know."""

    issued: Issued
    since_s: float | None
    """When the device was last switched; ``None``: never, or before us."""
    known: Circumstances | None = None
    restless: int = 0
    """How often it was switched in quick succession."""
    confirmed: bool = True
    """Whether the broker has shown it since we connected."""


class Decider:
    """Holds the decisions of a site; ``decide`` returns those that change. Time in seconds, monotonic."""

    def __init__(self, fleet: Fleet, policy: Policy, hysteresis: Hysteresis) -> None:
        self.counters: Counter[str] = Counter()
        self._fleet = fleet
        self._policy = policy
        self._hysteresis = hysteresis
        self._held: dict[str, _Held] = {}
        self._ahead: dict[str, int] = {}
        self._switched_s = -STEADY_S
        self._refusals = Refusals(self.counters)
        self.last: Round | None = None

    def act_by(self, policy: Policy) -> None:
        """Let another policy decide from the next round on."""
        self._policy = policy

    def plans(self) -> Mapping[str, Plan]:
        """Return the plan that each device is told."""
        return {name: held.issued.plan for name, held in self._held.items()}

    def is_steady(self, now_s: float) -> bool:
        """Whether no plan has changed lately."""
        return now_s - self._switched_s >= STEADY_S

    def connected(self) -> None:
        """A connection begins: the broker will show what it retains, and may have forgotten some."""
        for held in self._held.values():
            held.confirmed = False

    def retained(self, decision: Issued) -> None:
        """Take in what the broker holds for a device: our own echo, or what was decided before or beside us."""
        if decision.rev > MAX_REV:
            self.counters["implausible_rev"] += 1
            return
        held = self._held.get(decision.device)
        if held is not None and decision.rev < held.issued.rev:
            return
        if held is not None and (decision.rev, decision.plan) == (held.issued.rev, held.issued.plan):
            held.confirmed = True
            return
        if held is None and len(self._held) >= MAX_DEVICES:
            self.counters["too_many_decisions"] += 1
            return
        self.counters["foreign_decisions"] += held is not None
        self._held[decision.device] = _Held(decision, None)
        self._refusals.told(decision.device, decision.rev, decision.plan)

    def not_told(self, device: str) -> None:
        """The link did not take the decision for a device: it is due again."""
        if device in self._held:
            self._held[device].confirmed = False

    def follows(self, device: str, rev: int, now_s: float) -> None:
        """A device follows that revision.

        One beyond ours means that the broker forgot, and ours would be ignored; one that stays behind ours means that
        the device refuses the plan.
        """
        if rev > MAX_REV:
            self.counters["implausible_rev"] += 1
            return
        self._refusals.follows(device, rev, now_s)
        held = self._held.get(device)
        if (held is None or rev > held.issued.rev) and (device in self._ahead or len(self._ahead) < MAX_DEVICES):
            self._ahead[device] = max(rev, self._ahead.get(device, 0))

    def decide(self, now_s: float, rng: np.random.Generator) -> list[Issued]:
        """Return the decisions to publish now; none for devices that stay."""
        fleet = self._fleet.observe(now_s, self.plans(), self._refusals.plans(now_s))
        out = []
        choices = self._policy.decide(fleet, rng) if fleet.devices else {}
        lacking = [device.name for device in fleet.devices if device.name not in choices]
        if lacking:
            raise PolicyError(f"policy '{self._policy.name}' chose nothing for {', '.join(lacking[:5])}")
        self.last = Round(fleet, choices)
        for device in fleet.devices:
            issued = self._settle(device, choices[device.name], circumstances(device, fleet), now_s)
            if issued is not None:
                out.append(issued)
        told = {issued.device for issued in out}
        return out + [issued for issued in self._lost() if issued.device not in told]

    def _settle(self, device: DeviceObservation, choice: Choice, known: Circumstances, now_s: float) -> Issued | None:
        held = self._held.get(device.name)
        current = held.issued.plan if held else None
        held_s = np.inf if held is None or held.since_s is None else now_s - held.since_s
        restless = held.restless if held else 0
        if self._hysteresis.switches(choice, current, held_s, restless):
            reason = explain(choice, current, held.known if held else None, known)
            self._switched_s = now_s
            by = choice.policy or self._policy.name
            issued = self._issue(device, choice.plan, reason, known, None if current is None else now_s, by)
            self._held[device.name].restless = self._hysteresis.restless_after(held_s, restless)
            return issued
        if held is None or current is None:
            return None
        held.known = held.known or known
        if not math.isclose(held.issued.deadline_ms, device.deadline_ms, rel_tol=ROUNDING):
            reason = f"deadline now {device.deadline_ms:g} ms"
            return self._issue(device, current, reason, held.known, held.since_s, held.issued.policy)
        if self._ahead.get(device.name, 0) > held.issued.rev:
            return self._issue(device, current, held.issued.reason, held.known, held.since_s, held.issued.policy)
        return None

    def _issue(
        self, device: DeviceObservation, plan: Plan, reason: str, known: Circumstances, since_s: float | None, by: str
    ) -> Issued:
        held = self._held.get(device.name)
        rev = 1 + max(held.issued.rev if held else 0, self._ahead.pop(device.name, 0))
        issued = Issued(device.name, rev, plan, device.deadline_ms, by, reason)
        self._held[device.name] = _Held(issued, since_s, known, held.restless if held else 0)
        self._refusals.told(device.name, rev, plan)
        return issued

    def _lost(self) -> list[Issued]:
        """Return what the broker should hold: what it has not shown since we connected, or never got."""
        lost = [held for held in self._held.values() if not held.confirmed]
        for held in lost:
            held.confirmed = True
            self._refusals.told(held.issued.device, held.issued.rev, held.issued.plan)
            self.counters["republished"] += 1
        return [held.issued for held in lost]
