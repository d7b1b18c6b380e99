"""The references by name, in the order of tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from policy.references.agent import Agent
from policy.references.alone import Greedy, LinUCB
from policy.references.coordinated import Pricing, PricingPerFrame, Sequential
from policy.references.fixed import LocalHeavy, LocalLight, Random, Remote
from policy.references.hindsight import BestStatic, OracleBattery
from policy.references.oracles import OracleClairvoyant, OracleObserved

REFERENCES: Mapping[str, Callable[[], Agent]] = {
    "random": Random,
    "local_light": LocalLight,
    "local_heavy": LocalHeavy,
    "remote_raw": lambda: Remote("remote_raw", ("raw8",)),
    "remote_jpeg": lambda: Remote("remote_jpeg", ("jpeg75", "raw8")),
    "remote_webp": lambda: Remote("remote_webp", ("webp75", "webp50", "jpeg75")),
    "best_static": BestStatic,
    "greedy": Greedy,
    "linucb": LinUCB,
    "sequential": Sequential,
    "pricing": Pricing,
    "pricing_per_frame": PricingPerFrame,
    "oracle_observed": OracleObserved,
    "oracle_clairvoyant": OracleClairvoyant,
    "oracle_battery": OracleBattery,
}
BATTERY_ONLY = frozenset({"pricing_per_frame", "oracle_battery"})
"""On mains these do what their neighbours do."""
