"""One step of the decision service without a broker: what no message and no full link may do to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from policy.baselines import Greedy
from policy.costs import CostModel
from policy.errors import PolicyError
from policy.guard import FALLBACK
from policy.interface import Choice, FleetObservation, Policy
from policy.parts import Parts, assemble
from policy.registry import LEARNED, NeedsWeights
from policy.rules import DeviceRules
from policy.service import HEARD, PolicySettings, Service
from tests.policy.builders import HEAVY_S2, LIGHT_LOCAL, small_catalog
from tests.policy.test_fleet import FACTS, MODEL, SHA, profile_of
from wire import channels
from wire import messages as m
from wire.codec import decode, encode
from wire.link import Connected, Disconnected, Received
from wire.plan import Plan

M = TypeVar("M")


class Link:
    """Keeps what is published; refuses it while ``full``."""

    def __init__(self) -> None:
        self.full = False
        self.said: list[tuple[str, Any]] = []

    @property
    def decisions(self) -> list[m.Decision]:
        return [message for _, message in self.said if isinstance(message, m.Decision)]

    def last(self, kind: type[M]) -> M:
        return next(message for _, message in reversed(self.said) if isinstance(message, kind))

    def publish(self, where: str, payload: bytes, **_: Any) -> int | None:
        if self.full:
            return None
        address = channels.parse_topic(where)
        self.said.append((address.name, decode(address.channel, payload)))
        return len(self.said)


def parts_of(settings: PolicySettings, file: Path | None = None) -> Parts:
    """The parts with one device and one worker, as messages would make them."""
    parts = assemble(settings, MODEL, small_catalog(), profile_of, file)
    parts.fleet.sha256 = SHA
    parts.fleet.device_facts("cam", FACTS)
    parts.fleet.device_state("cam", 1, ready=True)
    parts.fleet.worker_state("w", 1, 1, SHA, 0.0, ready=True)
    return parts


def service(link: Link, counters: Counter[str] | None = None, file: Path | None = None, **more: Any) -> Service:
    settings = PolicySettings("s", "models", "profiles", "edge", **more)
    return Service(settings, parts_of(settings, file), link.publish, counters or Counter())


def said(channel: channels.Channel, name: str, message: object | None) -> Received:
    payload = b"" if message is None else encode(channel, message)
    return Received(channels.topic("s", name, channel), payload, 0, retained=channel.retained)


CONNECTED = Connected(False, 2**20)


def telemetry(decision_rev: int, at_s: float = 0.0) -> Received:
    told = m.Telemetry(1, 1, 0, LIGHT_LOCAL, decision_rev, 2.0, 0, 0, uplink_bps=8e6)
    where = channels.topic("s", "cam", channels.TELEMETRY)
    return Received(where, encode(channels.TELEMETRY, told), int(at_s * 1e9), retained=False)


def run(link: Link, running: Service, *seconds: float) -> None:
    """Step through these times; the device reports just before each that it follows the last decision."""
    for now_s in seconds:
        rev = link.decisions[-1].rev if link.decisions else 0
        running.step([telemetry(rev, now_s - 0.1)], now_s)


@pytest.mark.parametrize("decision_rev", [2**63 - 1, 2**53, -(2**63)])
def test_no_revision_a_device_claims_ends_the_service(decision_rev: int) -> None:
    link = Link()
    running = service(link)
    running.step([Connected(False, 2**20), telemetry(decision_rev)], 0.0)
    running.step([], 1.0)
    assert len(link.decisions) == 1


def test_a_decision_that_a_full_link_refuses_is_told_in_the_next_round() -> None:
    link = Link()
    running = service(link)
    link.full = True
    running.step([Connected(False, 2**20)], 0.0)
    running.step([], 1.0)
    assert not link.decisions
    link.full = False
    running.step([], 3.0)
    assert [decision.rev for decision in link.decisions] == [1]


class Racing(Counter[str]):
    """A counter to which another thread adds while it is walked through."""

    def items(self) -> Any:
        return self._walk(super().items())

    def _walk(self, items: Iterable[tuple[str, int]]) -> Iterable[tuple[str, int]]:
        for item in items:
            self[f"new-{len(self)}"] = 1
            yield item


def test_the_link_may_count_while_the_counters_are_told() -> None:
    service(Link(), Racing(sent=1)).summarise()


def rules(link: Link, running: Service, name: str, message: m.Rules | None, now_s: float) -> m.PolicyState:
    """Send rules and return what the service says of itself some seconds later."""
    running.step([said(channels.RULES, name, message)], now_s)
    run(link, running, *(now_s + later_s for later_s in (0.5, 1.5, 3.0, 6.0, 7.0)))
    return link.last(m.PolicyState)


def test_rules_by_message_hold_at_once_and_until_they_are_cleared() -> None:
    link = Link()
    running = service(link)
    running.step([CONNECTED], 0.0)
    running.step([], 1.0)
    assert link.decisions[-1].deadline_ms == 400.0
    assert link.decisions[-1].plan.ships_input
    rules(link, running, "cam", m.Rules(1, deadline_ms=350.0, may_ship_input=False), 2.0)
    assert (link.decisions[-1].deadline_ms, link.decisions[-1].plan.ships_input) == (350.0, False)
    state = rules(link, running, "defaults", m.Rules(1, deadline_ms=300.0), 10.0)
    assert link.decisions[-1].deadline_ms == 350.0
    assert state.problems == () and state.counters["rules_changed"] == 2
    rules(link, running, "cam", None, 20.0)
    assert link.decisions[-1].deadline_ms == 300.0


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (m.Rules(2, weights=(0.5, 0.1, 0.1)), "must sum to 1"),
        (m.Rules(2, deadline_ms=-4.0), "deadline_ms = -4"),
        (m.Rules(2, plan=Plan("heavy", "s9", "q2")), "the catalog has no plan heavy/s9/q2"),
    ],
)
def test_rules_that_cannot_be_are_refused_told_and_those_before_stay(bad: m.Rules, words: str) -> None:
    link = Link()
    running = service(link)
    running.step([CONNECTED], 0.0)
    rules(link, running, "cam", m.Rules(1, deadline_ms=350.0), 1.0)
    state = rules(link, running, "cam", bad, 10.0)
    assert any(words in problem for problem in state.problems)
    assert state.counters["rules_refused"] == 1
    assert link.decisions[-1].deadline_ms == 350.0
    running.step([], 20.0)
    assert link.last(m.PolicyState).problems == (), "told once"


def test_rules_cleared_while_we_were_away_hold_no_more_but_only_after_a_while() -> None:
    link = Link()
    running = service(link)
    running.step([CONNECTED], 0.0)
    rules(link, running, "cam", m.Rules(1, deadline_ms=350.0), 1.0)
    running.step([Disconnected("test"), CONNECTED], 20.0)
    run(link, running, 24.0)
    assert link.decisions[-1].deadline_ms == 350.0
    run(link, running, 25.1, 26.2)
    assert link.decisions[-1].deadline_ms == 400.0


def test_a_connection_that_ends_before_the_rules_are_shown_clears_none() -> None:
    link = Link()
    running = service(link)
    running.step([CONNECTED], 0.0)
    rules(link, running, "cam", m.Rules(1, may_ship_input=False), 1.0)
    running.step([CONNECTED], 20.0)
    running.step([Disconnected("test")], 21.0)
    running.step([], 26.0)
    running.step([CONNECTED], 27.0)
    run(link, running, 27.5, 28.6)
    assert not any(decision.plan.ships_input for decision in link.decisions[1:])


BAD = m.Rules(2, may_ship_input=False, plan=Plan("heavy", "s9", "q2"))


def test_pictures_stay_where_a_refused_message_forbids_them() -> None:
    link = Link()
    running = service(link)
    running.step([CONNECTED, said(channels.RULES, "cam", BAD)], 0.0)
    run(link, running, 1.0, 2.0)
    assert link.decisions and not any(decision.plan.ships_input for decision in link.decisions)


@pytest.mark.parametrize("bad", [BAD, m.Rules(2, weights=(0.5, 0.1, 0.1))])
def test_rules_before_a_refused_message_stay_through_a_new_connection(bad: m.Rules) -> None:
    link = Link()
    running = service(link)
    running.step([CONNECTED], 0.0)
    rules(link, running, "cam", m.Rules(1, deadline_ms=350.0), 1.0)
    rules(link, running, "cam", bad, 10.0)
    running.step([Disconnected("test"), CONNECTED, said(channels.RULES, "cam", bad)], 20.0)
    run(link, running, 21.0, 26.0, 27.0)
    assert link.decisions[-1].deadline_ms == 350.0


def test_a_private_rule_holds_for_a_device_of_which_nothing_fresh_is_known() -> None:
    link = Link()
    running = service(link)
    running.step([CONNECTED], 0.0)
    running.step([], 1.0)
    assert link.decisions[-1].plan.ships_input
    running.step([said(channels.RULES, "cam", m.Rules(1, may_ship_input=False))], 60.0)
    running.step([], 61.0)
    assert not link.decisions[-1].plan.ships_input


def test_the_broker_shows_rules_before_the_devices_they_are_for() -> None:
    assert HEARD[0] is channels.RULES


def test_a_plan_set_by_message_is_followed_under_fixed() -> None:
    link = Link()
    running = service(link, policy="fixed", defaults=DeviceRules(plan=str(LIGHT_LOCAL)))
    running.step([CONNECTED], 0.0)
    running.step([], 1.0)
    assert link.decisions[-1].plan == LIGHT_LOCAL
    rules(link, running, "cam", m.Rules(1, plan=HEAVY_S2), 2.0)
    assert link.decisions[-1].plan == HEAVY_S2
    rules(link, running, "cam", None, 20.0)
    assert link.decisions[-1].plan == LIGHT_LOCAL


def test_the_rules_of_the_file_are_taken_anew_and_a_broken_file_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = 'site = "s"\nmodels = "models"\nprofiles = "profiles"\nedge_profile = "edge"\n'
    file = tmp_path / "policy.toml"
    file.write_text(base)
    link = Link()
    running = service(link, file=file)
    running.step([CONNECTED], 0.0)
    running.step([], 1.0)
    for number, (text, deadline_ms, problem) in enumerate(
        [
            ("[devices.cam]\ndeadline_ms = 250", 250.0, ""),
            ("[devices.cam]\ndeadline_ms = 0", 250.0, "deadline_ms = 0: allowed is 1 to 600,000"),
            ("[devices.cam\n", 250.0, "is not TOML"),
            ("[defaults.weights]\naccuracy = 0.9", 250.0, "must sum to 1"),
            ('[defaults]\nplan = "heavy/s9/q2"', 250.0, "the catalog has no plan heavy/s9/q2"),
            ("period_s = 3\n[devices.cam]\ndeadline_ms = 260", 260.0, ""),
        ],
        start=1,
    ):
        file.write_text(base + text)
        run(link, running, 10.0 * number, 10.0 * number + 1.5, 10.0 * number + 7.0)
        assert link.decisions[-1].deadline_ms == deadline_ms, text
        assert problem in caplog.text
        told = " ".join(
            problem for _, state in link.said if isinstance(state, m.PolicyState) for problem in state.problems
        )
        assert problem in told
    assert "all but [defaults] and [devices] is taken at the next start" in caplog.text


class Broken:
    """Decides as the best for each, or fails."""

    name = "broken"
    fails = False

    def decide(self, seen: FleetObservation, rng: np.random.Generator) -> Mapping[str, Choice]:
        if self.fails:
            raise ZeroDivisionError("no idea")
        return Greedy(MODEL).decide(seen, rng)


def test_a_policy_that_fails_leaves_the_last_decisions_and_the_service_alive() -> None:
    link, broken = Link(), Broken()
    running = service(link)
    running._parts.decider.act_by(broken)
    running.step([CONNECTED], 0.0)
    running.step([], 1.0)
    assert len(link.decisions) == 1
    broken.fails = True
    run(link, running, *range(2, 10))
    assert len(link.decisions) == 1
    assert link.last(m.PolicyState).counters["decide_errors"] >= 1
    broken.fails = False
    running.step([said(channels.RULES, "cam", m.Rules(1, deadline_ms=111.0))], 11.0)
    run(link, running, 12.0)
    assert link.decisions[-1].deadline_ms == 111.0


def test_a_learned_policy_without_weights_is_replaced_visibly_until_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(model: CostModel, path: Path) -> Policy:
        if path.read_text() != "good":
            raise PolicyError("weights of another shape")
        return Greedy(model)

    weights = tmp_path / "weights"
    weights.write_text("bad")
    monkeypatch.setitem(LEARNED, "learned", NeedsWeights(weights, load))
    link = Link()
    running = service(link, policy="learned")
    running.step([CONNECTED], 0.0)
    run(link, running, 1.0)
    assert link.decisions[0].policy == FALLBACK
    assert f"fallback to {FALLBACK}: weights of another shape" in link.decisions[0].reason
    run(link, running, 5.5)
    state = link.last(m.PolicyState)
    assert (state.policy, state.deciding, state.weights) == ("learned", FALLBACK, "")
    assert state.fallback["weights of another shape"] == state.counters["fallback_no_weights"] > 0
    assert state.problems == ("weights of another shape",)
    weights.write_text("good")
    run(link, running, *range(6, 17))
    state = link.last(m.PolicyState)
    assert (state.deciding, state.fallback, state.problems) == ("learned", {}, ())
    assert len(state.weights) == 12


def test_a_shadow_is_told_after_what_acts_and_harms_nothing() -> None:
    link = Link()
    running = service(link, shadow="local", shadow_period_s=1.0)
    running.step([CONNECTED], 0.0)
    running.step([], 1.0)
    kinds = [type(message).__name__ for _, message in link.said]
    assert kinds == ["Decision", "Shadow"]
    told = link.last(m.Shadow)
    assert (told.acting, told.shadow, [one.device for one in told.devices]) == ("a2c", "local", ["cam"])
    assert told.plans[told.devices[0].acting_plan] == link.decisions[0].plan
    assert told.plans[told.devices[0].shadow_plan].is_local
    shadow, broken = running._parts.shadow, Broken()
    assert shadow is not None and running._parts.watching is not None
    broken.fails = True
    running._parts.watching.policy = broken
    link.said.clear()
    run(link, running, *range(2, 8))
    assert not any(isinstance(message, m.Shadow) for _, message in link.said)
    assert link.last(m.PolicyState).counters["shadow_errors"] >= 4


def test_an_empty_site_is_told_as_such() -> None:
    link = Link()
    settings = PolicySettings("s", "models", "profiles", "edge", shadow="local")
    parts = assemble(settings, MODEL, small_catalog(), profile_of)
    running = Service(settings, parts, link.publish, Counter())
    running.step([CONNECTED], 0.0)
    for second in range(1, 7):
        running.step([], float(second))
    state = link.last(m.PolicyState)
    assert (state.devices, state.plans, state.deciding, state.collapsed) == (0, (), "a2c", False)
    assert not any(name.endswith("_errors") for name in state.counters)


def test_the_mix_of_plans_is_told() -> None:
    link = Link()
    running = service(link)
    running.step([CONNECTED], 0.0)
    run(link, running, *range(1, 7))
    state = link.last(m.PolicyState)
    assert state.plans == (m.PlanShare(link.decisions[-1].plan, 1, 1.0),)
    assert (state.devices, state.decisions, state.policy) == (1, 1, "a2c")
    assert state.decide_ms_max >= state.decide_ms_mean > 0


def capabilities(session: int, **sha256: str) -> Received:
    versions = tuple(m.CachedVersion(name, sha) for name, sha in sha256.items())
    told = m.Capabilities(
        session, "0.1", "board", "board", "tflite-runtime 2.14.0", 4, 1000, versions, tuple(FACTS.codecs),
        m.EnergySource.MODELLED, 2.0, 400.0,
    )  # fmt: skip
    return said(channels.CAPABILITIES, "cam", told)


def test_a_device_whose_version_was_replaced_is_told_another() -> None:
    """A roll-out gives a device another file under the same name: plans of the old one are not told to it any more."""
    link = Link()
    running = service(link, policy="greedy")
    running.step([CONNECTED], 0.0)
    run(link, running, 1.0, 2.0, 3.0)
    told, before = list(link.decisions), link.decisions[-1]
    replaced = {**SHA, before.plan.version: "of a roll-out"}
    running.step([capabilities(1, **replaced)], 3.5)
    run(link, running, 4.0, 5.0, 6.0, 7.0, 8.0)
    after = link.decisions[len(told) :]
    assert after and all(d.plan.version != before.plan.version and d.rev > before.rev for d in after)
