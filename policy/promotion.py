"""Staged promotion: a candidate's weights go to ever more devices, and back by themselves when rewards fall. No I/O."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

from policy.errors import PolicyError
from policy.promotion_evidence import KNOWN_BLOCKS, LEAST_BLOCKS, Evidence, Verdict

PAUSE_S = 300.0
"""Between two steps: the service was down or its clock was set, and a stage's time stood still meanwhile."""
MAX_EVENTS = 100
LOOK_AGAIN = 1.05
"""By how much a stage's blocks grow until the next look: every look is a chance for noise to pass for harm."""


class Phase(StrEnum):
    """Where a promotion is."""

    IDLE = "idle"
    BASELINE = "baseline"
    """The candidate waits until rewards under the incumbent are known."""
    STAGE = "stage"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True)
class Terms:
    """By what a candidate is judged. Rewards are per frame, on the scale of ``policy.reward``."""

    shares: tuple[float, ...] = (0.1, 0.5, 1.0)
    margin: float = 0.02
    """A loss so small is put up with: no measurement shows that there is none at all."""
    min_period_s: float = 600.0
    min_frames: int = 200
    """Per group and stage."""
    max_stage_s: float = 14_400.0
    resolution: float = 0.05
    """After ``max_stage_s`` a candidate of which no harm was seen goes on if harm of this size would have been;
    of twice this size while the next stage is compared with others, too, and will show more."""
    confidence: float = 0.99
    """Of every interval; they are looked at again with every block, hence more than the usual .95."""

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.shares, self.shares[1:], strict=False))
        if not self.shares or not rising or self.shares[0] <= 0 or self.shares[-1] != 1:
            told = ",".join(f"{100 * share:g}" for share in self.shares)
            raise PolicyError(f"stages {told or 'none'}: percentages must rise and end with 100, such as 10,50,100")
        if not 0 < self.margin <= 1 or not 0 < self.resolution <= 2:
            raise PolicyError(
                f"margin = {self.margin:g}, resolution = {self.resolution:g}: allowed is above 0 to 1 and 2"
            )
        if not 0.5 <= self.confidence < 1:
            raise PolicyError(f"confidence = {self.confidence:g}: allowed is 0.5 to below 1")
        if not 0 < self.min_period_s < self.max_stage_s or self.min_frames < 1:
            raise PolicyError(
                f"min_period_s = {self.min_period_s:g}, max_stage_s = {self.max_stage_s:g}, min_frames = "
                f"{self.min_frames}: the first must lie between 0 and the second, and one frame is the least"
            )


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a promotion, in words; ``at_s`` in Unix seconds."""

    at_s: float
    kind: str
    """began, advanced, promoted, rolled_back or refused."""
    text: str


@dataclass
class Promotion:
    """The state of one site. Times are Unix seconds, since they must outlive a restart; not thread-safe.

    The caller asks ``is_promoted`` per device (then the candidate decides for it, else the incumbent), tells every
    measured reward to ``observe``, whatever the phase, and calls ``step`` about once a second.
    """

    phase: Phase = Phase.IDLE
    candidate: str | None = None
    """Name of the weights that are tried; kept after the end for the record."""
    incumbent: str | None = None
    """Name of the promoted weights that act for all others; ``None``: those the service's settings name."""
    replaced: str | None = None
    """The incumbent before, to which ``roll_back`` returns from ``promoted``."""
    terms: Terms = field(default_factory=Terms)
    stage: int = 0
    """Place in ``terms.shares``."""
    since_s: float = 0.0
    """When the phase, or the stage, began."""
    threshold: float = 0.0
    """Devices whose hash lies below it are promoted."""
    threshold_before: float = 0.0
    """The same in the stage before."""
    stepped_s: float | None = None
    blocks: int = 0
    """Closed since the last switch."""
    looked: int = 0
    """How many of them there were at the last look."""
    reason: str = ""
    """How it came to the present phase, in words."""
    events: list[Event] = field(default_factory=list)
    evidence: Evidence = field(default_factory=Evidence)

    @property
    def in_progress(self) -> bool:
        """Whether a candidate is being tried."""
        return self.phase in (Phase.BASELINE, Phase.STAGE)

    def is_promoted(self, device: str) -> bool:
        """Whether the candidate decides for that device now."""
        return self.phase is Phase.STAGE and self._place(device) < self.threshold

    def observe(self, at_s: float, device: str, reward: float, frames: int) -> None:
        """Take in the mean measured reward of a device's frames that were captured at about ``at_s``."""
        self.evidence.observe(at_s, device, reward, frames)

    def verdict(self) -> Verdict | None:
        """Compare the groups of the present stage; ``None`` while there is too little to compare."""
        return self.evidence.verdict(self._is_switched, self.terms.confidence) if self.phase is Phase.STAGE else None

    def compared_frames(self) -> tuple[int, int]:
        """Return the frames since the switch of the switched devices and of those they are compared with."""
        return self.evidence.frames_of(self._is_switched)

    # -- what is asked for ------------------------------------------------------------------------------------------

    def begin(self, now_s: float, candidate: str, terms: Terms) -> Event:
        """Try a candidate; its name also decides which devices come first."""
        if self.in_progress:
            return self._note(now_s, "refused", f"{candidate}: the promotion of {self.candidate} is in progress")
        if candidate == self.incumbent:
            return self._note(now_s, "refused", f"{candidate} is promoted already")
        self.phase, self.candidate, self.terms = Phase.BASELINE, candidate, terms
        self.stage, self.threshold, self.threshold_before = 0, 0.0, 0.0
        self.since_s, self.reason = now_s, "rewards before the first stage are collected"
        return self._note(now_s, "began", f"{candidate}: {self.reason}")

    def roll_back(self, now_s: float, reason: str) -> Event:
        """Return to the incumbent, or from a finished promotion to the incumbent before it."""
        if self.in_progress:
            share = (
                f"at {100 * self.terms.shares[self.stage]:g} %" if self.phase is Phase.STAGE else "before any device"
            )
            self.threshold = 0.0
        elif self.incumbent is not None:
            share = f"from all devices, to {self.replaced or 'the weights of the settings'}"
            self.candidate, self.incumbent, self.replaced = self.incumbent, self.replaced, None
        else:
            return self._note(now_s, "refused", "there is no promotion to roll back")
        self.phase, self.since_s, self.reason = Phase.ROLLED_BACK, now_s, f"stepped back {share}: {reason}"
        self.evidence = Evidence(open=self.evidence.open)
        return self._note(now_s, "rolled_back", f"{self.candidate} {self.reason}")

    # -- what happens by itself -------------------------------------------------------------------------------------

    def step(self, now_s: float) -> Event | None:
        """Close blocks, judge, and move on or back where it is time; return what happened."""
        gap = now_s - self.stepped_s if self.stepped_s is not None else 0.0
        if not 0 <= gap <= PAUSE_S:
            self.since_s += gap
        self.stepped_s = now_s
        counted = self.evidence.close(now_s, self.since_s if self.phase is Phase.STAGE else None)
        elapsed_s = now_s - self.since_s
        overdue = elapsed_s >= self.terms.max_stage_s
        if self.phase is Phase.BASELINE:
            if len(self.evidence.before) >= (LEAST_BLOCKS if overdue else KNOWN_BLOCKS):
                return self._advance(now_s, -1, "rewards before are known")
            return self.roll_back(now_s, self._stalled()) if overdue else None
        self.blocks += counted
        due = self.blocks >= LEAST_BLOCKS and self.blocks > LOOK_AGAIN * self.looked
        if self.phase is Phase.STAGE and (due or overdue):
            self.looked = self.blocks
            return self._judge(now_s, elapsed_s, overdue=overdue)
        return None

    def _judge(self, now_s: float, elapsed_s: float, *, overdue: bool) -> Event | None:
        verdict, margin = self.verdict(), self.terms.margin
        if verdict is None:
            return self.roll_back(now_s, self._stalled()) if overdue else None
        effect, told = verdict.effect, verdict_words(verdict, self.terms.confidence)
        if effect.high < -margin:
            return self.roll_back(now_s, f"the reward fell: {told}")
        switched, others = self.compared_frames()
        least = switched if verdict.others == 0 else min(switched, others)
        enough = elapsed_s >= self.terms.min_period_s and least >= self.terms.min_frames
        # The blocks of the last stage but one are what the last stage is compared with: it needs as many as the first.
        left = len(self.terms.shares) - 1 - self.stage
        known = left != 1 or verdict.others == 0 or verdict.blocks >= KNOWN_BLOCKS
        if enough and known and effect.low > -margin:
            return self._advance(now_s, self.stage, told)
        if not overdue:
            return None
        if not enough:
            return self.roll_back(now_s, self._stalled())
        if effect.high <= 0:
            return self.roll_back(now_s, f"the reward fell a little: {told}")
        if effect.half > self.terms.resolution * (2 if left > 1 else 1):
            return self.roll_back(now_s, f"too noisy to tell: {told}; steadier links or more devices would show it")
        return self._advance(now_s, self.stage, f"no harm shown in {elapsed_s / 3600:.1f} h: {told}")

    def _advance(self, now_s: float, stage: int, why: str) -> Event:
        """Go on to the next stage that reaches more devices, or to the end; −1 stands for before the first."""
        last = len(self.terms.shares) - 1
        if stage == last:
            self.replaced, self.incumbent = self.incumbent, self.candidate
            self.phase, self.since_s, self.reason = Phase.PROMOTED, now_s, why
            self.evidence = Evidence(open=self.evidence.open)
            return self._note(now_s, "promoted", f"{self.candidate} acts for all devices: {why}")
        places = sorted(map(self._place, self.evidence.devices()))
        now_promoted = sum(place < self.threshold for place in places)
        for following in range(stage + 1, last + 1):
            threshold = max(_threshold(places, self.terms.shares[following]), self.threshold)
            reached = sum(place < threshold for place in places)
            if following == last or now_promoted < reached < len(places):
                break
        self.threshold_before, self.threshold = self.threshold, threshold
        self.evidence.switch(from_now=following == last and stage >= 0)
        self.blocks = self.looked = 0
        self.phase, self.stage, self.since_s, self.reason = Phase.STAGE, following, now_s, why
        share = f"{100 * self.terms.shares[following]:g} % ({reached} of {len(places)} devices)"
        return self._note(now_s, "advanced", f"{self.candidate} goes to {share}: {why}")

    def _is_switched(self, device: str) -> bool:
        """Whether a device is of the group that is judged.

        That is the promoted group; in the last stage, when no device is left to compare with, it is those switched
        last, and they are compared with those switched before.
        """
        place = self._place(device)
        if self.threshold >= 1:
            return place >= self.threshold_before
        return place < self.threshold

    def _place(self, device: str) -> float:
        """Return the device's place in this promotion's order, 0 to below 1; stages only ever raise the threshold."""
        digest = hashlib.sha256(f"{self.candidate}/{device}".encode()).digest()
        return int.from_bytes(digest[:6]) / 2**48

    def _stalled(self) -> str:
        switched, others = self.compared_frames()
        least = self.terms.min_frames
        seen = f"{switched} and {others} frames" if self.phase is Phase.STAGE else "too few frames"
        return f"stalled: {seen} in {self.terms.max_stage_s / 3600:.1f} h, {least} per group are needed"

    def _note(self, now_s: float, kind: str, text: str) -> Event:
        event = Event(now_s, kind, text)
        self.events = [*self.events, event][-MAX_EVENTS:]
        return event


def verdict_words(verdict: Verdict, confidence: float) -> str:
    """Say a verdict, such as ``+0.012 (99 %: −0.004 to +0.028) against 9 other devices``."""
    effect = verdict.effect
    against = (
        f"{verdict.switched} against {verdict.others} devices"
        if verdict.others
        else "after against before; there is no comparison group"
    )
    return f"{effect.estimate:+.3f} ({100 * confidence:g} %: {effect.low:+.3f} to {effect.high:+.3f}), {against}"


def _threshold(places: list[float], share: float) -> float:
    """Return a threshold with about that share of the places below it: at least one, and not all unless asked."""
    count = len(places)
    if share >= 1 or count < 2:
        return 1.0
    below = min(max(round(share * count), 1), count - 1)
    return (places[below - 1] + places[below]) / 2
