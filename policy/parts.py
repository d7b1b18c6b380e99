"""What a decision service is made of, put together from its settings."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from policy.choosing import Chosen
from policy.costs import CostModel
from policy.decider import Decider
from policy.deciding import Deciding
from policy.errors import PolicyError
from policy.fleet import Fleet, ProfileOf
from policy.interface import Policy
from policy.monitor import Monitor
from policy.promoting import Promoting
from policy.promotion_desk import PromotionDesk
from policy.rules import RuleBook, SiteRules
from policy.settings import PolicySettings
from policy.shadow import ShadowPolicy
from policy.site_periods import Knowledge
from policy.site_rewards import RewardFeed
from policy.watching import HotFile
from tflite_models.catalog import Catalog, CatalogError, load_catalog
from tflite_models.profile import ProfileError, load_edge_profile
from wire.settings import load_settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What a service is made of."""

    model: CostModel
    fleet: Fleet
    book: RuleBook
    acting: Chosen
    """The service's own policy."""
    trial: Deciding
    decider: Decider
    monitor: Monitor
    watching: Chosen | None
    promoting: Promoting | None
    shadow: ShadowPolicy | None
    file: HotFile[SiteRules] | None = None
    """The settings file, whose rules are taken anew when it changes."""

    @property
    def deciding(self) -> Policy:
        """What decides in the next round."""
        chosen = self.trial.chosen
        assert chosen.policy is not None, "what acts is guarded"
        return self.promoting if self.promoting is not None and chosen is self.acting else chosen.policy

    def problems(self) -> list[str]:
        """Return what is wrong now, in words; some of them are empty."""
        lasting = [chosen.problem for chosen in (self.acting, self.trial.guest, self.watching) if chosen]
        lasting.append(self.file.problem if self.file else "")
        return lasting + (self.promoting.problems if self.promoting else [])

    def counters(self) -> Counter[str]:
        """Return what the parts have counted so far."""
        told = self.fleet.counters + self.decider.counters + self.acting.counters()
        if self.trial.guest is not None:
            told += Counter({f"trial_{name}": count for name, count in self.trial.guest.counters().items()})
        if self.shadow is not None:
            told += self.shadow.counters
        if self.promoting is not None:
            told += self.promoting.all_counters()
        if self.file is not None:
            told["settings_refused"] += self.file.refused
        return told


def measured(settings: PolicySettings) -> tuple[Catalog, CostModel]:
    """Load catalog and edge profile into a cost model; raises ``PolicyError``."""
    if not Path(settings.profiles).is_dir():
        raise PolicyError(f"profiles = '{settings.profiles}' is not a folder")
    try:
        catalog = load_catalog(Path(settings.models))
        return catalog, CostModel(catalog, load_edge_profile(Path(settings.edge_profile)))
    except (CatalogError, ProfileError) as error:
        raise PolicyError(str(error)) from error


def assemble(
    settings: PolicySettings, model: CostModel, catalog: Catalog, profile_of: ProfileOf, file: Path | None = None
) -> Parts:
    """Put the parts together; raises ``PolicyError`` where a policy cannot be made."""
    rules = settings.rules
    fleet = Fleet(model, {v.name: v.sha256 for v in catalog}, profile_of, rules, settings.limits)
    acting = Chosen(settings.policy, settings.weights, model, rules, settings.guard)
    assert acting.policy is not None, "what acts is guarded"
    promoting = _promoting(settings, model, acting, profile_of) if settings.promotion else None
    watching = Chosen(settings.shadow, settings.shadow_weights, model, rules, None) if settings.shadow else None

    def on_trial(name: str, rules: SiteRules) -> Chosen:
        return Chosen(name, "", model, rules, settings.guard)

    def busy() -> str:
        tried = promoting.desk.promotion if promoting else None
        return f"the promotion of {tried.candidate} is in progress" if tried is not None and tried.in_progress else ""

    def rules_in(path: Path) -> SiteRules:
        new = load_settings(PolicySettings, path)
        if replace(new, defaults=settings.defaults, devices=settings.devices) != settings:
            log.warning("%s: all but [defaults] and [devices] is taken at the next start", path)
        return new.rules

    return Parts(
        model,
        fleet,
        RuleBook(rules, model.table.index.__contains__),
        acting,
        Deciding(acting, on_trial, busy),
        Decider(fleet, promoting or acting.policy, settings.hysteresis),
        Monitor(len(model.table), settings.monitor),
        watching,
        promoting,
        ShadowPolicy(model, watching.policy, settings.seed) if watching else None,
        HotFile(file, rules_in) if file else None,
    )


def _promoting(settings: PolicySettings, model: CostModel, acting: Chosen, profile_of: ProfileOf) -> Promoting:
    feed = RewardFeed(Path(settings.store), Knowledge(model, profile_of, settings.rules), settings.site)

    def candidate(weights: Path) -> Chosen:
        return Chosen(settings.policy, str(weights), model, settings.rules, settings.guard)

    return Promoting(acting, candidate, PromotionDesk(Path(settings.promotion)), feed)
