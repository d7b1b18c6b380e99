"""The mirror: says what devices say again as JSON, for those who read no MessagePack, and announces the devices."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_broker_side.errors import EdgeError
from edge_broker_side.homeassistant import HomeAssistantSettings
from edge_broker_side.mirrored import Mirrored, Publication
from tflite_models.catalog import load_catalog
from wire import channels
from wire.channels import CHANNELS
from wire.exposition import Exposition, PrometheusSettings
from wire.inbox import Inbox
from wire.link import LinkSettings, Received, Subscription
from wire.mqtt import Link

log = logging.getLogger(__name__)

IDLE_S = 0.2
REPORT_EVERY_S = 1.0
SUMMARY_EVERY_S = 300.0
MAX_WAITING = 500
"""Publications on their way at once, before retained ones wait here: of a large site there are thousands at the start,
and one that was refused for want of room would leave its topic wrong until the next change."""
MIRRORED = tuple(name for name, channel in CHANNELS.items() if channel.as_json)


@dataclass(frozen=True, slots=True)
class MirrorSettings:
    """One mirror; one per site."""

    site: str
    name: str = "mirror"
    link: LinkSettings = field(default_factory=LinkSettings)
    channels: tuple[str, ...] = MIRRORED
    """Which channels; fewer are less work for the broker."""
    models: str | None = None
    """A folder of model folders: what the labels are called. Nowhere else is that known here."""
    home_assistant: HomeAssistantSettings | None = None
    """Announce every device to Home Assistant."""
    forget: tuple[str, ...] = ()
    """Devices that are gone: what was said of them is taken back, and nothing is said any more."""
    prometheus: PrometheusSettings | None = None
    log_level: str = "info"

    def __post_init__(self) -> None:
        channels.check_name(self.site, "site")
        channels.check_name(self.name, "name")
        for name in self.channels:
            if name not in MIRRORED:
                raise ValueError(f"channels = '{name}' is none of {', '.join(MIRRORED)}")
        if self.home_assistant is not None and set(self.channels) != set(MIRRORED):
            raise ValueError("home_assistant needs every channel: leave channels out, or run a second mirror")
        for name in self.forget:
            channels.check_name(name, "forget")


@dataclass(frozen=True, slots=True)
class MirrorState:
    """What Prometheus is told of a mirror."""

    devices: int
    """Known by now."""
    owed: int
    """Retained publications that wait for room."""
    counters: Mapping[str, int]


class Mirror:
    """The loop's state; every method runs in the loop thread."""

    def __init__(self, settings: MirrorSettings, clock: Callable[[], float] = time.time) -> None:
        self.counters: Counter[str] = Counter()
        self._settings = settings
        self._clock = clock
        self._inbox = Inbox()
        self._owed: dict[str, Publication] = {}
        self._report_at_s = 0.0
        self._summary_at_s = time.monotonic() + SUMMARY_EVERY_S
        self._mirrored = _mirrored(settings, self.counters)
        asked = settings.prometheus
        self._exposition = Exposition(asked, "mirror", settings.site, settings.name) if asked else None
        self._link = Link(
            settings.link,
            f"{settings.site}-{settings.name}",
            self._inbox,
            subscriptions=[Subscription(where, qos) for where, qos in self._mirrored.filters()],
        )

    def serve(self, stop: threading.Event) -> None:
        """Mirror until ``stop`` is set."""
        self._link.start()
        for device in self._settings.forget:
            self._say(self._mirrored.forget(device))
        while not stop.is_set():
            self.turn(IDLE_S)
            if not self._link.alive:
                raise EdgeError("the link's thread has ended: see the log")

    def close(self) -> None:
        """Say goodbye, and what was done."""
        self._link.stop()
        if self._exposition is not None:
            self._exposition.close()
        log.info("stopped: %s", self._all_counters())

    def turn(self, idle_s: float) -> None:
        """Take what has arrived and say it again."""
        now_ms = int(self._clock() * 1000)
        for event in self._inbox.take(idle_s):
            if isinstance(event, Received):
                self._say(self._mirrored.take(event, now_ms))
        self._pay()
        self._report(time.monotonic())

    def _say(self, publications: list[Publication]) -> None:
        for said in publications:
            if said.retain:
                self._owed.pop(said.topic, None)  # the newest last: order is kept topic by topic and between them
                self._owed[said.topic] = said
            elif self._publish(said) is None:
                self.counters["not_sent"] += 1

    def _pay(self) -> None:
        """Publish what is owed, as far as there is room."""
        while self._owed and self._link.waiting < MAX_WAITING:
            topic, said = next(iter(self._owed.items()))
            if self._publish(said) is None and self._link.waiting:
                return  # full after all; later
            del self._owed[topic]

    def _publish(self, said: Publication) -> int | None:
        return self._link.publish(said.topic, said.payload, qos=said.qos, retain=said.retain, watch=False)

    def _all_counters(self) -> dict[str, int]:
        link = {f"link_{name}": count for name, count in dict(self._link.counters).items()}
        return {**self.counters, **link, "inbox_refused": self._inbox.refused}

    def _report(self, now_s: float) -> None:
        if now_s >= self._report_at_s and self._exposition is not None:
            self._report_at_s = now_s + REPORT_EVERY_S
            self._exposition.show(MirrorState(self._mirrored.devices, len(self._owed), self._all_counters()))
        if now_s >= self._summary_at_s:
            self._summary_at_s = now_s + SUMMARY_EVERY_S
            log.info("so far: %s", self._all_counters())


def _mirrored(settings: MirrorSettings, counters: Counter[str]) -> Mirrored:
    models = load_catalog(Path(settings.models)) if settings.models is not None else ()
    labels = {version.name: version.labels for version in models}
    said = [CHANNELS[name] for name in settings.channels]
    return Mirrored(settings.site, said, labels, settings.home_assistant, counters)


def run(settings: MirrorSettings, stop: threading.Event) -> None:
    """Mirror until ``stop`` is set; raises ``EdgeError`` when it cannot."""
    mirror = Mirror(settings)
    try:
        mirror.serve(stop)
    finally:
        mirror.close()


def forget(settings: MirrorSettings, device: str) -> None:
    """Take back what a mirror with these settings said of a device; raises ``EdgeError`` when it cannot."""
    mirrored = _mirrored(settings, Counter())
    # A name of its own leaves the running mirror alone, where the broker does not name clients by account.
    name = f"{settings.site}-{settings.name}-forget"
    link = Link(dataclasses.replace(settings.link, session_expiry_s=0), name, Inbox(), clean_start=True)
    for said in mirrored.forget(channels.check_name(device, "device")):
        link.publish(said.topic, said.payload, qos=said.qos, retain=said.retain, watch=False)
    link.start()
    end_s = time.monotonic() + settings.link.connect_timeout_s
    while link.waiting and time.monotonic() < end_s:
        time.sleep(IDLE_S / 10)
    left, refused = link.waiting, link.counters["refused_by_broker"]
    link.stop(drain_s=0)
    if left or refused:
        where = f"{settings.link.host}:{settings.link.port}"
        why = "may this account write as a mirror?" if refused else "is a broker there, and the account known?"
        raise EdgeError(f"what was said of {device} is not taken back at {where}: {why}")
