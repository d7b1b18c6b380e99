"""Which plan the board follows: the safe one, the one decided last, or a new decision; and what it refuses."""

from __future__ import annotations

import json
import logging
from collections import Counter

from device_client.engine import Engine
from device_client.ledger import Ledger
from device_client.settings import MAX_DEADLINE_MS, MIN_DEADLINE_MS, DeviceSettings
from tflite_models.catalog import Catalog, CatalogError, ModelsError
from wire.errors import WireError
from wire.messages import Decision
from wire.plan import NO_CODEC, OUTPUT, Plan, parse_plan
from wire.settings import SettingsError

log = logging.getLogger(__name__)

MEMORY = "decision"
MAX_REV = 2**53
"""No site decides as often: following a larger one, this board would be deaf to all that come after."""


class Following:
    """The plan, its decision's ``rev`` (0: nobody decided yet) and the deadline of frames.

    While a version is on trial, its frames run whole here, whatever is decided: an edge need not have its tails yet.
    """

    def __init__(self, settings: DeviceSettings, catalog: Catalog, engine: Engine) -> None:
        """Choose and load the safe plan; raises ``SettingsError`` or ``CatalogError`` when none can run."""
        self._settings = settings
        self._engine = engine
        self._decided = self._safe_plan(catalog)
        self._trial: Plan | None = None
        self.rev = 0
        self.deadline_ms = settings.deadline_ms

    @property
    def plan(self) -> Plan:
        """What the next frame follows."""
        return self._trial or self._decided

    @property
    def trial(self) -> Plan | None:
        """The plan of the version on trial."""
        return self._trial

    def renew(self, catalog: Catalog, trial: str | None) -> None:
        """Go by the engine's new catalog, and try a version out; raises ``ModelsError``, ``WireError`` where it cannot.

        A decided plan that cannot be followed any more gives way to the safe one; the decision's ``rev`` stays, so that
        a newer one is listened to.
        """
        self._trial = None
        if self._why_not(self._decided, self.deadline_ms) is not None:
            self._decided = self._safe_plan(catalog)
        if trial is not None:
            self._safe_plan(catalog)  # what the next start begins with must still be there
            plan = Plan(trial, OUTPUT, NO_CODEC)
            problem = self._why_not(plan, self.deadline_ms)
            if problem is not None:
                raise CatalogError(f"{trial} cannot serve here: {problem}")
            self._trial = plan

    def recall(self, ledger: Ledger) -> None:
        """Go on with the decision of the last session, where this board still can."""
        kept = ledger.recall(MEMORY)
        if kept is None:
            return
        rev, plan_text, deadline_ms = json.loads(kept)
        plan = parse_plan(plan_text)
        problem = self._why_not(plan, deadline_ms)
        if problem is None:
            self._decided, self.rev, self.deadline_ms = plan, rev, deadline_ms
        else:
            log.warning("decision %d of the last session (%s) is dropped: %s", rev, plan, problem)

    def decide(self, decision: Decision, ledger: Ledger, counters: Counter[str]) -> None:
        """Follow a decision from the next frame on and remember it, or count why not."""
        if decision.rev <= self.rev:
            counters["decisions_stale"] += decision.rev < self.rev
            return
        absurd = f"no site decides as often as {decision.rev} times" if decision.rev > MAX_REV else None
        problem = absurd or self._why_not(decision.plan, decision.deadline_ms)
        if problem:
            counters["decisions_refused"] += 1
            log.warning("decision %d (%s) refused: %s", decision.rev, decision.plan, problem)
            return
        if decision.plan != self._decided:
            counters["plan_switches"] += 1
            log.info("decision %d: %s (%s)", decision.rev, decision.plan, decision.reason)
        self._decided, self.rev, self.deadline_ms = decision.plan, decision.rev, decision.deadline_ms
        ledger.remember(MEMORY, json.dumps([self.rev, str(self._decided), self.deadline_ms]))

    def _safe_plan(self, catalog: Catalog) -> Plan:
        """Return the plan for a board that nobody tells what to do: the one set, else the smallest version, whole."""
        if self._settings.safe_plan is not None:
            plan = parse_plan(self._settings.safe_plan)
            problem = self._why_not(plan, self._settings.deadline_ms)
            if problem:
                raise SettingsError(f"safe_plan = '{plan}' cannot run here: {problem}")
            return plan
        problems = []
        for version in sorted(catalog, key=lambda version: version.macs):
            plan = Plan(version.name, OUTPUT, NO_CODEC)
            problem = self._why_not(plan, self._settings.deadline_ms)
            if problem is None:
                return plan
            problems.append(problem)
        raise CatalogError(f"no version in {self._settings.models} can run here: {'; '.join(problems)}")

    def _why_not(self, plan: Plan, deadline_ms: float) -> str | None:
        """Load all that a plan needs; return why this board cannot or must not follow it, or ``None``."""
        if plan.ships_input and not self._settings.may_ship_input:
            return "the picture must not leave this board"
        if not MIN_DEADLINE_MS <= deadline_ms <= MAX_DEADLINE_MS:
            return f"deadline_ms is {deadline_ms}, allowed is {MIN_DEADLINE_MS} to {MAX_DEADLINE_MS}"
        problem = self._engine.check(plan)
        if problem is None:
            try:
                self._engine.prepare(plan)
            except (ModelsError, WireError) as error:
                return str(error)
        return problem
