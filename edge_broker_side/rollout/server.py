"""The roll-out server: tells devices what to update to, hands it out, and goes on from stage to stage."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edge_broker_side.errors import EdgeError
from edge_broker_side.rollout import campaign
from edge_broker_side.rollout.bundles import Bundle
from edge_broker_side.rollout.campaign import (
    ABSENT,
    Done,
    Fate,
    Member,
    NextStage,
    Sight,
    Status,
    Stop,
    Tell,
    fate,
    place_of,
)
from edge_broker_side.rollout.handing_out import HandingOut
from edge_broker_side.rollout.store import Rollout, RolloutStore
from edge_broker_side.selection import facts_of, parse
from wire import channels
from wire.bundle import MAX_CHUNK_BYTES, BundleError
from wire.codec import decode, encode
from wire.errors import PayloadError, TopicError
from wire.inbox import Inbox
from wire.link import Connected, Disconnected, LinkSettings, Received, Subscription
from wire.messages import (
    CachedVersion,
    Capabilities,
    Chunk,
    DeviceState,
    Fetch,
    Installed,
    State,
    Update,
    UpdateStage,
    UpdateState,
)
from wire.mqtt import Link

log = logging.getLogger(__name__)

IDLE_S = 0.2
STEP_EVERY_S = 1.0
QUIET_S = 2.0
"""After connecting, what the broker retains comes in before anything is judged by it."""
CHUNK_EXPIRES_S = 10
MAX_WAITING = 32
"""Pieces in our own link before the next one is read from the disk."""
MAX_DEVICES = 100_000
MOST_COUNTED_S = 10.0
"""Of the time between two judgements: where it was longer, we were away ourselves (stopped, or the machine slept)."""
RETRY_S = 5.0
"""A bundle that could not be opened is tried again after so long, or when its file is another."""
ENDED = frozenset({Fate.ACTIVE, Fate.FAILED, Fate.ROLLED_BACK})
HEARD = (channels.STATE, channels.CAPABILITIES, channels.UPDATE_STATE, channels.FETCH)


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """One roll-out server process; one per site."""

    site: str
    folder: Path
    """Bundles, and the state of roll-outs."""
    key: Path
    """The site's public key (PEM): what it did not sign is not handed out."""
    name: str = "rollout"
    link: LinkSettings = field(default_factory=LinkSettings)
    rate_bytes_per_s: int = 4 * 1024 * 1024
    """Handed out at most, all devices together."""
    log_level: str = "info"

    def __post_init__(self) -> None:
        channels.check_name(self.site, "site")
        channels.check_name(self.name, "name")
        if not 1024 <= self.rate_bytes_per_s <= 2**40:
            raise ValueError(f"rate_bytes_per_s is {self.rate_bytes_per_s}, allowed is 1024 to {2**40}")

    @property
    def store(self) -> Path:
        """The file with the state of roll-outs."""
        return self.folder / "rollouts.sqlite"

    def bundle(self, bundle: str) -> Path:
        """Return where a bundle lies."""
        return self.folder / "bundles" / f"{bundle}.tar"


@dataclass(frozen=True, slots=True)
class Opened:
    """A bundle as its file was when it was opened, or why it could not be."""

    bundle: Bundle | str
    stamp: tuple[int, int, int] | None
    """The id covers the files alone: another manifest of the same files has the same name."""
    tried_s: float

    def to_try_again(self, now_s: float) -> bool:
        """Whether what went wrong may have been put right since."""
        return isinstance(self.bundle, str) and now_s >= self.tried_s + RETRY_S


@dataclass(slots=True)
class Device:
    """What is known of a device."""

    session: int = -1
    state: DeviceState = DeviceState.LOST
    capabilities: Capabilities | None = None
    installed: tuple[Installed, ...] = ()
    told: tuple[int, str] | None = None
    """(roll-out, bundle) that the broker retains for it, as far as we know in this connection."""

    @property
    def online(self) -> bool:
        """Whether it can be expected to go on."""
        return self.state in (DeviceState.INIT, DeviceState.READY)


