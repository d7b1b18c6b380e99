"""Watches how varied the plans of a site are, since a policy that has collapsed gives every device the same."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from policy.errors import PolicyError
from wire.plan import Plan

CLEARLY_LESS = 0.2
"""The commonest plan of the reference must have so much less of the devices."""
COVERED = 0.8
"""Share of the window that must have been seen before anything is called collapsed."""


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """When a site's plans count as collapsed."""

    window_s: float = 60.0
    share: float = 0.95
    """Of the commonest plan."""
    least_devices: int = 4

    def __post_init__(self) -> None:
        if not (1 <= self.window_s <= 86_400 and 0.5 < self.share <= 1 and self.least_devices >= 2):
            raise PolicyError(
                f"monitor window_s = {self.window_s:g}, share = {self.share:g}, least_devices = {self.least_devices}: "
                "allowed are 1 to 86,400, above 0.5 to 1, 2 and more"
            )


@dataclass(frozen=True, slots=True)
class Mix:
    """The plans of a site over the window."""

    plans: tuple[tuple[Plan, float], ...]
    """With their shares of device rounds, the commonest first."""
    entropy: float
    """In nats."""
    entropy_share: float
    """Over the entropy of as many plans as there are devices (or plans in the catalog), all alike; 1 for one device."""
    switches_per_minute: float
    """Per device."""

    @property
    def top_share(self) -> float:
        """Share of the commonest plan; 0 where there is none."""
        return self.plans[0][1] if self.plans else 0.0


@dataclass(slots=True)
class _Seen:
    at_s: float
    counts: Counter[Plan]
    switches: int


class Monitor:
    """Holds a sliding window of rounds. Time in seconds, monotonic."""

    def __init__(self, plans: int, settings: MonitorSettings | None = None) -> None:
        """``plans``: how many the catalog has."""
        self._plans = plans
        self._settings = settings or MonitorSettings()
        self._window: deque[_Seen] = deque()
        self._last: Mapping[str, Plan] = {}

    def saw(self, now_s: float, plans: Mapping[str, Plan]) -> None:
        """Take in the plans that the devices follow after a round."""
        switches = sum(1 for name, plan in plans.items() if self._last.get(name, plan) != plan)
        self._last = plans
        self._window.append(_Seen(now_s, Counter(plans.values()), switches))
        while self._window[0].at_s < now_s - self._settings.window_s:
            self._window.popleft()

    def mix(self) -> Mix:
        """Return the figures of the window."""
        total: Counter[Plan] = Counter()
        for seen in self._window:
            total.update(seen.counts)
        rounds = sum(total.values())
        shares = tuple((plan, count / rounds) for plan, count in total.most_common())
        entropy = _entropy(share for _, share in shares)
        most = math.log(max(1, min(len(self._last), self._plans)))
        device_minutes = self._span_s() / 60 * rounds / max(1, len(self._window))
        switches = sum(seen.switches for seen in self._window)
        return Mix(
            shares,
            entropy,
            min(1.0, entropy / most) if most else 1.0,
            switches / device_minutes if device_minutes else 0.0,
        )

    def is_suspect(self) -> bool:
        """Whether nearly all devices had one plan for a window, so that it is worth asking a reference."""
        settings = self._settings
        long_enough = self._span_s() >= COVERED * settings.window_s
        return long_enough and len(self._last) >= settings.least_devices and self.mix().top_share >= settings.share

    def collapse(self, reference: Iterable[Plan]) -> str:
        """Return in words how the plans have collapsed beside those of a reference; empty: they have not."""
        counts = Counter(reference)
        devices = sum(counts.values())
        if not devices or not self.is_suspect():
            return ""
        plan, share = self.mix().plans[0]
        other = max(counts.values()) / devices
        if other > share - CLEARLY_LESS:
            return ""
        return (
            f"{100 * share:.0f} % of {devices} devices follow {plan} for {self._settings.window_s:g} s, "
            f"the fallback would give {len(counts)} plans and no more than {100 * other:.0f} % the same"
        )

    def _span_s(self) -> float:
        return self._window[-1].at_s - self._window[0].at_s if self._window else 0.0


def _entropy(shares: Iterable[float]) -> float:
    return -sum(share * math.log(share) for share in shares if share > 0)
