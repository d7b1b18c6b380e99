"""A promotion under a running service: who decides for whom, and what brings devices back."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from policy.costs import CostModel
from policy.errors import PolicyError
from policy.hysteresis import Hysteresis
from policy.interface import Choice, FleetObservation, Policy
from policy.parts import assemble
from policy.promotion import Phase, Terms
from policy.promotion_desk import ask_promotion, ask_rollback
from policy.promotion_evidence import BLOCK_S, KNOWN_BLOCKS, LAG_S
from policy.registry import LEARNED, NeedsWeights
from policy.service import PolicySettings, Service
from tests.policy.builders import HEAVY_LOCAL, LIGHT_LOCAL, small_catalog
from tests.policy.recorded import Recording
from tests.policy.test_fleet import FACTS, MODEL, SHA, profile_of
from tests.policy.test_service_steps import CONNECTED, Link, said
from wire import channels
from wire import messages as m
from wire.plan import Plan, parse_plan

NAMES = tuple(f"cam-{i}" for i in range(4))
UNIX_S = 1_700_000_040.0
TERMS = Terms(shares=(0.5, 1.0), margin=0.05, min_frames=1)


class Always:
    """Gives every device one plan; fails where its weights say so."""

    name = "learned"

    def __init__(self, plan: str) -> None:
        self._plan = plan

    def decide(self, seen: FleetObservation, rng: np.random.Generator) -> Mapping[str, Choice]:
        return {d.name: Choice(parse_plan(self._plan), "always", math.inf) for d in seen.devices}


def load(_: CostModel, path: Path) -> Policy:
    with np.load(path, allow_pickle=False) as file:
        if "plan" not in file.files:
            raise PolicyError(f"{path.name} holds no plan")
        return Always(str(file["plan"]))


class Site:
    """Four devices, a service whose incumbent says heavy, and clocks that the test moves."""

    def __init__(self, folder: Path) -> None:
        self.link = Link()
        self.promotion = folder / "promotion"
        settings = PolicySettings(
            "s", "models", "profiles", "edge", policy="learned", promotion=str(self.promotion),
            store=str(folder / "store.sqlite"), hysteresis=Hysteresis(0.0, 0.0),
        )  # fmt: skip
        parts = assemble(settings, MODEL, small_catalog(), profile_of)
        parts.fleet.sha256 = SHA
        for name in NAMES:
            parts.fleet.device_facts(name, FACTS)
            parts.fleet.device_state(name, 1, ready=True)
        assert parts.promoting is not None
        self.promoting = parts.promoting
        self.unix_s = UNIX_S
        self.promoting._clock = lambda: self.unix_s
        self._service = Service(settings, parts, self.link.publish, Counter())
        self._now_s = 0.0
        self._seq = 0
        self._service.step([CONNECTED], 0.0)

    def step(self, minutes: float = 0.0) -> None:
        """A second passes, and by the clock on the wall so many minutes."""
        self._now_s += 1.0
        self._seq += 1
        self.unix_s += minutes * 60
        told = self.revisions()
        heard = [
            said(channels.TELEMETRY, name, m.Telemetry(1, self._seq, 0, LIGHT_LOCAL, told.get(name, 0), 2.0, 0, 0,
                 uplink_bps=8e6))
            for name in NAMES
        ]  # fmt: skip
        heard = [dataclasses.replace(one, arrived_ns=int((self._now_s - 0.1) * 1e9), retained=False) for one in heard]
        self._service.step(list(heard), self._now_s)

    def revisions(self) -> dict[str, int]:
        return {name: one.rev for name, one in self.link.said if isinstance(one, m.Decision)}

    def plans(self) -> dict[str, Plan]:
        return {name: one.plan for name, one in self.link.said if isinstance(one, m.Decision)}

    def deciders(self) -> dict[str, str]:
        return {name: one.policy for name, one in self.link.said if isinstance(one, m.Decision)}

    def minutes(self, count: int, reward: float = 0.5) -> None:
        """Minutes of rewards pass, all alike."""
        for _ in range(count):
            at_s = self.unix_s - LAG_S
            for i, name in enumerate(NAMES):
                self.promoting.desk.promotion.observe(at_s, name, reward + 0.01 * i, 100)
            self.step(minutes=BLOCK_S / 60)

    def try_out(self, weights: Path) -> str:
        """Ask for a promotion and let it reach its first stage; return the candidate's name."""
        name = ask_promotion(self.promotion, weights, TERMS, self.unix_s).candidate
        self.step()
        self.minutes(KNOWN_BLOCKS + 2)
        assert self.promoting.desk.promotion.phase is Phase.STAGE
        return name


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    np.savez(tmp_path / "shipped.npz", plan=str(HEAVY_LOCAL))
    np.savez(tmp_path / "candidate.npz", plan=str(LIGHT_LOCAL))
    Recording(tmp_path / "store.sqlite").close()
    monkeypatch.setitem(LEARNED, "learned", NeedsWeights(tmp_path / "shipped.npz", load))
    return Site(tmp_path)


def test_the_promoted_group_follows_the_candidate_and_a_rollback_returns_it(site: Site, tmp_path: Path) -> None:
    site.step()
    assert site.plans() == dict.fromkeys(NAMES, HEAVY_LOCAL)
    assert set(site.deciders().values()) == {"learned"}
    candidate = site.try_out(tmp_path / "candidate.npz")
    promoted = {name for name in NAMES if site.promoting.desk.promotion.is_promoted(name)}
    assert len(promoted) == 2
    site.step()
    assert site.plans() == {name: LIGHT_LOCAL if name in promoted else HEAVY_LOCAL for name in NAMES}
    assert {site.deciders()[name] for name in promoted} == {f"learned candidate {candidate}"}
    ask_rollback(site.promotion, "cameras moved", site.unix_s)
    site.step()
    assert site.plans() == dict.fromkeys(NAMES, HEAVY_LOCAL)
    assert set(site.deciders().values()) == {"learned"}


