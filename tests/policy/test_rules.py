"""Rules of file and messages: which one holds, and what is refused without touching what was."""

from __future__ import annotations

import pytest

from policy.errors import PolicyError
from policy.hearing import rules_of
from policy.interface import Weights
from policy.rules import DEFAULTS, DeviceRules, RuleBook, SiteRules
from tests.policy.builders import HEAVY_S2, HEAVY_WEBP, LIGHT_LOCAL, small_model
from wire import messages as m
from wire.plan import Plan

KNOWN = small_model().table.index.__contains__
FILE = SiteRules(DeviceRules(deadline_ms=100.0, battery_floor=0.1), {"cam": DeviceRules(deadline_ms=200.0)})


def book() -> RuleBook:
    return RuleBook(FILE, KNOWN)


def deadlines(rules: RuleBook) -> tuple[float | None, float | None]:
    return rules.rules.of("cam").deadline_ms, rules.rules.of("dog").deadline_ms


def test_a_message_goes_before_the_file_and_the_device_before_the_defaults_within_each() -> None:
    rules = book()
    assert deadlines(rules) == (200.0, 100.0)
    assert rules.tell(DEFAULTS, 1, DeviceRules(deadline_ms=300.0))
    assert deadlines(rules) == (300.0, 300.0)
    assert rules.tell("cam", 1, DeviceRules(deadline_ms=400.0))
    assert deadlines(rules) == (400.0, 300.0)
    assert rules.rules.of("cam").battery_floor == 0.1, "what a message leaves out is the file's"
    assert rules.clear("cam") and not rules.clear("cam")
    assert deadlines(rules) == (300.0, 300.0)
    assert rules.clear(DEFAULTS)
    assert deadlines(rules) == (200.0, 100.0)


def test_an_older_revision_changes_nothing_and_the_same_one_again_neither() -> None:
    rules = book()
    assert rules.tell("cam", 5, DeviceRules(deadline_ms=400.0))
    assert not rules.tell("cam", 4, DeviceRules(deadline_ms=500.0))
    assert not rules.tell("cam", 5, DeviceRules(deadline_ms=400.0))
    assert deadlines(rules)[0] == 400.0
    rules.clear("cam")
    assert rules.tell("cam", 1, DeviceRules(deadline_ms=500.0)), "after clearing, numbers begin anew"


def test_the_file_read_anew_stays_below_the_messages() -> None:
    rules = book()
    rules.tell("cam", 1, DeviceRules(deadline_ms=400.0))
    assert rules.refile(SiteRules(DeviceRules(deadline_ms=111.0)))
    assert not rules.refile(SiteRules(DeviceRules(deadline_ms=111.0)))
    assert deadlines(rules) == (400.0, 111.0)
    rules.clear("cam")
    assert deadlines(rules) == (111.0, 111.0)


def test_what_was_cleared_while_we_were_away_is_forgotten() -> None:
    rules = book()
    rules.tell("cam", 1, DeviceRules(deadline_ms=400.0))
    rules.tell("dog", 1, DeviceRules(deadline_ms=500.0))
    rules.connected()
    rules.tell("dog", 1, DeviceRules(deadline_ms=500.0))
    assert deadlines(rules) == (400.0, 500.0)
    assert rules.settled()
    assert deadlines(rules) == (200.0, 500.0)
    rules.tell("cam", 7, DeviceRules(deadline_ms=400.0))
    rules.connected()
    assert rules.tell("cam", 1, DeviceRules(deadline_ms=600.0)), "cleared and set anew meanwhile"
    assert not rules.settled() or deadlines(rules) == (600.0, 100.0)


def test_a_plan_the_catalog_lacks_is_refused_and_nothing_changes() -> None:
    rules, strange = book(), DeviceRules(plan="heavy/s9/q2")
    with pytest.raises(PolicyError, match="the catalog has no plan heavy/s9/q2"):
        rules.tell("cam", 1, strange)
    with pytest.raises(PolicyError, match="the catalog has no plan heavy/s9/q2"):
        rules.refile(SiteRules(strange))
    assert rules.rules.of("cam") == FILE.of("cam")
    assert rules.tell("cam", 1, DeviceRules(deadline_ms=400.0))


