"""Which plans devices were told and did not follow, and for how long they are not told them again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from wire.plan import Plan

PATIENCE_S = 10.0
"""A device that goes on reporting an older revision for so long refuses the newer one."""
MASKED_S = 60.0


@dataclass(slots=True)
class _Told:
    rev: int
    plan: Plan
    behind_s: float | None = None
    """When the device first reported an older revision since."""


class Refusals:
    """Watches the revisions that devices report. Time in seconds, monotonic."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._told: dict[str, _Told] = {}
        self._masked: dict[str, dict[Plan, float]] = {}

    def told(self, device: str, rev: int, plan: Plan) -> None:
        """A device was told, or told again."""
        self._told[device] = _Told(rev, plan)

    def follows(self, device: str, rev: int, now_s: float) -> None:
        """A device reports the revision it follows."""
        told = self._told.get(device)
        if told is None:
            return
        if rev >= told.rev:
            del self._told[device]
        elif told.behind_s is None:
            told.behind_s = now_s
        elif now_s - told.behind_s > PATIENCE_S:
            del self._told[device]
            self._masked.setdefault(device, {})[told.plan] = now_s + MASKED_S
            self._counters["device_refuses_plan"] += 1

    def plans(self, now_s: float) -> Mapping[str, frozenset[Plan]]:
        """Return the plans not to be told now, by device."""
        for device, plans in list(self._masked.items()):
            left = {plan: until_s for plan, until_s in plans.items() if until_s > now_s}
            if left:
                self._masked[device] = left
            else:
                del self._masked[device]
        return {device: frozenset(plans) for device, plans in self._masked.items()}
