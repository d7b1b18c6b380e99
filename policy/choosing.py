"""Which policy acts: one that learns nothing, or a learned one behind its guard with weights exchanged as it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from policy.costs import CostModel
from policy.errors import PolicyError
from policy.guard import FALLBACK, Guard, GuardSettings
from policy.interface import Policy
from policy.registry import LEARNED, make_policy
from policy.rules import SiteRules
from policy.watching import HotFile


class Chosen:
    """The policy of a name. A learned one is guarded if it acts (``guard``), and its weights are looked for again."""

    def __init__(
        self, name: str, weights: str, model: CostModel, rules: SiteRules, guard: GuardSettings | None
    ) -> None:
        """Raises ``PolicyError`` for an unknown name or a policy that cannot do without what is missing."""
        self.name = name
        self.policy: Policy | None
        """``None``: learned, not guarded, and nothing is loaded."""
        self.guard: Guard | None = None
        self._model = model
        self._file: HotFile[Policy] | None = None
        learned = LEARNED.get(name)
        if learned is None:
            if weights:
                raise PolicyError(f"weights = '{weights}': policy '{name}' has none")
            self.policy = make_policy(name, model, rules.fixed_plans())
            return
        self.policy = None
        if guard is not None:
            self.policy = self.guard = Guard(name, make_policy(FALLBACK, model, rules.fixed_plans()), model, guard)
        self._load = lambda path: learned.load(model, path)
        self._settled = Path(weights) if weights else learned.shipped
        self._file = HotFile(self._settled, self._load)

    def use_file(self, weights: Path | None) -> None:
        """Decide by the weights of another file from the next ``refresh`` on; ``None``: those of the settings."""
        if self._file is None:
            raise PolicyError(f"policy '{self.name}' has no weights")
        self._file = HotFile(weights or self._settled, self._load)

    def refresh(self, now_s: float) -> bool:
        """Look for new weights if it is time; return whether they are swapped in."""
        if self._file is None:
            return False
        new = self._file.look(now_s)
        if self.guard is None:
            self.policy = self._file.value
        elif new:
            self.guard.use(self._file.value)
        elif self._file.value is None:
            self.guard.use(None, self._file.problem)
        return new

    def follow(self, rules: SiteRules) -> None:
        """Take in new rules, where the policy has them built in; raises ``PolicyError`` and then keeps the old ones."""
        if self.name == "fixed":
            self.policy = make_policy(self.name, self._model, rules.fixed_plans())

    @property
    def problem(self) -> str:
        """Why the weights as they are now are not used; empty when they are."""
        return self._file.problem if self._file else ""

    @property
    def weights(self) -> str:
        """The beginning of the sha256 of the weights in use; empty where there are none."""
        return self._file.sha256[:12] if self._file else ""

    def counters(self) -> Counter[str]:
        """Return what was counted so far."""
        told = Counter(self.guard.counters) if self.guard else Counter()
        if self._file is not None:
            told["weights_loaded"], told["weights_refused"] = self._file.loaded, self._file.refused
        return told

    def take_reasons(self) -> Mapping[str, int]:
        """Return the device rounds of the fallback by reason, since this was last asked."""
        return self.guard.take_reasons() if self.guard else {}
