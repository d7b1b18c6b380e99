"""How a roll-out goes on: whom a stage is for, what became of each, and when to go on or stop. Pure."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from edge_broker_side.errors import EdgeError
from wire.messages import UpdateStage

ALTOGETHER = 10
"""An update may take so many times the limit of a standstill altogether."""
MAX_STAGES = 20


class RolloutError(EdgeError):
    """A roll-out cannot be as asked."""


class Status(StrEnum):
    """Of a roll-out."""

    RUNNING = "running"
    PAUSED = "paused"
    """No device is told any more; those that were go on."""
    STOPPED = "stopped"
    """Paused by itself: a threshold was missed."""
    ABORTED = "aborted"
    """Taken back from every device that has not kept it."""
    DONE = "done"


class Fate(StrEnum):
    """What became of one device."""

    UNTOLD = "untold"
    UNDER_WAY = "under way"
    ACTIVE = "active"
    FAILED = "failed"
    ROLLED_BACK = "rolled back"
    OVERDUE = "overdue"
    """Online, and no step further for too long."""
    OFFLINE = "offline"
    """Told, and will hear of it when it comes back."""


BAD = frozenset({Fate.FAILED, Fate.ROLLED_BACK, Fate.OVERDUE})


@dataclass(frozen=True, slots=True)
class Terms:
    """What an operator asks of a roll-out."""

    stages: tuple[float, ...] = (0.05, 0.25, 1.0)
    """Shares of the devices that are told by the end of each stage, rising."""
    success: float = 0.98
    """Share of the devices told that must be active before the next stage."""
    max_errors: float = 0.02
    """Share of the devices told that may fail; one more stops the roll-out at once."""
    limit_s: float = 900.0
    """A device online that makes no step for so long counts as failed."""
    trial_frames: int = 30

    def __post_init__(self) -> None:
        rising = all(before < after for before, after in zip((0.0, *self.stages), self.stages, strict=False))
        if not 0 < len(self.stages) <= MAX_STAGES or not rising or self.stages[-1] > 1:
            raise RolloutError(f"stages {self.stages}: shares that rise, the last at most 100 %, such as 5%,25%,100%")
        for what, value, least, most in (
            ("success", self.success, 0.0, 1.0),
            ("max errors", self.max_errors, 0.0, 1.0),
            ("limit", self.limit_s, 1.0, 604_800.0),
            ("trial frames", self.trial_frames, 1, 100_000),
        ):
            if not least <= value <= most:
                raise RolloutError(f"{what} is {value:g}, allowed is {least:g} to {most:g}")


@dataclass(frozen=True, slots=True)
class Member:
    """One device of a roll-out."""

    device: str
    place: float
    """0 to 1; those with the lowest come first."""
    told_s: float | None = None
    stage: UpdateStage | None = None
    """As the device tells of this very attempt."""
    done_bytes: int = 0
    size_bytes: int = 0
    reason: str = ""
    online_s: float = 0.0
    """How long it was online since it was told; the time it was away is not its fault."""
    stood_s: float = 0.0
    """How long of that since it last went a step further."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What else is known of a device now."""

    online: bool
    holds: bool
    """It says so apart from its progress: its capabilities name the version with the bundle's sha256."""


ABSENT = Sight(False, False)


def place_of(seed: str, device: str) -> float:
    """Return where in the order of a roll-out a device stands: by chance, and the same for ever."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{device}".encode()).digest()[:7]) / 2**56


def fate(member: Member, sight: Sight, terms: Terms) -> Fate:
    """Return what became of a device. That it is active is believed when its capabilities say so too."""
    if member.told_s is None:
        return Fate.UNTOLD
    if member.stage is UpdateStage.ACTIVE and sight.holds:
        return Fate.ACTIVE
    if member.stage is UpdateStage.FAILED:
        return Fate.FAILED
    if member.stage is UpdateStage.ROLLED_BACK:
        return Fate.ROLLED_BACK
    if not sight.online:
        return Fate.OFFLINE
    overdue = member.stood_s > terms.limit_s or member.online_s > ALTOGETHER * terms.limit_s
    return Fate.OVERDUE if overdue else Fate.UNDER_WAY


@dataclass(frozen=True, slots=True)
class Tell:
    """These devices are to be told."""

    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NextStage:
    """The stage is passed."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A threshold is missed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """The last stage is passed."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do now, for this reason."""

    reason: str


Step = Tell | NextStage | Stop | Done | Wait


def next_step(terms: Terms, stage: int, members: Sequence[Member], sights: Mapping[str, Sight]) -> Step:
    """Return what a running roll-out does next; ``stage`` counts from 0."""
    if not members:
        return Wait("no device fits yet")
    quota = max(1, math.ceil(terms.stages[stage] * len(members) - 1e-9))
    told = [member for member in members if member.told_s is not None]
    if len(told) < quota:
        rest = sorted((member for member in members if member.told_s is None), key=lambda m: (m.place, m.device))
        return Tell(tuple(member.device for member in rest[: quota - len(told)]))
    fates = count(told, sights, terms)
    bad, good = sum(fates[one] for one in BAD), fates[Fate.ACTIVE]
    if bad > terms.max_errors * len(told):
        return Stop(f"{_bad_words(fates)} of {len(told)} devices, at most {_percent(terms.max_errors)} may fail")
    if fates[Fate.UNDER_WAY]:
        return Wait(f"{fates[Fate.UNDER_WAY]} of {len(told)} devices are under way")
    if not good + bad:
        return Wait(f"none of the {len(told)} devices told is online")
    if good < terms.success * (good + bad):
        return Stop(f"{good} of {good + bad} devices are active, at least {_percent(terms.success)} must be")
    return Done() if stage == len(terms.stages) - 1 else NextStage()


def count(members: Iterable[Member], sights: Mapping[str, Sight], terms: Terms) -> Counter[Fate]:
    """Return how many devices met each fate."""
    return Counter(fate(member, sights.get(member.device, ABSENT), terms) for member in members)


def spent(terms: Terms, members: Iterable[Member]) -> str:
    """Return why a roll-out can only stop (again), whatever its devices do from now on; nothing where it can go on.

    What failed or was rolled back stays so under the same roll-out.
    """
    told = [member for member in members if member.told_s is not None]
    lost = sum(member.stage in (UpdateStage.FAILED, UpdateStage.ROLLED_BACK) for member in told)
    if lost > terms.max_errors * len(told):
        return f"{lost} of {len(told)} devices failed or were rolled back, at most {_percent(terms.max_errors)} may"
    if len(told) - lost < terms.success * len(told):
        return f"{lost} of {len(told)} devices failed or were rolled back, {_percent(terms.success)} must be active"
    return ""


def _bad_words(fates: Counter[Fate]) -> str:
    return " and ".join(f"{fates[one]} {one}" for one in sorted(BAD) if fates[one])


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def parse_stages(text: str) -> tuple[float, ...]:
    """Return the shares in ``5%,25%,100%``; raises ``RolloutError``."""
    return tuple(parse_share(part, "stage") for part in text.split(","))


def parse_share(text: str, what: str) -> float:
    """Return ``0.05`` for ``5%``; a bare number would be either, so it is refused. Raises ``RolloutError``."""
    number, sign, rest = text.strip().partition("%")
    try:
        share = float(number) / 100
    except ValueError:
        share = -1.0
    if not sign or rest or not 0 <= share <= 1:
        raise RolloutError(f"{what} '{text.strip()}' is not a share: write such as 5%")
    return share
