"""What an operator wants of each device: weights, deadline, privacy, battery floor, a fixed plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from policy.baselines import FixedPlans
from policy.errors import PolicyError
from policy.interface import Weights
from wire.plan import Plan, parse_plan


@dataclass(frozen=True, slots=True)
class DeviceRules:
    """One table of the settings; ``None`` leaves it to the defaults, and those leave it to the device."""

    weights: Weights | None = None
    deadline_ms: float | None = None
    may_ship_input: bool | None = None
    """The device's own wish is kept too: a picture leaves it only if both allow it."""
    battery_floor: float | None = None
    plan: str | None = None
    """For policy ``fixed``."""

    def __post_init__(self) -> None:
        if self.deadline_ms is not None and not 1 <= self.deadline_ms <= 600_000:  # what devices accept
            raise PolicyError(f"deadline_ms = {self.deadline_ms:g}: allowed is 1 to 600,000")
        if self.battery_floor is not None and not 0 <= self.battery_floor <= 1:
            raise PolicyError(f"battery_floor = {self.battery_floor:g}: allowed is 0 to 1")
        self.fixed_plan()

    def fixed_plan(self) -> Plan | None:
        """Return the plan named, if any; raises ``PolicyError``."""
        try:
            return None if self.plan is None else parse_plan(self.plan)
        except ValueError as error:
            raise PolicyError(f"plan = {error}") from error


@dataclass(frozen=True)
class SiteRules:
    """The defaults and what differs by device."""

    defaults: DeviceRules = field(default_factory=DeviceRules)
    devices: Mapping[str, DeviceRules] = field(default_factory=dict)

    def of(self, name: str) -> DeviceRules:
        """Return the rules of one device, defaults filled in."""
        own = self.devices.get(name)
        if own is None:
            return self.defaults
        told = {f.name: getattr(own, f.name) for f in fields(own) if getattr(own, f.name) is not None}
        return replace(self.defaults, **told)

    def fixed_plans(self) -> FixedPlans:
        """Return the plans named for policy ``fixed``."""
        named = {name: rules.fixed_plan() for name, rules in self.devices.items()}
        return FixedPlans(self.defaults.fixed_plan(), {name: plan for name, plan in named.items() if plan})
