"""What an operator wants of each device: weights, deadline, privacy, battery, a fixed plan; by file and by message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace

from policy.baselines import FixedPlans
from policy.errors import PolicyError
from policy.interface import Weights
from policy.registry import policy_names
from wire.plan import Plan, parse_plan

DEFAULTS = "defaults"
"""The name in a message that means every device."""
MAX_RULES = 10_000
MOST_TRIAL_S = 86_400.0
"""A day: every hour has then been tried once."""


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
    battery_wh: float | None = None
    """What the battery holds when full."""
    battery_hours: float | None = None
    """How long a charge must last, from when this was set or from the last charging."""

    def __post_init__(self) -> None:
        if self.deadline_ms is not None and not 1 <= self.deadline_ms <= 600_000:  # what devices accept
            raise PolicyError(f"deadline_ms = {self.deadline_ms:g}: allowed is 1 to 600,000")
        if self.battery_floor is not None and not 0 <= self.battery_floor <= 1:
            raise PolicyError(f"battery_floor = {self.battery_floor:g}: allowed is 0 to 1")
        for what in ("battery_wh", "battery_hours"):
            figure = getattr(self, what)
            if figure is not None and not 0 < figure <= 100_000:
                raise PolicyError(f"{what} = {figure:g}: allowed is above 0 to 100,000")
        self.fixed_plan()

    def fixed_plan(self) -> Plan | None:
        """Return the plan named, if any; raises ``PolicyError``."""
        try:
            return None if self.plan is None else parse_plan(self.plan)
        except ValueError as error:
            raise PolicyError(f"plan = {error}") from error


@dataclass(frozen=True, slots=True)
class Trial:
    """Another policy than the service's own, for a while; two that differ in their end alone are one, heard twice."""

    policy: str
    for_s: float
    rev: int
    at_ms: int
    """When it was asked for, by the operator's clock."""
    until_s: float = field(default=0.0, compare=False)
    """When it ends, by our monotonic clock."""

    def __post_init__(self) -> None:
        if self.policy not in policy_names():
            raise PolicyError(f"policy = '{self.policy}': allowed are {', '.join(policy_names())}")
        if not 0 < self.for_s <= MOST_TRIAL_S:
            raise PolicyError(f"policy_for_s = {self.for_s:g}: allowed is above 0 to {MOST_TRIAL_S:,.0f} (a day)")


@dataclass(frozen=True)
class SiteRules:
    """The defaults and what differs by device; ``over`` (of messages) goes before both."""

    defaults: DeviceRules = field(default_factory=DeviceRules)
    devices: Mapping[str, DeviceRules] = field(default_factory=dict)
    over: SiteRules | None = None

    def of(self, name: str) -> DeviceRules:
        """Return the rules of one device, everything filled in."""
        rules = _upon(self.defaults, self.devices.get(name))
        return rules if self.over is None else _upon(_upon(rules, self.over.defaults), self.over.devices.get(name))

    def fixed_plans(self) -> FixedPlans:
        """Return the plans named for policy ``fixed``."""
        own = {name: rules.fixed_plan() for name, rules in self.devices.items()}
        default = self.defaults.fixed_plan()
        if self.over is not None:
            told = self.over.fixed_plans()
            own = dict(told.devices) if told.default else own | dict(told.devices)
            default = told.default or default
        return FixedPlans(default, {name: plan for name, plan in own.items() if plan})

    def plans(self) -> set[Plan]:
        """Return every plan that is named."""
        named = self.fixed_plans()
        return set(named.devices.values()) | ({named.default} if named.default else set())


def _upon(rules: DeviceRules, own: DeviceRules | None) -> DeviceRules:
    if own is None:
        return rules
    told = {f.name: getattr(own, f.name) for f in fields(own) if getattr(own, f.name) is not None}
    return replace(rules, **told)


class RuleBook:
    """The rules of the file, and over them those of messages. Refuses what cannot be followed and keeps what was."""

    def __init__(self, file: SiteRules, known: Callable[[Plan], bool]) -> None:
        """``known`` says whether the catalog has a plan. Raises ``PolicyError`` where it lacks one of the file's."""
        self.rules = file
        self.trial: Trial | None = None
        """What the message for ``DEFAULTS`` asks for, its time over or not."""
        self._file = file
        self._known = known
        self._told: dict[str, tuple[int, DeviceRules]] = {}
        self._unseen: set[str] = set()
        self._put(file, {})

    def refile(self, file: SiteRules) -> bool:
        """Take in the file, read anew; return whether anything changed. Raises ``PolicyError``: nothing did."""
        return self._put(file, self._told)

    def tell(
        self,
        name: str,
        rev: int,
        rules: DeviceRules,
        trial: Trial | None = None,
        check: Callable[[SiteRules], None] = lambda _: None,
    ) -> bool:
        """Take in a message for a device or for ``DEFAULTS``; return whether anything changed.

        A trial that is heard again keeps the end it had. ``check`` may refuse the site's rules as they would then be.

        Raises ``PolicyError`` for rules that cannot be followed: those before stay. An older ``rev`` changes nothing.
        """
        held = self._told.get(name)
        is_first = name in self._unseen  # since we connected: what the broker shows is the truth
        if held is not None and rev < held[0] and not is_first:
            return False
        if held is None and len(self._told) >= MAX_RULES:
            raise PolicyError(f"rules of {name}: there are {MAX_RULES} already, clear some")
        self._unseen.discard(name)
        changed = name == DEFAULTS and trial != self.trial
        told = self._put(self._file, {**self._told, name: (rev, rules)}, check)
        if changed:
            self.trial = trial
        return told or changed

    def refused(self, name: str, *, private: bool) -> bool:
        """A message for a name was refused: those before stay. Return whether anything changed.

        ``private``: it forbade pictures, and that holds whatever else is wrong with it, since after a restart it is
        all that the broker has of that name.
        """
        self._unseen.discard(name)
        held = self._told.get(name)
        if not private or (held is None and len(self._told) >= MAX_RULES):
            return False
        rev, rules = held or (0, DeviceRules())
        return self._put(self._file, {**self._told, name: (rev, replace(rules, may_ship_input=False))})

    def clear(self, name: str) -> bool:
        """Forget what messages said of a name; return whether there was anything."""
        return self._drop({name})

    def connected(self) -> None:
        """A connection begins: the broker will show every message that still holds."""
        self._unseen = set(self._told)

    def settled(self) -> bool:
        """Forget what the broker has not shown since, as it was cleared meanwhile; return whether anything changed."""
        gone, self._unseen = self._unseen, set()
        return self._drop(gone)

    def _drop(self, gone: set[str]) -> bool:
        changed = DEFAULTS in gone and self.trial is not None
        if changed:
            self.trial = None
        left = {name: told for name, told in self._told.items() if name not in gone}
        return self._put(self._file, left) or changed

    def _put(
        self,
        file: SiteRules,
        told: dict[str, tuple[int, DeviceRules]],
        check: Callable[[SiteRules], None] = lambda _: None,
    ) -> bool:
        over = SiteRules(
            told[DEFAULTS][1] if DEFAULTS in told else DeviceRules(),
            {name: rules for name, (_, rules) in told.items() if name != DEFAULTS},
        )
        rules = replace(file, over=over if told else None)
        # Each on its own: a plan hidden by a rule above it would come to light when that rule is cleared.
        strange = sorted(str(plan) for plan in file.plans() | over.plans() if not self._known(plan))
        if strange:
            raise PolicyError(f"the catalog has no plan {', '.join(strange)}")
        check(rules)
        changed = rules != self.rules
        self.rules, self._file, self._told = rules, file, told
        return changed
