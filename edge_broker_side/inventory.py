"""What a site knows of its devices: their messages in, one entry per device with what is wrong with it out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_broker_side.selection import Fact, facts_of
from wire.messages import CachedVersion, Capabilities, Decision, DeviceState, State, Telemetry

NEVER_SEEN = "never seen"
REVOKED = "revoked"
"""States of accounts that say nothing of themselves."""
HASH_CHARS = 8
"""Shown of a version's sha256."""
RANGES: Mapping[str, tuple[float, float]] = {
    "cores": (1, 1024),
    "memory_mb": (8, 16 * 1024 * 1024),
    "fps": (0, 1000),
    "deadline_ms": (1, 600_000),
    "slowdown": (1, 1000),
}
"""What a board can be; a device that says otherwise is mistaken or lies."""
TELEMETRY_RANGES: Mapping[str, tuple[float, float]] = {
    "fps": (0, 10_000),
    "head_ms": (0, 600_000),
    "rtt_ms": (0, 600_000),
    "uplink_bps": (0, 1e12),
    "cpu_share": (0, 1024),
    "memory_mb": (0, 16 * 1024 * 1024),
    "temperature_c": (-60, 150),
    "battery_share": (0, 1),
    "power_mw": (0, 1e6),
    "disk_free_mb": (0, 1e9),
}
MAX_SAMPLES = 600
"""Telemetry kept per device while listening."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One telemetry message and when it came, by our own clock in Unix milliseconds."""

    told: Telemetry
    arrived_ms: float


@dataclass(frozen=True, slots=True)
class Skew:
    """How far a device's clock is ahead of ours, and how sure that is."""

    ahead_ms: float
    uncertain_ms: float | None
    """Half of the round trip to the broker; ``None`` where the device has not measured it."""


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """What the register says of a device's account; times in Unix seconds."""

    expires_s: int
    revoked: bool
    tags: tuple[str, ...] = ()


@dataclass(slots=True)
class Entry:
    """One device."""

    name: str
    told_state: State | None = None
    capabilities: Capabilities | None = None
    decision: Decision | None = None
    samples: list[Heard] = field(default_factory=list)
    """Of the newest session, oldest first, without what was replayed."""
    account: AccountFacts | None = None

    @property
    def session(self) -> int:
        """The newest session that any message tells of; 0: none does."""
        told = (self.told_state, self.capabilities, self.samples[-1].told if self.samples else None)
        return max((one.session for one in told if one is not None), default=0)

    @property
    def telemetry(self) -> Telemetry | None:
        """The newest."""
        return self.samples[-1].told if self.samples else None

    @property
    def buried(self) -> bool:
        """Whether the retained state is that of an older session: its last will came late."""
        return self.told_state is not None and self.told_state.session < self.session

    @property
    def state(self) -> str:
        """Init, ready, sleeping, stopped, lost; or never seen, or revoked."""
        if self.account is not None and self.account.revoked:
            return REVOKED
        if self.told_state is not None and not self.buried:
            return str(self.told_state.state)
        if self.samples:
            return str(DeviceState.READY)
        return str(DeviceState.INIT) if self.session else NEVER_SEEN

    @property
    def tags(self) -> tuple[str, ...]:
        """Those of the device's own settings and those of its account."""
        own = self.capabilities.tags if self.capabilities else ()
        return tuple(dict.fromkeys((*own, *(self.account.tags if self.account else ()))))

    @property
    def last_seen_ms(self) -> float | None:
        """When something new was last heard; else when it last told its state, by its own clock."""
        if self.samples:
            return self.samples[-1].arrived_ms
        return float(self.told_state.at_ms) if self.told_state is not None and self.told_state.at_ms else None

    @property
    def skew(self) -> Skew | None:
        """How the clock is set. Time lost on the way makes it look slow, so the fastest-looking message counts."""
        if not self.samples:
            return None
        best = max(self.samples, key=lambda heard: heard.told.at_ms - heard.arrived_ms)
        rtt_ms = best.told.rtt_ms
        ahead_ms = best.told.at_ms - best.arrived_ms + (rtt_ms or 0.0) / 2
        return Skew(ahead_ms, None if rtt_ms is None else rtt_ms / 2)


