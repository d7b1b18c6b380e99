"""Stands between a learned policy and the devices: where it cannot be trusted, a policy that learns nothing decides."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from policy.baselines import look
from policy.costs import CostModel
from policy.errors import PolicyError
from policy.interface import Choice, DeviceObservation, FleetObservation, Policy
from policy.mask import WORDS, Refusal
from policy.plausible import RTT_MS, UPLINK_BPS
from wire.plan import Plan

log = logging.getLogger(__name__)

FALLBACK = "pricing"
"""Decides where a learned policy must not."""
COMPLAIN_EVERY_S = 60.0
MOST_REASONS = 16
"""Kept apart between two ``take_reasons``; the rest is counted together."""
OTHER = "other reasons"


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """When a learned policy is not asked."""

    most_stale: float = 0.5
    """Share of devices without fresh telemetry beyond which the fallback decides for all."""
    most_astray: float = 0.5
    """The same for devices outside the trained range, and for choices that cannot be followed."""

    def __post_init__(self) -> None:
        for what in ("most_stale", "most_astray"):
            if not 0 <= getattr(self, what) <= 1:
                raise PolicyError(f"guard {what} = {getattr(self, what):g}: allowed is 0 to 1")


@runtime_checkable
class KnowsItsRange(Protocol):
    """A policy that can tell for which devices it was not made."""

    def outside(self, fleet: FleetObservation) -> Mapping[str, str]:
        """Return, by device, what is outside the range it was trained in, in words; nothing for the others."""


@dataclass(frozen=True, slots=True)
class _Why:
    kind: str
    """For the counter."""
    words: str


class Guard:
    """A policy made of two: ``acting`` decides, ``fallback`` for what it must not or cannot.

    Where no more than the settings' share of devices are concerned, only those get the fallback's plan (chosen for the
    site as a whole); else all do. ``acting`` may be ``None``, and ``why`` then says what is the matter.
    """

    def __init__(
        self,
        name: str,
        fallback: Policy,
        model: CostModel,
        settings: GuardSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.counters: Counter[str] = Counter()
        """Device rounds in which the fallback chose, by kind of reason."""
        self._fallback = fallback
        self._model = model
        self._settings = settings or GuardSettings()
        self._clock = clock
        self._acting: Policy | None = None
        self._why = "no weights are loaded"
        self._reasons: Counter[str] = Counter()
        self._complained_s = -math.inf

    def use(self, acting: Policy | None, why: str = "") -> None:
        """Let that policy act from the next decision on; ``None``: nobody can, and ``why`` in words."""
        self._acting = acting
        self._why = why or self._why

    def take_reasons(self) -> Mapping[str, int]:
        """Return the device rounds of the fallback by reason, since this was last asked."""
        taken, self._reasons = self._reasons, Counter()
        return dict(taken)

    def decide(self, fleet: FleetObservation, rng: np.random.Generator) -> Mapping[str, Choice]:
        """Decide for every device; raises only what the fallback raises."""
        if not fleet.devices:
            return {}
        seen = _possible(fleet)
        astray, choices = self._ask(fleet, seen, rng)
        if not astray:
            return choices
        safe = self._fallback.decide(seen, rng)
        out = {}
        for device in fleet.devices:
            why = astray.get(device.name)
            out[device.name] = choices[device.name] if why is None else self._instead(safe[device.name], why)
        return out

    def _ask(
        self, fleet: FleetObservation, seen: FleetObservation, rng: np.random.Generator
    ) -> tuple[dict[str, _Why], Mapping[str, Choice]]:
        """Return for which devices the fallback must decide and why, and the choices for the others.

        ``seen`` is the fleet without figures that cannot be.
        """
        if self._acting is None:
            return _all(fleet, _Why("no_weights", self._why)), {}
        stale = sum(device.hold or device.telemetry_age_ms is None for device in fleet.devices)
        if stale > self._settings.most_stale * len(fleet.devices):
            why = _Why("stale", f"no fresh telemetry from {stale} of {len(fleet.devices)} devices")
            return _all(fleet, why), {}
        try:
            astray = self._outside(self._acting, fleet)
            if self._is_too_many(astray, fleet):
                return _all(fleet, _commonest(astray)), {}
            choices = self._acting.decide(seen, rng)
            for device in fleet.devices:
                wrong = None if device.name in astray else _malformed(choices.get(device.name))
                if wrong is not None:
                    astray[device.name] = wrong
            astray |= self._refused(seen, choices, astray)
        # The one place where any exception is answered: what is learned from data may fail on data nobody thought of,
        # and a policy that learns nothing can still decide. It is counted and logged, so it is not lost.
        except Exception as error:  # noqa: BLE001
            self._complain(error)
            return _all(fleet, _Why("error", f"{type(error).__name__}: {error}"[:200])), {}
        if self._is_too_many(astray, fleet):
            return _all(fleet, _commonest(astray)), {}
        return astray, choices

    def _outside(self, acting: Policy, fleet: FleetObservation) -> dict[str, _Why]:
        if not isinstance(acting, KnowsItsRange):
            return {}
        names = {device.name for device in fleet.devices}
        return {name: _Why("outside", words) for name, words in acting.outside(fleet).items() if name in names}

    def _is_too_many(self, astray: Mapping[str, _Why], fleet: FleetObservation) -> bool:
        return len(astray) > self._settings.most_astray * len(fleet.devices)

    def _refused(
        self, fleet: FleetObservation, choices: Mapping[str, Choice], astray: Mapping[str, _Why]
    ) -> dict[str, _Why]:
        """Return the devices whose plan the mask refuses.

        The whole mask is dear, and a policy that keeps to it breaks no rule: only devices whose plan may break one
        are held against it.
        """
        doubtful = tuple(
            device
            for device in fleet.devices
            if device.name not in astray and self._is_doubtful(device, choices[device.name].plan, fleet)
        )
        if not doubtful:
            return {}
        scene = look(self._model, dataclasses.replace(fleet, devices=doubtful))
        index = self._model.table.index
        out = {}
        for i, device in enumerate(doubtful):
            plan = choices[device.name].plan
            refusal = scene.masked.why(i, index[plan]) if plan in index else None
            if refusal not in (Refusal.ALLOWED, Refusal.MISSES_DEADLINE):  # the latter is predicted, not forbidden
                words = "the catalog does not have it" if refusal is None else WORDS[refusal]
                out[device.name] = _Why("refused_plan", f"chose {plan}, but {words}")
        return out

    def _is_doubtful(self, device: DeviceObservation, plan: Plan, fleet: FleetObservation) -> bool:
        index = self._model.table.index.get(plan)
        if device.hold and device.current in self._model.table.index:
            return plan != device.current or (plan.ships_input and not device.may_ship_input)
        if index is None or plan in device.refuses or plan.version not in device.versions:
            return True
        if not bool(self._model.row(device.profile).known[index] and self._model.edge.known[index]):
            return True
        if device.battery_share is not None and device.battery_share < device.battery_floor:
            return True
        if plan.is_local:
            return False
        edge = fleet.edge
        return (
            plan.codec not in device.codecs
            or (plan.ships_input and not device.may_ship_input)
            or edge.workers < 1
            or edge.threads < 1
            or plan.version not in edge.versions
        )

    def _instead(self, choice: Choice, why: _Why) -> Choice:
        self.counters[f"fallback_{why.kind}"] += 1
        known = why.words in self._reasons or len(self._reasons) < MOST_REASONS
        self._reasons[why.words if known else OTHER] += 1
        name = self._fallback.name
        reason = f"fallback to {name}: {why.words}"
        return dataclasses.replace(choice, reason=reason, policy=choice.policy or name, fallback=why.words)

    def _complain(self, error: Exception) -> None:
        self.counters["policy_errors"] += 1
        now_s = self._clock()
        if now_s - self._complained_s >= COMPLAIN_EVERY_S:
            self._complained_s = now_s
            log.error("policy '%s' failed, '%s' decides", self.name, self._fallback.name, exc_info=error)


def _possible(fleet: FleetObservation) -> FleetObservation:
    """Return the fleet with the worst possible link in place of one that cannot be.

    The edge is shared, and one device's figure that is no number would make every other one's sums no numbers.
    """
    odd = {
        device.name: dataclasses.replace(device, uplink_bps=UPLINK_BPS[0], rtt_ms=RTT_MS[1])
        for device in fleet.devices
        if not (UPLINK_BPS[0] <= device.uplink_bps <= UPLINK_BPS[1] and RTT_MS[0] <= device.rtt_ms <= RTT_MS[1])
    }
    if not odd:
        return fleet
    return dataclasses.replace(fleet, devices=tuple(odd.get(device.name, device) for device in fleet.devices))


def _all(fleet: FleetObservation, why: _Why) -> dict[str, _Why]:
    return {device.name: why for device in fleet.devices}


def _commonest(astray: Mapping[str, _Why]) -> _Why:
    (why, count), *_ = Counter(astray.values()).most_common(1)
    return why if count == len(astray) else _Why(why.kind, f"{why.words}, and the like on {len(astray)} devices")


def _malformed(choice: Choice | None) -> _Why | None:
    if choice is None:
        return _Why("no_choice", "it chose nothing")
    if math.isnan(choice.gain) or choice.gain == -math.inf:
        return _Why("not_a_number", f"it expects a gain of {choice.gain}")
    for prediction in (choice.predicted, choice.staying):
        figures = () if prediction is None else (getattr(prediction, f.name) for f in dataclasses.fields(prediction))
        if not all(figure is None or math.isfinite(figure) for figure in figures):
            return _Why("not_a_number", "it predicts what is no number")
    return None
