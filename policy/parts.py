"""What a decision service is made of, put together from its settings."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from policy.choosing import Chosen
from policy.costs import CostModel
from policy.decider import Decider
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
        assert self.acting.policy is not None, "what acts is guarded"
        return self.promoting or self.acting.policy


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
