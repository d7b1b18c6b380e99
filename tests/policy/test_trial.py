"""A policy on trial: who decides until when, whatever is heard again, and what stays in force meanwhile."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import pytest

from policy.costs import CostModel
from policy.errors import PolicyError
from policy.guard import FALLBACK
from policy.hearing import trial_of
from policy.hysteresis import Hysteresis
from policy.interface import Policy
from policy.registry import LEARNED, NeedsWeights
from policy.rules import DEFAULTS, DeviceRules, RuleBook, SiteRules, Trial
from policy.service import Service
from tests.policy.builders import HEAVY_S2, LIGHT_LOCAL, small_model
from tests.policy.test_service_steps import CONNECTED, Link, run, said, service
from wire import channels
from wire import messages as m
from wire.exposition import Exposition, PrometheusSettings
from wire.link import Disconnected, Received

UNIX_S = 1_700_000_000.0
CALM = Hysteresis(min_gain=0.0, min_dwell_s=0.0)


def asked(policy: str = "local", for_s: float = 10.0, rev: int = 1, at_s: float = UNIX_S, **more: Any) -> m.Rules:
    return m.Rules(rev, policy=policy, policy_for_s=for_s, at_ms=round(1000 * at_s), **more)


def told(message: m.Rules | None, at_s: float, *, retained: bool = False) -> Received:
    payload = said(channels.RULES, DEFAULTS, message).payload
    return Received(channels.topic("s", DEFAULTS, channels.RULES), payload, round(1e9 * at_s), retained)


def started(link: Link, unix_s: float = UNIX_S, **more: Any) -> Service:
    """A service that has decided once, by the second 1; its wall clock stands at ``unix_s``."""
    running = service(link, **{"policy": "remote", "hysteresis": CALM, **more})
    running._hearing._clock = lambda: unix_s
    running.step([CONNECTED], 0.0)
    run(link, running, 1.0)
    return running


def test_another_policy_decides_at_once_says_so_and_gives_way_by_itself() -> None:
    link = Link()
    running = started(link)
    assert link.decisions[-1].plan.ships_input
    running.step([told(asked(for_s=10.0), 2.0)], 2.0)
    decision, state = link.decisions[-1], link.last(m.PolicyState)
    assert (decision.plan.is_local, decision.policy) == (True, "local")
    assert (state.policy, state.deciding) == ("local", "local"), "told with the round, not with the period"
    run(link, running, *range(3, 12))
    assert link.decisions[-1] is decision
    run(link, running, 12.0)
    state = link.last(m.PolicyState)
    assert (link.decisions[-1].policy, state.policy, state.deciding) == ("remote", "remote", "remote")
    assert link.decisions[-1].plan.ships_input


def test_taking_the_rules_back_returns_at_once() -> None:
    link = Link()
    running = started(link)
    running.step([told(asked(), 2.0)], 2.0)
    running.step([told(None, 3.0)], 3.0)
    assert link.decisions[-1].policy == link.last(m.PolicyState).policy == "remote"
    running.step([told(asked(rev=2), 4.0)], 4.0)
    running.step([told(m.Rules(3, deadline_ms=300.0), 5.0)], 5.0)
    assert (link.decisions[-1].policy, link.decisions[-1].deadline_ms) == ("remote", 300.0)


def test_one_trial_follows_another() -> None:
    link = Link()
    running = started(link, policy="greedy")
    running.step([told(asked("local"), 2.0)], 2.0)
    running.step([told(asked("remote", rev=2), 4.0)], 4.0)
    assert (link.decisions[-1].policy, link.decisions[-1].plan.ships_input) == ("remote", True)
    run(link, running, 11.0)
    assert link.last(m.PolicyState).policy == "remote", "the second has ten seconds of its own"
    run(link, running, 14.0)
    assert link.last(m.PolicyState).policy == "greedy"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (asked("magic", rev=2, deadline_ms=300.0), "policy = 'magic': allowed are fixed, local"),
        (asked("fixed", rev=2, deadline_ms=300.0), "policy 'fixed' needs a plan"),
        (asked(for_s=1e6, rev=2, deadline_ms=300.0), "policy_for_s = 1e+06: allowed is above 0 to 86,400"),
        (m.Rules(2, policy="local", deadline_ms=300.0), "policy and policy_for_s go together"),
        (m.Rules(2, policy_for_s=3.0, deadline_ms=300.0), "policy and policy_for_s go together"),
    ],
)
def test_what_cannot_be_tried_is_refused_and_nothing_changes(bad: m.Rules, words: str) -> None:
    link = Link()
    running = started(link)
    running.step([told(asked(for_s=100.0), 2.0)], 2.0)
    running.step([told(bad, 3.0)], 3.0)
    run(link, running, 4.0, 9.0)
    assert any(words in problem for problem in link.last(m.PolicyState).problems)
    assert (link.decisions[-1].policy, link.decisions[-1].deadline_ms) == ("local", 400.0)


def test_one_device_cannot_have_a_policy_of_its_own() -> None:
    with pytest.raises(PolicyError, match="only the rules of every device"):
        trial_of("cam", asked())
    assert trial_of("cam", m.Rules(1)) is None


def test_what_is_heard_again_on_a_new_connection_has_the_end_it_had() -> None:
    link = Link()
    running = started(link)
    running.step([told(asked(), 2.0)], 2.0)
    running.step([Disconnected("test"), CONNECTED, told(asked(), 8.0, retained=True)], 8.0)
    run(link, running, 9.0, 11.0)
    assert link.last(m.PolicyState).policy == "local"
    run(link, running, 12.1)
    assert link.last(m.PolicyState).policy == "remote"
    running.step([Disconnected("test"), CONNECTED, told(asked(), 20.0, retained=True)], 20.0)
    run(link, running, 21.0, 26.5)
    assert link.last(m.PolicyState).policy == "remote", "it is over, and stays over"


@pytest.mark.parametrize(
    ("at_s", "left_s"),
    [
        (UNIX_S - 4.0, 6.0),
        (UNIX_S - 40.0, 0.0),
        (0.0, 0.0),  # nobody knows when it was asked for: it counts as over
        (UNIX_S + 3600.0, 10.0),  # an operator's clock that is ahead gives no more than a whole term
    ],
)
def test_a_restart_does_not_begin_it_anew(at_s: float, left_s: float) -> None:
    link = Link()
    running = started(link)
    running.step([told(asked(at_s=at_s), 2.0, retained=True)], 2.0)
    run(link, running, *(2.5 + 0.5 * i for i in range(40)))
    by = {decision.policy for decision in link.decisions}
    assert by == ({"remote", "local"} if left_s else {"remote"})
    if left_s:
        fresh = started(other := Link())
        fresh.step([told(asked(at_s=at_s), 2.0, retained=True)], 2.0)
        run(other, fresh, 2.0 + left_s - 0.1)
        assert other.last(m.PolicyState).policy == "local"
        run(other, fresh, 2.0 + left_s + 0.2)
        assert other.last(m.PolicyState).policy == "remote"


def test_a_wish_cleared_while_we_were_away_is_over_once_that_is_sure() -> None:
    link = Link()
    running = started(link)
    running.step([told(asked(for_s=1000.0), 2.0)], 2.0)
    running.step([Disconnected("test"), CONNECTED], 20.0)
    run(link, running, 24.0)
    assert link.decisions[-1].policy == "local"
    run(link, running, 25.1)
    assert link.decisions[-1].policy == "remote"


def test_privacy_and_dwell_time_stay_in_force() -> None:
    link = Link()
    running = started(
        link, policy="greedy", hysteresis=Hysteresis(), devices={"cam": DeviceRules(may_ship_input=False)}
    )
    running.step([told(asked("remote"), 2.0)], 2.0)
    run(link, running, *range(3, 11))
    assert not any(decision.plan.ships_input for decision in link.decisions)
    other = Link()
    calm = started(other, policy="greedy", hysteresis=Hysteresis(min_gain=0.0, min_dwell_s=5.0))
    calm.step([told(asked("local", for_s=2.0), 2.0)], 2.0)
    assert other.decisions[-1].plan.is_local
    run(other, calm, 4.1, 5.2, 6.3)
    assert other.last(m.PolicyState).policy == "greedy" and other.decisions[-1].plan.is_local, "held for 5 s"
    run(other, calm, 7.4)
    assert not other.decisions[-1].plan.is_local


def test_a_learned_one_is_tried_behind_its_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: CostModel, path: Path) -> Policy:
        raise PolicyError(f"{path.name} are no weights")

    (tmp_path / "bad").write_text("bad")
    monkeypatch.setitem(LEARNED, "learned", NeedsWeights(tmp_path / "bad", load))
    link = Link()
    running = started(link, policy="local")
    running.step([told(asked("learned", for_s=20.0), 2.0)], 2.0)
    run(link, running, *range(3, 9))
    state = link.last(m.PolicyState)
    assert (state.policy, state.deciding) == ("learned", FALLBACK)
    assert state.fallback["bad are no weights"] > 0 and state.counters["trial_fallback_no_weights"] > 0
    assert "bad are no weights" in state.problems
    assert link.decisions[-1].reason.startswith(f"fallback to {FALLBACK}")


def test_a_plan_and_policy_fixed_in_one_message_go_together_and_later_plans_are_followed() -> None:
    link = Link()
    running = started(link)
    running.step([told(asked("fixed", for_s=100.0, plan=HEAVY_S2), 2.0)], 2.0)
    assert (link.decisions[-1].policy, link.decisions[-1].plan) == ("fixed", HEAVY_S2)
    running.step([told(asked("fixed", for_s=100.0, rev=2, plan=LIGHT_LOCAL), 3.0)], 3.0)
    assert (link.decisions[-1].policy, link.decisions[-1].plan) == ("fixed", LIGHT_LOCAL)
    running.step([told(m.Rules(3, plan=HEAVY_S2), 4.0)], 4.0)
    assert link.decisions[-1].policy == "remote"


def test_trying_the_services_own_policy_keeps_its_weights() -> None:
    link = Link()
    running = started(link, policy="a2c")
    run(link, running, 2.0)
    running.step([told(asked("a2c", for_s=5.0), 3.0)], 3.0)
    assert running._parts.trial.on_trial and running._parts.trial.guest is None


def test_a_book_keeps_the_first_end_of_one_trial_and_takes_another() -> None:
    rules = RuleBook(SiteRules(), small_model().table.index.__contains__)
    first = Trial("local", 10.0, 1, 5, until_s=10.0)
    assert rules.tell(DEFAULTS, 1, DeviceRules(), first)
    assert not rules.tell(DEFAULTS, 1, DeviceRules(), Trial("local", 10.0, 1, 5, until_s=90.0))
    assert rules.trial is first
    with pytest.raises(PolicyError):
        rules.tell(DEFAULTS, 2, DeviceRules(plan="heavy/s9/q2"), Trial("remote", 10.0, 2, 6))
    assert not rules.tell(DEFAULTS, 0, DeviceRules(), None) and rules.trial is first, "an older revision"
    assert rules.tell("cam", 1, DeviceRules(deadline_ms=5.0)) and rules.trial is first
    assert rules.tell(DEFAULTS, 3, DeviceRules()) and rules.trial is None


def test_prometheus_is_shown_what_the_service_says_of_itself() -> None:
    link = Link()
    running = started(link)
    exposition = Exposition(PrometheusSettings(0), "policy", "s", "policy")
    try:
        running.show = exposition.show
        running.step([told(asked(), 2.0)], 2.0)
        with urllib.request.urlopen(f"http://127.0.0.1:{exposition.port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        exposition.close()
    assert 'splitfleet_policy_policy_info{name="policy",policy="local",site="s"} 1.0' in text
    assert 'splitfleet_policy_devices{name="policy",site="s"} 1.0' in text
