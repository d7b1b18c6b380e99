"""A candidate is promoted where it does no harm and taken back where it does, through noise and evenings."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.errors import PolicyError
from policy.promotion import Event, Phase, Promotion, Terms
from policy.promotion_evidence import BLOCK_S, KNOWN_BLOCKS, LAG_S, Evidence

START_S = 1_700_000_000.0 // BLOCK_S * BLOCK_S
FAST = Terms(max_stage_s=7_200.0)


@dataclass
class Site:
    """Devices on unequal links whose rewards wander (neighbouring minutes resemble each other) and share an evening."""

    promotion: Promotion
    devices: int
    effect: float
    """Of the candidate on the reward of a device."""
    rng: np.random.Generator
    noise: float = 0.05
    evening: float = 0.0
    """How far rewards fall for all devices, and come back, over two hours."""
    frames: int = 100
    minute: int = 0

    def __post_init__(self) -> None:
        self.usual = self.rng.normal(0.4, 0.15, self.devices)
        self.wander = np.zeros(self.devices)

    def live(self, minutes: int) -> list[Event]:
        """Let time pass until then or until the promotion has ended; return what happened."""
        events = []
        for _ in range(minutes):
            at_s = START_S + self.minute * BLOCK_S
            self.wander = 0.5 * self.wander + math.sqrt(0.75) * self.noise * self.rng.normal(size=self.devices)
            common = -self.evening * math.sin(math.pi * self.minute / 120)
            for i in range(self.devices):
                name = f"cam-{i}"
                acts = self.promotion.is_promoted(name) or self.promotion.incumbent is not None
                reward = self.usual[i] + self.wander[i] + common + self.effect * acts
                self.promotion.observe(at_s + 1, name, float(reward), self.frames)
            self.minute += 1
            event = self.promotion.step(at_s + BLOCK_S + LAG_S)
            events += [event] if event else []
            if self.promotion.phase in (Phase.PROMOTED, Phase.ROLLED_BACK):
                break
        return events

    @property
    def now_s(self) -> float:
        """The end of the last minute."""
        return START_S + self.minute * BLOCK_S + LAG_S


def tried(seed: int, devices: int, effect: float, terms: Terms = FAST, **site: float) -> tuple[Promotion, list[Event]]:
    """Run a promotion at a site that has been observed for an hour, to its end."""
    there = Site(Promotion(), devices, effect, np.random.default_rng(seed), **site)  # type: ignore[arg-type]
    there.live(60)
    there.promotion.begin(there.now_s, f"candidate-{seed}", terms)
    return there.promotion, there.live(60 * 24)


def stages(events: list[Event]) -> list[str]:
    """The percentages that were reached."""
    return [event.text.partition(" goes to ")[2].partition(" %")[0] for event in events if event.kind == "advanced"]


def test_a_candidate_that_changes_nothing_is_hardly_ever_taken_back() -> None:
    ends = Counter(tried(seed, 12, 0.0, evening=0.2)[0].phase for seed in range(30))
    assert ends[Phase.ROLLED_BACK] < 0.05 * 30
    assert sum(ends.values()) == ends[Phase.ROLLED_BACK] + ends[Phase.PROMOTED]


def test_a_harmful_candidate_never_reaches_all_devices() -> None:
    for seed in range(25):
        promotion, events = tried(seed, 12, -0.1, evening=0.2)
        assert promotion.phase is Phase.ROLLED_BACK
        assert stages(events) in (["10"], ["10", "50"])
        assert not any(promotion.is_promoted(f"cam-{i}") for i in range(12))
        assert promotion.incumbent is None


def test_a_good_candidate_is_promoted_soon() -> None:
    for seed in range(10):
        promotion, events = tried(seed, 12, 0.08)
        assert promotion.phase is Phase.PROMOTED
        assert promotion.incumbent == f"candidate-{seed}"
        assert stages(events) == ["10", "50", "100"]
        assert events[-1].at_s - events[0].at_s < 3 * 3600


def test_an_evening_that_all_share_is_no_harm() -> None:
    for seed in range(10):
        promotion, _ = tried(seed, 20, 0.05, evening=0.5)
        assert promotion.phase is Phase.PROMOTED


def test_unequal_groups_are_compared_each_with_its_own_past() -> None:
    site = Site(Promotion(), 10, 0.0, np.random.default_rng(5))
    site.promotion.candidate = "candidate"
    first = min(range(10), key=lambda i: site.promotion._place(f"cam-{i}"))
    site.usual[first] = -0.5  # the first to be promoted is on by far the worst link
    site.live(60)
    site.promotion.begin(site.now_s, "candidate", FAST)
    events = site.live(60 * 24)
    assert events[-1].kind == "promoted", events[-1].text


def test_harm_to_the_last_half_is_seen_against_the_first() -> None:
    site = Site(Promotion(), 12, 0.0, np.random.default_rng(6))
    site.live(60)
    site.promotion.begin(site.now_s, "candidate", FAST)
    while site.promotion.terms.shares[site.promotion.stage] < 1 or site.promotion.phase is not Phase.STAGE:
        assert not [event for event in site.live(1) if event.kind == "rolled_back"]
    early = {i for i in range(12) if site.promotion._place(f"cam-{i}") < site.promotion.threshold_before}
    assert len(early) == 6
    site.usual = np.array([u - (0.15 if i not in early else 0) for i, u in enumerate(site.usual)])
    events = site.live(60 * 24)
    assert events[-1].kind == "rolled_back"
    assert "100 %" in events[-1].text


def test_a_single_device_is_compared_with_its_past_and_that_is_said() -> None:
    promotion, events = tried(1, 1, -0.2)
    assert promotion.phase is Phase.ROLLED_BACK
    assert "there is no comparison group" in promotion.reason
    assert stages(events) == ["100"]
    promotion, _ = tried(1, 1, 0.2)
    assert promotion.phase is Phase.PROMOTED


def test_two_devices_skip_the_stage_that_would_reach_nobody_more() -> None:
    _, events = tried(1, 2, 0.3, noise=0.01)
    assert stages(events) == ["10", "100"]


def test_a_site_that_falls_silent_stalls_and_steps_back() -> None:
    site = Site(Promotion(), 6, 0.0, np.random.default_rng(1))
    site.live(60)
    site.promotion.begin(site.now_s, "candidate", FAST)
    site.live(3)
    assert site.promotion.phase is Phase.STAGE
    site.devices = 0
    site.wander = np.zeros(0)
    (event,) = site.live(60 * 24)
    assert event.kind == "rolled_back"
    assert "stalled: 0 and 0 frames" in event.text
    assert event.at_s - START_S == pytest.approx(63 * 60 + FAST.max_stage_s, abs=300)


def test_a_site_without_any_frames_stalls_too() -> None:
    site = Site(Promotion(), 0, 0.0, np.random.default_rng(1))
    site.promotion.begin(site.now_s, "candidate", FAST)
    (event,) = site.live(60 * 24)
    assert event.kind == "rolled_back" and "stalled" in event.text


def test_seldom_frames_are_not_enough() -> None:
    promotion, _ = tried(1, 10, 0.0, frames=1)
    assert "stalled" in promotion.reason


def test_noise_that_hides_harm_is_not_trusted() -> None:
    promotion, _ = tried(1, 4, 0.0, noise=0.5)
    assert "too noisy to tell" in promotion.reason


def test_baseline_comes_first_and_takes_what_it_needs() -> None:
    site = Site(Promotion(), 6, 0.0, np.random.default_rng(1))
    site.promotion.begin(site.now_s, "candidate", FAST)
    assert site.live(KNOWN_BLOCKS - 1) == []
    assert not any(site.promotion.is_promoted(f"cam-{i}") for i in range(6))
    (event,) = site.live(1)
    assert event.kind == "advanced"


def test_every_stage_lasts_its_least_time() -> None:
    _, events = tried(3, 20, 0.3, noise=0.01)
    times = [event.at_s for event in events]
    assert all(b - a >= FAST.min_period_s for a, b in itertools.pairwise(times))


def test_one_promotion_at_a_time() -> None:
    promotion = Promotion()
    assert promotion.begin(0.0, "one", FAST).kind == "began"
    assert promotion.begin(1.0, "two", FAST).kind == "refused"
    assert promotion.candidate == "one"


def test_rolling_back_by_hand() -> None:
    promotion = Promotion()
    assert promotion.roll_back(0.0, "no reason").kind == "refused"
    promotion.begin(0.0, "one", FAST)
    assert promotion.roll_back(1.0, "cameras moved").kind == "rolled_back"
    assert "cameras moved" in promotion.reason
    assert promotion.begin(2.0, "two", FAST).kind == "began"


def test_a_finished_promotion_can_be_undone() -> None:
    promotion, _ = tried(2, 12, 0.1)
    assert promotion.begin(1e10, promotion.incumbent or "", FAST).kind == "refused"
    assert promotion.roll_back(1e10, "regretted").kind == "rolled_back"
    assert promotion.incumbent is None


def test_a_pause_of_the_service_does_not_count() -> None:
    site = Site(Promotion(), 6, 0.0, np.random.default_rng(1))
    site.live(60)
    site.promotion.begin(site.now_s, "candidate", FAST)
    site.live(5)
    site.minute += 3 * 60
    assert site.live(1) == []
    assert site.promotion.phase is Phase.STAGE


def test_terms_that_cannot_be_are_refused() -> None:
    for shares in ((0.5, 0.1, 1.0), (0.1, 0.5), (), (0.0, 1.0)):
        with pytest.raises(PolicyError, match="must rise and end with 100"):
            Terms(shares=shares)
    for wrong in ({"margin": -1.0}, {"min_frames": 0}, {"min_period_s": 9e9}, {"confidence": 1.0}, {"resolution": 0.0}):
        with pytest.raises(PolicyError, match=next(iter(wrong))):
            Terms(**wrong)


def test_what_comes_late_or_is_no_number_changes_no_closed_block() -> None:
    evidence = Evidence()
    evidence.observe(START_S, "cam", 0.5, 10)
    evidence.observe(START_S, "cam", 1.0, 30)
    evidence.observe(START_S, "cam", math.nan, 10)
    evidence.observe(START_S, "cam", 0.0, 0)
    evidence.observe(START_S + 1e9, "clock", 0.5, 10)
    assert evidence.close(START_S + BLOCK_S, None) == 0
    assert evidence.close(START_S + BLOCK_S + LAG_S, None) == 1
    evidence.observe(START_S, "cam", 0.0, 10)
    evidence.observe(START_S, "other", 0.1, 10)
    evidence.close(START_S + 2 * BLOCK_S + LAG_S, None)
    assert list(evidence.before.values()) == [{"cam": 0.875, "other": 0.1}]
    assert not evidence.open


@given(st.sets(st.text(min_size=1, max_size=8), min_size=2, max_size=40), st.text(max_size=10))
def test_later_stages_contain_earlier_ones_and_leave_somebody_to_compare_with(names: set[str], candidate: str) -> None:
    promotion = Promotion()
    promotion.begin(0.0, candidate, Terms(shares=(0.1, 0.3, 0.5, 0.9, 1.0)))
    for minute in range(KNOWN_BLOCKS):
        for name in names:
            promotion.observe(minute * BLOCK_S, name, 0.5, 10)
    promotion.step(KNOWN_BLOCKS * BLOCK_S + LAG_S)
    before: set[str] = set()
    while promotion.phase is Phase.STAGE:
        now = {name for name in names if promotion.is_promoted(name)}
        assert before < now
        assert (now == names) == (promotion.terms.shares[promotion.stage] == 1)
        before = now
        promotion.evidence.during = dict(promotion.evidence.before)
        promotion._advance(0.0, promotion.stage, "test")
