"""The decision service's settings file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from policy.errors import PolicyError
from policy.fleet import Limits
from policy.guard import GuardSettings
from policy.hysteresis import Hysteresis
from policy.monitor import MonitorSettings
from policy.registry import DEFAULT, LEARNED, policy_names
from policy.rules import DeviceRules, SiteRules
from wire.channels import check_name
from wire.exposition import PrometheusSettings
from wire.link import LinkSettings


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """Which site, by what measurements, by which policy. ``defaults`` and ``devices`` may change while it runs."""

    site: str
    models: str
    """Folder of model folders."""
    profiles: str
    """Folder of ``<device class>.json``."""
    edge_profile: str
    name: str = "policy"
    policy: str = DEFAULT
    weights: str = ""
    """File of a learned policy's weights; empty: those it came with. A new one there is swapped in."""
    promotion: str = ""
    """Folder of staged promotions (splitfleet policy promote); empty: none."""
    store: str = ""
    """The recorder's SQLite file, from which a promotion takes measured rewards."""
    shadow: str = ""
    """A policy that only watches; empty: none."""
    shadow_weights: str = ""
    shadow_period_s: float = 5.0
    """Between two comparisons of the acting policy with the shadow."""
    state_period_s: float = 5.0
    """Between two messages of the service about itself."""
    period_s: float = 1.0
    seed: int = 0
    log_level: str = "INFO"
    link: LinkSettings = field(default_factory=LinkSettings)
    hysteresis: Hysteresis = field(default_factory=Hysteresis)
    limits: Limits = field(default_factory=Limits)
    guard: GuardSettings = field(default_factory=GuardSettings)
    monitor: MonitorSettings = field(default_factory=MonitorSettings)
    defaults: DeviceRules = field(default_factory=DeviceRules)
    devices: Mapping[str, DeviceRules] = field(default_factory=dict)
    prometheus: PrometheusSettings | None = None
    """Where Prometheus finds the service; left out: nowhere."""

    def __post_init__(self) -> None:
        check_name(self.site, "site")
        check_name(self.name, "name")
        for key in ("policy", "shadow"):
            name = getattr(self, key)
            if name not in policy_names() and (name or key == "policy"):
                raise PolicyError(f"{key} = '{name}': allowed are {', '.join(policy_names())}")
        if self.shadow_weights and not self.shadow:
            raise PolicyError(f"shadow_weights = '{self.shadow_weights}': name the policy they are for as shadow")
        if bool(self.promotion) != bool(self.store):
            raise PolicyError("promotion and store go together: the folder of promotions, and the recorder's file")
        if self.promotion and self.policy not in LEARNED:
            raise PolicyError(f"promotion = '{self.promotion}': policy '{self.policy}' has no weights to promote")
        for key in ("period_s", "shadow_period_s", "state_period_s"):
            if not 0.05 <= getattr(self, key) <= 3600:
                raise PolicyError(f"{key} = {getattr(self, key):g}: allowed is 0.05 to 3600")
        if self.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise PolicyError(f"log_level = '{self.log_level}': allowed are DEBUG, INFO, WARNING, ERROR")

    @property
    def rules(self) -> SiteRules:
        """The rules of the file."""
        return SiteRules(self.defaults, self.devices)
