"""Every policy by name: those that learn nothing, and those that need weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from policy.baselines import Fixed, FixedPlans, Greedy, Local, Remote, Sequential
from policy.costs import CostModel
from policy.errors import PolicyError
from policy.interface import Policy
from policy.learned import WEIGHTS, Learned, Pricing, load_learned

DEFAULT = Learned.name
"""Decides where settings name no policy."""
POLICIES: Mapping[str, Callable[[CostModel, FixedPlans], Policy]] = {
    "fixed": Fixed,
    "local": lambda model, _: Local(model),
    "remote": lambda model, _: Remote(model),
    "greedy": lambda model, _: Greedy(model),
    "sequential": lambda model, _: Sequential(model),
    "pricing": lambda model, _: Pricing(model),
}


@dataclass(frozen=True, slots=True)
class NeedsWeights:
    """A policy that needs weights."""

    shipped: Path
    """Its weights where the settings name none."""
    load: Callable[[CostModel, Path], Policy]
    """Raises ``PolicyError`` for a file that cannot be used."""


LEARNED: dict[str, NeedsWeights] = {Learned.name: NeedsWeights(WEIGHTS, load_learned)}
"""By name, beside ``POLICIES``."""


def policy_names() -> tuple[str, ...]:
    """Return every name that settings may ask for."""
    return (*POLICIES, *LEARNED)


def make_policy(name: str, model: CostModel, fixed: FixedPlans) -> Policy:
    """Return the policy of that name, a learned one with the weights it came with.

    Raises ``PolicyError`` for a name that is none, naming those there are, and for weights that cannot be used.
    """
    if name in LEARNED:
        return LEARNED[name].load(model, LEARNED[name].shipped)
    if name not in POLICIES:
        raise PolicyError(f"no policy '{name}': there are {', '.join(policy_names())}")
    return POLICIES[name](model, fixed)
