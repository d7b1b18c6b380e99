"""When a wanted plan is worth a switch, so that noise does not make devices flap."""

from __future__ import annotations

import math
from dataclasses import dataclass

from policy.errors import PolicyError
from policy.interface import Choice
from wire.plan import Plan


@dataclass(frozen=True, slots=True)
class Hysteresis:
    """Switch for a gain, after a while; at once where staying is no option."""

    min_gain: float = 0.03
    """Least predicted gain in reward."""
    min_dwell_s: float = 5.0
    """Least time between two switches of one device."""

    def __post_init__(self) -> None:
        if self.min_gain < 0 or self.min_dwell_s < 0:
            raise PolicyError(
                f"hysteresis min_gain = {self.min_gain:g}, min_dwell_s = {self.min_dwell_s:g}: none may be negative"
            )

    def switches(self, choice: Choice, current: Plan | None, held_s: float) -> bool:
        """Whether a device that has followed ``current`` for ``held_s`` seconds is told the choice."""
        if current == choice.plan:
            return False
        if current is None or math.isinf(choice.gain):
            return True
        return choice.gain > self.min_gain and held_s >= self.min_dwell_s
