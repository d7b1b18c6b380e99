"""The thread that carries out updates beside the client's loop: its disk writes and hashes must not hold up frames."""

from __future__ import annotations

import logging
import platform
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from device_client.settings import DeviceSettings, UpdateSettings
from device_client.updates.shelf import stocked
from device_client.updates.signature import verify
from device_client.updates.start import Start
from device_client.updates.testing import Test, command_of
from device_client.updates.trial import Board
from device_client.updates.updater import Effect, Restart, SelfTest, Switch, Updater
from tflite_models.catalog import Catalog, ModelsError
from wire import channels, codec
from wire.inbox import Inbox
from wire.link import Connected, Disconnected
from wire.messages import Chunk, Fetch, Update, UpdateState
from wire.mqtt import Link

log = logging.getLogger(__name__)

FETCH_EXPIRES_S = 10
POLL_S = 0.1
"""How often a self-test under way is looked at."""


@dataclass(frozen=True, slots=True)
class Serve:
    """To the client: these are the versions from now on, and ``trial`` is to be served and told of."""

    catalog: Catalog
    trial: str | None


@dataclass(frozen=True, slots=True)
class Served:
    """From the client: a frame of the trial ended."""

    ok: bool


@dataclass(frozen=True, slots=True)
class Switched:
    """From the client: it serves the version on trial; models failed at this share of the frames before."""

    failed_before: float


@dataclass(frozen=True, slots=True)
class CannotSwitch:
    """From the client: it cannot serve what it was told to."""

    problem: str


class Withdrawn:
    """From the client: the retained ``update`` was cleared."""


class Testing(Protocol):
    """A self-test under way."""

    def outcome(self) -> str | None:
        """Return ``None`` while it runs, an empty text when the version works, else what is wrong."""

    def stop(self) -> None:
        """End it."""


class Agent:
    """One board's updates. The client calls; the thread works; ``Serve`` goes to the client's inbox."""

    def __init__(
        self, settings: DeviceSettings, updates: UpdateSettings, session: int, runtime: str, start: Start | None = None
    ) -> None:
        """Open the shelf and take stock, where the ``start`` has not; raises ``DeviceError`` or ``CatalogError``."""
        self._settings = settings
        self._file = None if start is None else start.file
        self._shelf = stocked(settings) if start is None or start.shelf is None else start.shelf
        self._inbox = Inbox()
        self._stop = threading.Event()
        self._test: Testing | None = None
        self._link: Link | None = None
        self._tell: Callable[[object], object] = lambda _: None
        self.updater = Updater(
            self._shelf, Board(platform.machine(), runtime), updates,
            lambda manifest, signature: verify(updates.key, manifest, signature),
            session, random.Random(f"{settings.site}/{settings.name}/{session}/updates"),
            lambda: time.time_ns() // 1_000_000,
        )  # fmt: skip
        trial = self._shelf.held.trial
        self.restarted = trial is not None and trial.slot.startswith("@")
        """Whether this very client, or its settings, are on trial: then every frame tells."""
        self.first = Serve(self._shelf.catalog(), trial.slot if trial and not self.restarted else None)
        """What to serve at the start."""
        self._thread = threading.Thread(target=self._run, name=f"updates-{settings.name}", daemon=True)

    def leave(self, problem: str) -> Catalog:
        """Before ``start``: go back from the version on trial, and return what to serve instead."""
        self.updater.cannot_switch(problem, time.monotonic())
        self.first = Serve(self._shelf.catalog(), None)
        return self.first.catalog

    def start(self, link: Link | None, tell: Callable[[object], object]) -> None:
        """Begin to work; ``tell`` is called in the thread."""
        self._link, self._tell = link, tell
        self._thread.start()

    def take(self, event: object, size: int = 0) -> None:
        """Hand over an event; any thread may."""
        self._inbox.put(event, size)

    def stop(self) -> None:
        """End the thread; an update under way goes on at the next start."""
        self._stop.set()
        self.take(None)
        if self._thread.is_alive():
            self._thread.join()
        if self._test is not None:
            self._test.stop()

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._turn()
            except Exception:  # the outermost loop: an update must never take the client down
                self.updater.counters["update_errors"] += 1
                log.exception("the update goes on in a moment")
                self._stop.wait(1.0)

    def _turn(self) -> None:
        now_s = time.monotonic()
        patience_s = POLL_S if self._test is not None else self.updater.next_wake_s(now_s) - now_s
        for event in self._inbox.take(max(0.0, min(patience_s, 1.0))):
            self._carry_out(self._handle(event, time.monotonic()))
        if self._test is not None and (problem := self._test.outcome()) is not None:
            self._test = None
            self._carry_out(self.updater.tested(problem, time.monotonic()))
        self._carry_out(self.updater.tend(time.monotonic()))

    def _handle(self, event: object, now_s: float) -> list[Effect]:
        match event:
            case Update():
                return self.updater.wanted(event, now_s)
            case Withdrawn():
                return self.updater.withdrawn(now_s)
            case Chunk():
                return self.updater.arrived(event, now_s)
            case Served():
                return self.updater.served(ok=event.ok, now_s=now_s)
            case Switched():
                self.updater.switched(event.failed_before, now_s)
            case CannotSwitch():
                return self.updater.cannot_switch(event.problem, now_s)
            case Connected():
                return self.updater.connected(now_s)
            case Disconnected():
                self.updater.disconnected()
        return []

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case UpdateState():
                    self._publish(channels.UPDATE_STATE, effect)
                case Fetch():
                    self._publish(channels.FETCH, effect)
                case SelfTest():
                    self._begin_test(effect)
                case Switch():
                    self._switch(effect)
                case Restart():
                    self._tell(effect)

    def _switch(self, wanted: Switch) -> None:
        try:
            self._tell(Serve(self._shelf.catalog(), wanted.trial))
        except ModelsError as error:
            log.error("the versions cannot be read: %s", error)
            if wanted.trial is not None:
                self._carry_out(self.updater.cannot_switch(str(error), time.monotonic()))

    def _begin_test(self, wanted: SelfTest) -> None:
        if self._test is not None:
            self._test.stop()
        try:
            self._test = self.make_test(wanted)
        except OSError as error:
            self._test = None
            self._carry_out(self.updater.tested(f"the self-test cannot start: {error}", time.monotonic()))

    def make_test(self, wanted: SelfTest) -> Testing:
        """Start the self-test of a version; a bench with hundreds of devices in one process has a cheaper one."""
        return Test(*command_of(wanted, self._settings, self._file))

    def _publish(self, channel: channels.Channel, message: object) -> None:
        if self._link is None:
            return
        where = channels.topic(self._settings.site, self._settings.name, channel)
        expires_ns = None if channel.retained else time.monotonic_ns() + FETCH_EXPIRES_S * 10**9
        payload = codec.encode(channel, message)
        self._link.publish(where, payload, qos=channel.qos, retain=channel.retained, expires_ns=expires_ns, watch=False)
