"""Says in words why a device is told another plan."""

from __future__ import annotations

from dataclasses import dataclass

from policy.interface import Choice, DeviceObservation, FleetObservation, Prediction
from policy.words import ms_words, plan_words, rate_words
from wire.plan import Plan

RATE_CHANGED = 1.3
"""Factor by which an uplink must have moved to be named as a cause."""
BUSIER = 0.15
"""Change of the edge's utilisation worth naming."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What held when a device was last told a plan."""

    uplink_bps: float
    uplink_known: bool
    workers: int
    utilisation: float | None
    devices: int


def circumstances(device: DeviceObservation, fleet: FleetObservation) -> Circumstances:
    """Return what holds for a device now."""
    edge = fleet.edge
    return Circumstances(device.uplink_bps, device.uplink_known, edge.workers, edge.utilisation, len(fleet.devices))


def explain(choice: Choice, current: Plan | None, before: Circumstances | None, now: Circumstances) -> str:
    """Return a sentence such as ``uplink fell to 0.9 Mbit/s: heavy 2-bit cut at s2 instead of heavy as webp75
    (predicted 84 ms and 35 mJ instead of 310 ms and 12 mJ)``."""
    causes = _causes(choice, current, before, now)
    text = f"{', '.join(causes)}: {plan_words(choice.plan)}"
    if current is not None and current != choice.plan:
        text += f" instead of {plan_words(current)}"
    if choice.predicted is not None:
        text += f" (predicted {_figures(choice.predicted)}"
        text += f" instead of {_figures(choice.staying)})" if choice.staying is not None else ")"
    if not now.uplink_known and not choice.plan.is_local:
        text += f"; the uplink is not measured yet, {rate_words(now.uplink_bps)} assumed"
    return text


def _causes(choice: Choice, current: Plan | None, before: Circumstances | None, now: Circumstances) -> list[str]:
    if current is None:
        first = "first decision" if choice.predicted else "first decision, no profile of this class of device"
        return [first, choice.reason] if choice.fallback else [first]
    causes = [choice.reason] if choice.fallback else []
    causes += _changes(before, now) if before is not None else []
    if choice.refused:
        causes.append(choice.refused)
    return causes or [choice.reason]


def _changes(before: Circumstances, now: Circumstances) -> list[str]:
    causes = []
    if now.uplink_known and not before.uplink_known:
        causes.append(f"uplink measured at {rate_words(now.uplink_bps)}")
    elif now.uplink_bps * RATE_CHANGED < before.uplink_bps:
        causes.append(f"uplink fell to {rate_words(now.uplink_bps)}")
    elif now.uplink_bps > before.uplink_bps * RATE_CHANGED:
        causes.append(f"uplink rose to {rate_words(now.uplink_bps)}")
    if now.workers != before.workers:
        causes.append(f"edge workers now {now.workers}, were {before.workers}")
    was, busy = before.utilisation or 0.0, now.utilisation or 0.0
    if abs(busy - was) > BUSIER:
        causes.append(f"edge {'up' if busy > was else 'down'} to {100 * busy:.0f} % busy")
    if now.devices != before.devices:
        causes.append(f"devices now {now.devices}, were {before.devices}")
    return causes


def _figures(prediction: Prediction) -> str:
    return f"{ms_words(prediction.latency_ms)} and {prediction.energy_mj:.0f} mJ"
