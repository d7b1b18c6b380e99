"""When a wanted plan is worth a switch, so that noise does not make devices flap."""

from __future__ import annotations

import math
from dataclasses import dataclass

from policy.errors import PolicyError
from policy.interface import Choice
from wire.plan import Plan

MAX_RESTLESS = 4
CALM = 2.0
"""A device that held its plan for so many dwell times is not restless."""


@dataclass(frozen=True, slots=True)
class Hysteresis:
    """Switch for a gain, after a while; at once where staying is no option.

    A link around the rate at which a plan just meets its deadline drives a device from it at once, again and again;
    so each switch that follows soon upon another doubles the time until the next one for a gain.
    """

    min_gain: float = 0.03
    """Least predicted gain in reward."""
    min_dwell_s: float = 5.0
    """Least time between two switches of one device; up to 16 times as long for a restless one."""

    def __post_init__(self) -> None:
        if self.min_gain < 0 or self.min_dwell_s < 0:
            raise PolicyError(
                f"hysteresis min_gain = {self.min_gain:g}, min_dwell_s = {self.min_dwell_s:g}: none may be negative"
            )

    def switches(self, choice: Choice, current: Plan | None, held_s: float, restless: int = 0) -> bool:
        """Whether a device that has followed ``current`` for ``held_s`` seconds is told the choice."""
        if current == choice.plan:
            return False
        if current is None or math.isinf(choice.gain):
            return True
        return choice.gain > self.min_gain and held_s >= self._dwell_s(restless)

    def restless_after(self, held_s: float, restless: int) -> int:
        """Return how restless a device is that switches after ``held_s`` seconds."""
        return 0 if held_s > CALM * self._dwell_s(restless) else min(restless + 1, MAX_RESTLESS)

    def _dwell_s(self, restless: int) -> float:
        return self.min_dwell_s * 2.0**restless
