"""What the decision service says beside its decisions: how it fares, and what a shadow would have decided."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from policy.parts import Parts
from policy.shadow import Comparison
from wire import messages as m

MOST_PLANS = 16
MOST_DEVICES = 200
"""Per message."""


def state_message(parts: Parts, spent_ms: Sequence[float], collapse: str, period_ms: float) -> m.PolicyState:
    """Return how the service fared over a period; the caller fills in its own figures.

    ``spent_ms``: times of the rounds; the reasons of fallbacks are taken.
    """
    asked = parts.trial.chosen.name
    last, mix, told = parts.decider.last, parts.monitor.mix(), parts.decider.plans()
    names = Counter(choice.policy or asked for choice in last.choices.values()) if last else Counter()
    devices = [device.name for device in last.fleet.devices] if last else []
    now = Counter(told[name] for name in devices if name in told)
    return m.PolicyState(
        session=0,
        at_ms=0,
        period_ms=period_ms,
        policy=asked,
        deciding=names.most_common(1)[0][0] if names else asked,
        devices=len(devices),
        decisions=0,
        fallback=_reasons(parts),
        plans=tuple(m.PlanShare(plan, now[plan], share) for plan, share in mix.plans[:MOST_PLANS]),
        entropy=mix.entropy,
        entropy_share=mix.entropy_share,
        switches_per_minute=mix.switches_per_minute,
        collapsed=bool(collapse),
        collapse=collapse,
        decide_ms_mean=sum(spent_ms) / len(spent_ms) if spent_ms else 0.0,
        decide_ms_max=max(spent_ms, default=0.0),
        weights=parts.trial.chosen.weights,
        edge_calibration=parts.fleet.calibration.factor,
    )


def _reasons(parts: Parts) -> Mapping[str, int]:
    told = Counter(parts.acting.take_reasons())
    told.update(parts.trial.guest.take_reasons() if parts.trial.guest else {})
    told.update(parts.promoting.take_reasons() if parts.promoting else {})
    return told


def shadow_messages(rows: Sequence[Comparison], acting: str, shadow: str, at_ms: int) -> Iterator[m.Shadow]:
    """Yield messages of at most ``MOST_DEVICES`` devices."""
    for start in range(0, len(rows), MOST_DEVICES):
        part = rows[start : start + MOST_DEVICES]
        plans = tuple(dict.fromkeys(plan for row in part for plan in (row.acting_plan, row.shadow_plan)))
        index = {plan: i for i, plan in enumerate(plans)}
        compared = tuple(
            m.Compared(
                row.device,
                index[row.acting_plan],
                index[row.shadow_plan],
                _sendable(row.acting_reward),
                _sendable(row.shadow_reward),
            )
            for row in part
        )
        yield m.Shadow(at_ms, acting, shadow, plans, compared)


def _sendable(reward: float | None) -> float | None:
    return reward if reward is not None and math.isfinite(reward) else None