def test_nobody_follows_a_candidate_before_its_first_stage(site: Site, tmp_path: Path) -> None:
    ask_promotion(site.promotion, tmp_path / "candidate.npz", TERMS, site.unix_s)
    site.step()
    site.minutes(5)
    assert site.promoting.desk.promotion.phase is Phase.BASELINE
    assert site.plans() == dict.fromkeys(NAMES, HEAVY_LOCAL)


def test_a_promoted_candidate_acts_for_all_also_after_a_restart_and_is_taken_back(site: Site, tmp_path: Path) -> None:
    site.try_out(tmp_path / "candidate.npz")
    promotion = site.promoting.desk.promotion
    for _ in range(300):
        if promotion.phase is Phase.PROMOTED:
            break
        site.minutes(1)
    assert promotion.phase is Phase.PROMOTED
    site.step()
    assert site.plans() == dict.fromkeys(NAMES, LIGHT_LOCAL)
    again = Site(tmp_path)
    again.step()
    assert again.plans() == dict.fromkeys(NAMES, LIGHT_LOCAL)
    ask_rollback(again.promotion, "", again.unix_s)
    again.step()
    again.step()
    assert again.plans() == dict.fromkeys(NAMES, HEAVY_LOCAL)


def test_weights_that_cannot_be_used_end_the_promotion_before_anybody_follows(site: Site, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", layer=np.ones(3))
    ask_promotion(site.promotion, tmp_path / "other.npz", TERMS, site.unix_s)
    site.step()
    promotion = site.promoting.desk.promotion
    assert promotion.phase is Phase.ROLLED_BACK and "holds no plan" in promotion.reason
    site.step()
    assert site.plans() == dict.fromkeys(NAMES, HEAVY_LOCAL)


def test_a_candidate_that_fails_ends_the_promotion_and_harms_nobody(site: Site, tmp_path: Path) -> None:
    np.savez(tmp_path / "failing.npz", plan="no plan at all")
    ask_promotion(site.promotion, tmp_path / "failing.npz", TERMS, site.unix_s)
    for _ in range(3):
        site.step()
    promotion = site.promoting.desk.promotion
    assert promotion.phase is Phase.ROLLED_BACK and "its policy fails" in promotion.reason
    assert site.plans() == dict.fromkeys(NAMES, HEAVY_LOCAL)


def test_a_store_that_cannot_be_read_is_told_and_decisions_go_on(site: Site, tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").unlink()
    for _ in range(7):
        site.step(minutes=1.0)
    state = site.link.last(m.PolicyState)
    assert state.counters["promotion_feed_errors"] >= 5
    assert any("store.sqlite" in problem for problem in state.problems)
    assert site.plans() == dict.fromkeys(NAMES, HEAVY_LOCAL)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"promotion": "folder"}, "go together"),
        ({"store": "store.sqlite"}, "go together"),
        ({"promotion": "folder", "store": "store.sqlite", "policy": "greedy"}, "no weights to promote"),
    ],
)
def test_settings_that_make_no_promotion_are_refused(told: dict[str, str], words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        PolicySettings("s", "models", "profiles", "edge", **told)  # type: ignore[arg-type]


def ask_trial(site: Site, rev: int = 1, for_s: float = 20.0) -> None:
    wish = m.Rules(rev, policy="local", policy_for_s=for_s, at_ms=round(1000 * site.unix_s))
    heard = said(channels.RULES, "defaults", wish)
    site._service.step([dataclasses.replace(heard, arrived_ns=int(site._now_s * 1e9), retained=False)], site._now_s)


def test_no_policy_is_tried_while_a_promotion_is_in_progress(site: Site, tmp_path: Path) -> None:
    site.step()
    candidate = site.try_out(tmp_path / "candidate.npz")
    ask_trial(site)
    for _ in range(6):
        site.step()
    states = [one for _, one in site.link.said if isinstance(one, m.PolicyState)]
    assert {state.policy for state in states} == {"learned"}
    problems = " ".join(problem for state in states for problem in state.problems)
    assert f"policy = 'local': the promotion of {candidate} is in progress" in problems
    assert f"learned candidate {candidate}" in site.deciders().values()


def test_a_promotion_asked_for_during_a_trial_waits_and_is_not_judged_by_its_rewards(
    site: Site, tmp_path: Path
) -> None:
    site.step()
    ask_trial(site)
    site.step()
    assert set(site.deciders().values()) == {"local"}
    ask_promotion(site.promotion, tmp_path / "candidate.npz", TERMS, site.unix_s)
    for _ in range(10):
        site.step(minutes=1.0)
    phases = [site.promoting.desk.promotion.phase]
    for _ in range(10):
        site.step(minutes=1.0)
    phases.append(site.promoting.desk.promotion.phase)
    assert phases == [Phase.IDLE, Phase.BASELINE]
    assert set(site.deciders().values()) == {"learned"}
    first_s = (site.promoting._feed._next or 0) * BLOCK_S
    assert first_s > UNIX_S + 19 * 60, "what was measured during the trial is passed over"