class RolloutServer:
    """The loop's state; every method runs in the loop thread. ``now_s`` is the wall clock: it outlives a restart."""

    def __init__(self, settings: RolloutSettings) -> None:
        """Open the store; raises ``RolloutError``."""
        self.counters: Counter[str] = Counter()
        self._settings = settings
        self._store = RolloutStore(settings.store)
        self._devices: dict[str, Device] = {}
        self._bundles: dict[str, Opened] = {}
        """By id."""
        self._handing_out = HandingOut(settings.rate_bytes_per_s)
        self._inbox = Inbox()
        self._settled: set[int] = set()
        """Roll-outs that no device can change any more."""
        self._judge_at_s = float("inf")
        self._judged_at_s: float | None = None
        """By the monotonic clock, in this connection: what passed before is not counted."""
        self._link = Link(
            replace(settings.link, session_expiry_s=0),  # what is retained comes anew, what is asked is asked again
            f"{settings.site}-{settings.name}",
            self._inbox,
            subscriptions=[Subscription(channels.topic_filter(settings.site, c), c.qos) for c in HEARD],
            clean_start=True,
        )

    def serve(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set."""
        self._link.start()
        while not stop.is_set():
            self.turn()
            if not self._link.alive:
                raise EdgeError("the link's thread has ended: see the log")

    def close(self) -> None:
        """Say goodbye; roll-outs go on at the next start."""
        self._link.stop()
        self._store.close()
        log.info("stopped: %s", dict(self.counters))

    def turn(self) -> None:
        """Take what has arrived, hand out what may be, and judge now and then."""
        patience_s = min(IDLE_S, self._handing_out.wait_s() + 0.001) if len(self._handing_out) else IDLE_S
        for event in self._inbox.take(patience_s):
            self._handle(event)
        self._hand_out()
        if time.monotonic() >= self._judge_at_s:
            self._judge_at_s = time.monotonic() + STEP_EVERY_S
            self._judge(time.time())

    # -- what arrives ----------------------------------------------------------------------------------------------

    def _handle(self, event: Any) -> None:
        match event:
            case Received():
                self._receive(event)
            case Connected():
                for device in self._devices.values():  # the broker may have forgotten what it retained
                    device.told = None
                self._judge_at_s, self._judged_at_s = time.monotonic() + QUIET_S, None
            case Disconnected():
                self._judge_at_s = float("inf")

    def _receive(self, event: Received) -> None:
        try:
            address = channels.parse_topic(event.topic)
            if not event.payload:
                return
            message = decode(address.channel, event.payload)
        except (TopicError, PayloadError) as error:
            self.counters["refused_payload"] += 1
            log.warning("refused on %s: %s", event.topic[:120], error)
            return
        if address.name not in self._devices and len(self._devices) >= MAX_DEVICES:
            self.counters["refused_devices"] += 1
            return
        device = self._devices.setdefault(address.name, Device())
        match message:
            case State() if message.session >= device.session:
                device.session, device.state = message.session, message.state
            case Capabilities() if message.session >= device.session:
                device.session, device.capabilities = message.session, message
            case UpdateState():
                device.installed = message.installed
                self._note(address.name, message)
            case Fetch():
                self._ask(address.name, message)

    def _note(self, name: str, told: UpdateState) -> None:
        if told.rev < 1:
            return
        bundle = self._bundle(told.bundle) if told.size_bytes else None
        if not 0 <= told.done_bytes <= told.size_bytes or (
            isinstance(bundle, Bundle) and told.size_bytes != bundle.manifest.size
        ):
            self.counters["refused_progress"] += 1
            log.warning("%s claims %d of %d bytes of %s", name, told.done_bytes, told.size_bytes, told.bundle[:64])
            return
        if not self._store.note(name, told):
            self.counters["ignored_states"] += 1

    # -- handing out -----------------------------------------------------------------------------------------------

    def _ask(self, name: str, wish: Fetch) -> None:
        wanted = self._wanted(name)
        if wanted is None or wanted.bundle != wish.bundle:
            self.counters["refused_fetches"] += 1
            if wanted is None or wanted.status is not Status.STOPPED:
                self._say(name, wanted)  # so that it asks no more, or for the right one
            return
        if wanted.status is Status.STOPPED:  # unanswered, it keeps what it has and waits for us
            self.counters["held_back"] += 1
            return
        bundle = self._bundle(wish.bundle)
        if isinstance(bundle, str) or not (0 <= wish.offset < bundle.manifest.size and wish.length > 0):
            self.counters["refused_fetches"] += 1
            return
        length = min(wish.length, MAX_CHUNK_BYTES, bundle.manifest.size - wish.offset)
        self._handing_out.ask(name, Fetch(wish.bundle, wish.offset, length))

    def _hand_out(self) -> None:
        while self._link.waiting < MAX_WAITING:
            turn = self._handing_out.next(time.monotonic())
            if turn is None:
                return
            name, wish = turn
            bundle = self._bundle(wish.bundle)
            if isinstance(bundle, str):
                continue
            try:
                data = bundle.read(wish.offset, wish.length)
            except OSError as error:
                self._bundles[wish.bundle] = Opened(str(error), self._stamp(wish.bundle), time.monotonic())
                log.error("%s cannot be read: %s", bundle.path, error)
                continue
            payload = encode(channels.CHUNK, Chunk(wish.bundle, wish.offset, data))
            where = channels.topic(self._settings.site, name, channels.CHUNK)
            expires_ns = time.monotonic_ns() + CHUNK_EXPIRES_S * 10**9
            sent = self._link.publish(where, payload, qos=channels.CHUNK.qos, expires_ns=expires_ns, watch=False)
            self.counters["chunks_sent" if sent is not None else "chunks_not_sent"] += 1
            self.counters["bytes_sent"] += len(data)

    def _bundle(self, name: str) -> Bundle | str:
        held = self._bundles.get(name)
        if held is None and not any(rollout.bundle == name for rollout in self._store.all()):
            return "no roll-out is of it"  # strangers' names must not fill our memory, nor look for files
        stamp, now_s = self._stamp(name), time.monotonic()  # before it is opened: what is replaced meanwhile is seen
        if held is not None and held.stamp == stamp and not held.to_try_again(now_s):
            return held.bundle
        found: Bundle | str
        try:
            found = Bundle(self._settings.bundle(name), self._settings.key.read_bytes())
            found.verify_files()
        except (OSError, BundleError, EdgeError) as error:
            log.error("bundle %s cannot be handed out: %s", name, error)
            found = str(error)
        self._bundles[name] = Opened(found, stamp, now_s)
        return found

    def _stamp(self, name: str) -> tuple[int, int, int] | None:
        try:
            told = self._settings.bundle(name).stat()
        except OSError:
            return None
        return told.st_ino, told.st_mtime_ns, told.st_size

    # -- judging ---------------------------------------------------------------------------------------------------

    def _judge(self, now_s: float) -> None:
        passed_s = self._passed_s()
        for rollout in self._store.all():
            if rollout.id not in self._settled and rollout.status not in (Status.STOPPED, Status.ABORTED):
                self._count(rollout, passed_s)
            if rollout.status is Status.RUNNING:
                self._step(rollout, now_s)
            if rollout.id not in self._settled:
                self._write_down(rollout, now_s)
        told = self._store.told()
        for name in list(self._devices):
            self._remind(name, told.get(name, []))

    def _passed_s(self) -> float:
        """Return how long ago the last judgement of this connection was, as far as we were there all the time."""
        was_s, self._judged_at_s = self._judged_at_s, time.monotonic()
        return 0.0 if was_s is None else min(self._judged_at_s - was_s, MOST_COUNTED_S)

    def _count(self, rollout: Rollout, passed_s: float) -> None:
        sights = self._sights(rollout)
        under_way = [
            member.device
            for member in self._store.members(rollout)
            if fate(member, sights.get(member.device, ABSENT), rollout.terms) is Fate.UNDER_WAY
        ]
        if under_way and passed_s:
            self._store.were_online(rollout, under_way, passed_s)

    def _write_down(self, rollout: Rollout, now_s: float) -> None:
        sights, members = self._sights(rollout), self._store.members(rollout)
        fates = {m.device: fate(m, sights.get(m.device, ABSENT), rollout.terms) for m in members}
        self._store.judged(rollout, fates, now_s)
        if rollout.status in (Status.DONE, Status.ABORTED) and not set(fates.values()) - {*ENDED, Fate.UNTOLD}:
            self._settled.add(rollout.id)

    def _step(self, rollout: Rollout, now_s: float) -> None:
        held = self._bundles.get(rollout.bundle)
        if held is not None and isinstance(held.bundle, str):  # it may have been put right since
            del self._bundles[rollout.bundle]
        bundle = self._bundle(rollout.bundle)
        if isinstance(bundle, str):
            self._end(rollout, Status.STOPPED, bundle, now_s)
            return
        selection = parse(rollout.selection)
        fitting = [name for name, device in self._devices.items() if selection.matches(_facts(name, device))]
        self._store.enrol(rollout, [(name, place_of(f"{rollout.id}/{rollout.bundle}", name)) for name in fitting])
        while True:
            members = self._store.members(rollout)
            step = campaign.next_step(rollout.terms, rollout.stage, members, self._sights(rollout))
            match step:
                case Tell(devices):
                    log.info("roll-out %d: %d more devices are told", rollout.id, len(devices))
                    self._store.tell(rollout, devices, now_s)
                case NextStage():
                    log.info("roll-out %d: stage %d is passed", rollout.id, rollout.stage + 1)
                    self._store.to_stage(rollout, rollout.stage + 1, now_s)
                    rollout = self._store.get(rollout.id)
                case Stop(reason):
                    self._end(rollout, Status.STOPPED, reason, now_s)
                    return
                case Done():
                    self._end(rollout, Status.DONE, "", now_s)
                    return
                case _:
                    return

    def _end(self, rollout: Rollout, status: Status, reason: str, now_s: float) -> None:
        try:
            self._store.turn(rollout, status, reason, now_s)
        except campaign.RolloutError as error:  # an operator was quicker
            log.info("%s", error)
            return
        if status is Status.STOPPED:
            for member in self._store.members(rollout):
                self._handing_out.forget(member.device)
        log.log(logging.ERROR if status is Status.STOPPED else logging.INFO, "roll-out %d is %s%s", rollout.id, status,
                f": {reason}" if reason else "")  # fmt: skip

    def _sights(self, rollout: Rollout) -> dict[str, Sight]:
        return {name: _sight(device, rollout) for name, device in self._devices.items()}

    # -- telling ---------------------------------------------------------------------------------------------------

    def _wanted(self, name: str, told: Sequence[tuple[Rollout, Member]] | None = None) -> Rollout | None:
        """Return what a device should update to now: the oldest roll-out that it was told of and is not done with.

        One that a newer roll-out of the same version was told after, or that was aborted, is nobody's wish any more.
        """
        device = self._devices.get(name, Device())
        newer: set[str] = set()
        wanted = None
        for rollout, member in self._store.told(name).get(name, []) if told is None else told:
            aborted = rollout.status is Status.ABORTED
            if rollout.slot in newer or (aborted and member.stage is not UpdateStage.ACTIVE):
                continue
            newer.add(rollout.slot)
            if not aborted and fate(member, _sight(device, rollout), rollout.terms) not in ENDED:
                wanted = rollout
        return wanted

    def _remind(self, name: str, told: Sequence[tuple[Rollout, Member]]) -> None:
        """Make the broker retain what the device should have; what it is done with may stay there.

        A roll-out that stopped by itself is told to nobody again: its devices wait for a resume or an abort.
        """
        wanted, device = self._wanted(name, told), self._devices[name]
        if wanted is not None and wanted.status is Status.STOPPED:
            return
        if wanted is not None and device.told != (wanted.id, wanted.bundle):
            self._say(name, wanted)
        elif wanted is None and self._store.withdraw(name):
            self._say(name, None)

    def _say(self, name: str, wanted: Rollout | None) -> None:
        payload = b""
        if wanted is not None:
            bundle = self._bundle(wanted.bundle)
            if isinstance(bundle, str):
                return
            update = Update(
                wanted.id, wanted.bundle, bundle.manifest_bytes, bundle.signature, wanted.terms.trial_frames
            )
            payload = encode(channels.UPDATE, update)
        where = channels.topic(self._settings.site, name, channels.UPDATE)
        sent = self._link.publish(where, payload, qos=channels.UPDATE.qos, retain=True, watch=False)
        if sent is None:
            self.counters["updates_not_sent"] += 1
            return
        self._devices[name].told = None if wanted is None else (wanted.id, wanted.bundle)


def _facts(name: str, device: Device) -> dict[str, Any]:
    return facts_of(name, str(device.state), device.capabilities)


def _sight(device: Device, rollout: Rollout) -> Sight:
    if rollout.slot.startswith("@"):  # capabilities say nothing of these
        return Sight(device.online, Installed(rollout.slot, rollout.bundle) in device.installed)
    versions = () if device.capabilities is None else device.capabilities.versions
    return Sight(device.online, CachedVersion(rollout.slot, rollout.sha256) in versions)


def run(settings: RolloutSettings, stop: threading.Event) -> None:
    """Roll out until ``stop`` is set; raises ``EdgeError`` when it cannot."""
    server = RolloutServer(settings)
    try:
        server.serve(stop)
    finally:
        server.close()
