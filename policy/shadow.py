"""A second policy that only watches: what it would decide on what the acting one sees, and what each is worth."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from policy.costs import NONE, CostModel
from policy.errors import PolicyError
from policy.interface import Choice, FleetObservation, Policy
from wire.plan import Plan

log = logging.getLogger(__name__)

COMPLAIN_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """One device under both policies, before hysteresis; rewards predicted with everybody following that policy."""

    device: str
    acting_plan: Plan
    shadow_plan: Plan
    acting_reward: float | None
    """``None``: nobody profiled the device."""
    shadow_reward: float | None


class ShadowPolicy:
    """Asks a policy on the side. Whatever that one does, the caller only ever gets rows or none."""

    def __init__(
        self, model: CostModel, policy: Policy | None, seed: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.policy = policy
        """May be exchanged between two rounds; ``None``: there is none to watch now."""
        self._model = model
        self._rng = np.random.default_rng(seed)
        self._clock = clock
        self._complained_s = float("-inf")
        self._last: tuple[FleetObservation, Mapping[str, Choice], Mapping[str, Choice]] | None = None

    def watch(self, fleet: FleetObservation, acting: Mapping[str, Choice]) -> None:
        """Let it decide on what the acting policy saw and chose."""
        self._last = None
        if not fleet.devices or self.policy is None:
            return
        try:
            choices = self.policy.decide(fleet, self._rng)
            known = self._model.table.index
            odd = [d.name for d in fleet.devices if d.name not in choices or choices[d.name].plan not in known]
            if odd:
                raise PolicyError(f"no plan of the catalog for {', '.join(odd[:5])}")
            self._last = fleet, acting, choices
        except Exception as error:  # the outermost loop of what only watches: it must never harm what acts
            self.counters["shadow_errors"] += 1
            now_s = self._clock()
            if now_s - self._complained_s >= COMPLAIN_EVERY_S:
                self._complained_s = now_s
                log.error("shadow policy '%s' failed", self.policy.name, exc_info=error)

    def rows(self) -> list[Comparison]:
        """Return the last round's comparison, once; empty where there was none."""
        if self._last is None:
            return []
        fleet, acting, shadow = self._last
        self._last = None
        one, other = self._rewards(fleet, acting), self._rewards(fleet, shadow)
        return [
            Comparison(d.name, acting[d.name].plan, shadow[d.name].plan, one[d.name], other[d.name])
            for d in fleet.devices
        ]

    def _rewards(self, fleet: FleetObservation, choices: Mapping[str, Choice]) -> dict[str, float | None]:
        costs = self._model.costs(fleet)
        index = self._model.table.index
        assignment = np.array([index.get(choices[d.name].plan, NONE) for d in fleet.devices], np.int64)
        reward = costs.together(assignment).reward
        return {
            device.name: float(reward[i]) if plan != NONE and costs.known[i, plan] else None
            for i, (device, plan) in enumerate(zip(fleet.devices, assignment, strict=True))
        }
