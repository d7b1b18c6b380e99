"""A promotion as the service lives it: two sets of weights decide, and each device follows those of its group."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from policy.choosing import Chosen
from policy.errors import PolicyError
from policy.interface import Choice, FleetObservation, Policy
from policy.promotion import Event
from policy.promotion_desk import PromotionDesk
from policy.rules import SiteRules
from policy.site_rewards import RewardFeed

log = logging.getLogger(__name__)


class Promoting:
    """A policy made of the incumbent and, while one is tried, a candidate; ``turn`` does what time brings.

    Both decide for the whole site: a device's plan is chosen for everybody's sum under either. The candidate decides
    before any device follows it, so that its memory is warm and that weights which fail harm nobody.
    """

    def __init__(
        self,
        acting: Chosen,
        candidate: Callable[[Path], Chosen],
        desk: PromotionDesk,
        feed: RewardFeed,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``candidate`` makes a guarded policy of the same kind with the weights of a file; ``clock``: Unix time."""
        self.name = acting.name
        self.desk = desk
        self.counters: Counter[str] = Counter()
        self._acting = acting
        self._make = candidate
        self._feed = feed
        self._clock = clock
        self._incumbent: str | None = None
        self._tried: tuple[str, Chosen] | None = None
        self._feed_problem = ""

    @property
    def problems(self) -> list[str]:
        """What is wrong now, in words."""
        return [problem for problem in (self.desk.problem, self._feed_problem) if problem]

    def follow(self, rules: SiteRules) -> None:
        """Measure rewards by new rules."""
        self._feed.known = dataclasses.replace(self._feed.known, rules=rules)

    def pass_over(self) -> None:
        """Forget what was measured until now: another policy decided."""
        self._feed.pass_over(self._clock())

    def turn(self, monotonic_s: float) -> list[Event]:
        """Hand over measured rewards, let the promotion go on, load what it names; return what happened.

        Raises nothing: a store or folder that cannot be used is counted, told among ``problems``, and tried again.
        """
        now_s, events = self._clock(), []
        self._feed_problem = ""
        try:
            for told in self._feed.new(now_s):
                self.desk.promotion.observe(told.at_s, told.device, told.reward, told.frames)
        except PolicyError as error:
            self.counters["promotion_feed_errors"] += 1
            self._feed_problem = str(error)
        try:
            events += self.desk.turn(now_s)
            events += self._load(now_s, monotonic_s)
        except OSError as error:
            self.counters["promotion_folder_errors"] += 1
            self._feed_problem = f"the promotion's folder: {error}"
        return events

    def decide(self, fleet: FleetObservation, rng: np.random.Generator) -> Mapping[str, Choice]:
        """Return each device's choice by its own group's weights."""
        choices = _policy(self._acting).decide(fleet, rng)
        if self._tried is None or not fleet.devices:
            return choices
        name, chosen = self._tried
        others = _policy(chosen).decide(fleet, rng)
        return {
            device: _named(others[device], f"{self.name} candidate {name}")
            if self.desk.promotion.is_promoted(device)
            else choice
            for device, choice in choices.items()
        }

    def all_counters(self) -> Counter[str]:
        """Return what was counted so far."""
        tried = self._tried[1].counters() if self._tried else Counter()
        return self.counters + Counter({f"candidate_{name}": count for name, count in tried.items()})

    def take_reasons(self) -> Mapping[str, int]:
        """Return the device rounds of the candidate's fallback by reason, since this was last asked."""
        return self._tried[1].take_reasons() if self._tried else {}

    def _load(self, now_s: float, monotonic_s: float) -> list[Event]:
        """Make what decides agree with what the promotion says; weights that cannot be used step back."""
        promotion, events = self.desk.promotion, []
        wanted = promotion.candidate if promotion.in_progress else None
        if wanted != (self._tried[0] if self._tried else None):
            self._tried = (wanted, self._make(self.desk.weights(wanted))) if wanted else None
        if self._tried is not None:
            name, chosen = self._tried
            chosen.refresh(monotonic_s)
            fails = chosen.counters()["policy_errors"]
            why = chosen.problem or ("its policy fails: the log says how" if fails else "")
            if why:
                events.append(self.desk.unusable(now_s, f"{name}: {why}"))
                self._tried = None
        if promotion.incumbent != self._incumbent:
            self._point(promotion.incumbent, monotonic_s)
        if self._incumbent is not None and self._acting.problem and not promotion.in_progress:
            events.append(self.desk.unusable(now_s, f"{self._incumbent}: {self._acting.problem}"))
            self._point(promotion.incumbent, monotonic_s)
        return events

    def _point(self, incumbent: str | None, monotonic_s: float) -> None:
        self._incumbent = incumbent
        self._acting.use_file(self.desk.weights(incumbent) if incumbent else None)
        self._acting.refresh(monotonic_s)


def _policy(chosen: Chosen) -> Policy:
    assert chosen.policy is not None, "what acts is guarded"
    return chosen.policy


def _named(choice: Choice, name: str) -> Choice:
    return choice if choice.policy else dataclasses.replace(choice, policy=name)