def test_there_is_an_end_to_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policy.rules.MAX_RULES", 2)
    rules = book()
    rules.tell("a", 1, DeviceRules())
    rules.tell("b", 1, DeviceRules())
    with pytest.raises(PolicyError, match="clear some"):
        rules.tell("c", 1, DeviceRules())
    rules.tell("a", 2, DeviceRules(deadline_ms=5.0))


@pytest.mark.parametrize(
    ("told", "default", "own", "plans"),
    [
        (SiteRules(), str(HEAVY_S2), "", (HEAVY_S2, HEAVY_S2)),
        (SiteRules(), str(HEAVY_S2), str(LIGHT_LOCAL), (LIGHT_LOCAL, HEAVY_S2)),
        (SiteRules(DeviceRules(plan=str(HEAVY_WEBP))), str(HEAVY_S2), str(LIGHT_LOCAL), (HEAVY_WEBP, HEAVY_WEBP)),
        (SiteRules(devices={"cam": DeviceRules(plan=str(HEAVY_WEBP))}), str(HEAVY_S2), "", (HEAVY_WEBP, HEAVY_S2)),
    ],
)
def test_fixed_plans_follow_the_same_order(told: SiteRules, default: str, own: str, plans: tuple[Plan, Plan]) -> None:
    devices = {"cam": DeviceRules(plan=own)} if own else {}
    site = SiteRules(DeviceRules(plan=default), devices, over=told)
    named = site.fixed_plans()
    assert (named.of("cam"), named.of("dog")) == plans


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (m.Rules(1, weights=(0.5, 0.4, 0.3)), "must sum to 1"),
        (m.Rules(1, weights=(1.5, -0.5, 0.0)), "none may be negative"),
        (m.Rules(1, weights=(1.0,)), "weights has 1 numbers"),
        (m.Rules(1, deadline_ms=0.0), "deadline_ms = 0"),
        (m.Rules(1, battery_floor=2.0), "battery_floor = 2"),
        (m.Rules(1, battery_wh=0.0), "battery_wh = 0: allowed is above 0"),
        (m.Rules(1, battery_hours=-1.0), "battery_hours = -1"),
        (m.Rules(1, plan=Plan("", "a", "b")), "is not a plan"),
    ],
)
def test_a_message_that_cannot_be_followed_is_refused_in_words(told: m.Rules, words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        rules_of(told)


def test_a_message_says_everything_a_file_can() -> None:
    told = m.Rules(1, (0.5, 0.25, 0.25), 250.0, False, 0.2, HEAVY_S2, 37.0, 24.0)
    assert rules_of(told) == DeviceRules(Weights(0.5, 0.25, 0.25), 250.0, False, 0.2, str(HEAVY_S2), 37.0, 24.0)
    assert rules_of(m.Rules(1)) == DeviceRules()


def test_a_file_whose_plan_the_catalog_lacks_is_refused_at_once_and_not_with_the_next_message() -> None:
    with pytest.raises(PolicyError, match="the catalog has no plan heavy/s9/q2"):
        RuleBook(SiteRules(DeviceRules(plan="heavy/s9/q2")), KNOWN)


def test_a_plan_the_catalog_lacks_cannot_hide_below_a_message_and_come_to_light_when_that_is_cleared() -> None:
    rules = book()
    rules.tell(DEFAULTS, 1, DeviceRules(plan=str(LIGHT_LOCAL)))
    with pytest.raises(PolicyError, match="the catalog has no plan heavy/s9/q2"):
        rules.refile(SiteRules(devices={"cam": DeviceRules(plan="heavy/s9/q2")}))
    assert rules.clear(DEFAULTS)