class Inventory:
    """Every device of a site, by name."""

    def __init__(self, catalog: Mapping[str, str], accounts: Mapping[str, AccountFacts] | None) -> None:
        """``catalog``: sha256 by version, of this site; empty where it is not known.

        ``accounts``: those of devices; ``None`` where the register is not at hand.
        """
        self.entries = {name: Entry(name, account=account) for name, account in (accounts or {}).items()}
        self._catalog = catalog
        self._registered = accounts is not None

    def take(self, name: str, message: Any, arrived_ms: float) -> None:
        """Take a message of a device; one of an older session changes nothing."""
        entry = self.entries.setdefault(name, Entry(name))
        match message:
            case State():
                if entry.told_state is None or message.session >= entry.told_state.session:
                    entry.told_state = message
            case Capabilities():
                if entry.capabilities is None or message.session >= entry.capabilities.session:
                    entry.capabilities = message
            case Decision():
                if entry.decision is None or message.rev >= entry.decision.rev:
                    entry.decision = message
            case Telemetry() if not message.replayed and message.session >= entry.session:
                entry.samples = [one for one in entry.samples if one.told.session == message.session]
                if all(one.told.seq != message.seq for one in entry.samples[-10:]):
                    entry.samples = [*entry.samples[-MAX_SAMPLES + 1 :], Heard(message, arrived_ms)]

    @property
    def quiet(self) -> list[str]:
        """Devices that say they are ready and of which no telemetry has come."""
        return [e.name for e in self.entries.values() if e.state == DeviceState.READY and not e.samples]

    def problems(self, entry: Entry) -> tuple[str, ...]:
        """What is wrong with a device, in words."""
        return tuple(self._problems(entry))

    def _problems(self, entry: Entry) -> Iterator[str]:
        if self._registered and entry.account is None:
            yield "has no account at this site"
        if entry.buried:
            yield "the broker retains the last will of an older session"
        if entry.state == DeviceState.READY and not entry.samples:
            yield "says it is ready, but no telemetry came"
        can = entry.capabilities
        if can is None:
            if entry.session:
                yield "has not told what it can do"
            return
        yield from _absurd(can, RANGES)
        yield from self._versions(can.versions)
        if entry.telemetry is not None:
            yield from _absurd(entry.telemetry, TELEMETRY_RANGES)
            follows, held = entry.telemetry.plan, {version.name for version in can.versions}
            if follows.version not in held:
                yield f"follows {follows} without having {follows.version}"

    def _versions(self, versions: Sequence[CachedVersion]) -> Iterator[str]:
        if not versions:
            yield "has no version of any model"
        for version in versions:
            ours = self._catalog.get(version.name)
            if self._catalog and ours is None:
                yield f"has {version.name}, which this site does not know"
            elif ours is not None and ours != version.sha256:
                yield (
                    f"has another {version.name} than this site: {short(version.sha256)} instead of {short(ours)}, "
                    "so it is not used"
                )


def facts(entry: Entry) -> dict[str, Fact]:
    """Return what a selection such as ``tag=line-3 and runtime=tflite-runtime`` may ask of a device."""
    return {**facts_of(entry.name, entry.state, entry.capabilities), "tag": entry.tags}


def short(sha256: str) -> str:
    """Return the beginning of a hash."""
    return sha256[:HASH_CHARS]


def _absurd(message: Any, ranges: Mapping[str, tuple[float, float]]) -> Iterable[str]:
    for name, (least, most) in ranges.items():
        value = getattr(message, name)
        if value is not None and not least <= value <= most:
            yield f"says {name} is {value:g}, which cannot be"
