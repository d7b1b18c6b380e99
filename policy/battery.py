"""What is left of a battery, and for how long it must last."""

from __future__ import annotations

MJ_PER_WH = 3.6e6
RECHARGED = 0.05
"""A rise of the share of charge from its lowest that means charging: the time to last begins anew."""


class Charge:
    """One device's battery. Time in seconds, monotonic."""

    def __init__(self) -> None:
        self.share: float | None = None
        """Last measured share of charge."""
        self._lowest = 1.0
        self._hours: float | None = None
        self._since_s = 0.0

    def measured(self, share: float | None, now_s: float) -> None:
        """Take in a share of charge; ``None`` leaves the last one."""
        if share is None:
            return
        self.share = share
        if share > self._lowest + RECHARGED:
            self._since_s, self._lowest = now_s, share
        self._lowest = min(self._lowest, share)

    def asked(self, hours: float | None, now_s: float) -> None:
        """Take in how long a charge must last; the time begins when that changes."""
        if hours != self._hours:
            self._hours, self._since_s = hours, now_s

    def left_mj(self, capacity_wh: float | None) -> float | None:
        """Return the energy left; ``None`` where share or capacity is not known."""
        return None if self.share is None or capacity_wh is None else self.share * capacity_wh * MJ_PER_WH

    def horizon_s(self, now_s: float) -> float | None:
        """Return how long the charge must still last; ``None``: nobody asked, or the time is over."""
        if self._hours is None:
            return None
        left_s = self._hours * 3600 - (now_s - self._since_s)
        return left_s if left_s > 0 else None
