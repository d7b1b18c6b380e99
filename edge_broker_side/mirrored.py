"""What a mirror says for each message it hears: JSON, and the announcements that follow from it. Pure."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edge_broker_side.homeassistant import AWAY, HomeAssistantSettings, discovery, reported
from wire import channels
from wire.channels import Address, Channel
from wire.codec import decode
from wire.errors import PayloadError, TopicError
from wire.json_form import Labels, to_json, to_text
from wire.link import Received
from wire.messages import Capabilities, State, Telemetry

log = logging.getLogger(__name__)

MAX_JSON_BYTES = 256 * 1024
"""A few hundred bytes a frame; no honest message comes near."""
MAX_DEVICES = 10_000
ONLINE = b"online"


@dataclass(frozen=True, slots=True)
class Publication:
    """One thing to publish; an empty payload takes a retained one back."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


@dataclass(slots=True)
class _Device:
    """What is known of one device."""

    session: int = 0
    away: bool = False
    heard: bool = False
    """Whether telemetry has come, which tells what it can know."""
    known: frozenset[str] = frozenset()
    capabilities: Capabilities | None = None
    told: tuple[Capabilities, frozenset[str]] | None = None
    """What it was announced with."""


class Mirrored:
    """Messages in, publications out."""

    def __init__(
        self,
        site: str,
        mirrored: Sequence[Channel],
        labels: Labels,
        home_assistant: HomeAssistantSettings | None,
        counters: Counter[str],
    ) -> None:
        self._site = site
        self._mirrored = mirrored
        self._labels = labels
        self._home = home_assistant
        self._counters = counters
        self._devices: dict[str, _Device] = {}
        self._forgotten: set[str] = set()
        self._version = _own_version()

    @property
    def devices(self) -> int:
        """How many are known."""
        return len(self._devices)

    def filters(self) -> list[tuple[str, int]]:
        """Return what to subscribe to, with its QoS."""
        heard = dict.fromkeys((channels.STATE, *self._mirrored))
        if self._home is not None:
            heard |= dict.fromkeys((channels.CAPABILITIES, channels.TELEMETRY))
        wanted = [(channels.topic_filter(self._site, channel), channel.qos) for channel in heard]
        return wanted + ([(self._home.birth_topic, 1)] if self._home is not None else [])

    def take(self, event: Received, now_ms: int) -> list[Publication]:
        """Return what is to be said for a publication that was heard."""
        if self._home is not None and event.topic == self._home.birth_topic:
            return list(self._announce_all(self._home)) if event.payload == ONLINE else []
        try:
            address = channels.parse_topic(event.topic)
            return list(self._take(address, event.payload, now_ms))
        except (TopicError, PayloadError) as error:
            self._counters["refused_payload"] += 1
            log.warning("refused on %s: %s", event.topic[:120], error)
            return []

    def forget(self, device: str) -> list[Publication]:
        """Return what takes everything back that was ever said of a device; of it nothing is said any more."""
        self._forgotten.add(device)
        return list(self._take_back(device))

    def _take(self, address: Address, payload: bytes, now_ms: int) -> Iterator[Publication]:
        name, channel = address.name, address.channel
        if address.site != self._site or name in self._forgotten:
            self._counters["ignored"] += 1
            return
        if not payload:  # a retained message taken back; without its state a device is no more
            if channel is channels.STATE:
                yield from self._take_back(name)
            elif channel.retained and channel in self._mirrored:
                yield Publication(channels.json_topic(self._site, name, channel), b"", channel.qos, True)
            return
        message = decode(channel, payload)
        device = self._device(name)
        if device is None:
            self._counters["refused_device"] += 1
            return
        if isinstance(message, State):
            if message.session < device.session:  # a will that came after the next birth
                self._counters["stale_state"] += 1
                return
            device.session, device.away = message.session, message.state in AWAY
        yield from self._announce(name, device, message)
        if channel in self._mirrored:
            text = to_text(to_json(address, message, now_ms, self._labels)).encode()
            if len(text) > MAX_JSON_BYTES:
                raise PayloadError(channel.name, f"{len(text)} bytes of JSON, at most {MAX_JSON_BYTES} are said")
            self._counters[f"mirrored_{channel.name}"] += 1
            yield Publication(channels.json_topic(self._site, name, channel), text, channel.qos, channel.retained)

    def _device(self, name: str) -> _Device | None:
        device = self._devices.get(name)
        if device is None and len(self._devices) < MAX_DEVICES:
            device = self._devices[name] = _Device()
        return device

    def _take_back(self, name: str) -> Iterator[Publication]:
        """The announcement first: Home Assistant must not read an empty state."""
        self._devices.pop(name, None)
        if self._home is not None:
            yield Publication(self._home.topic(self._site, name), b"", 1, True)
        for channel in self._mirrored:
            if channel.retained:
                yield Publication(channels.json_topic(self._site, name, channel), b"", channel.qos, True)

    def _announce(self, name: str, device: _Device, message: Any) -> Iterator[Publication]:
        """Announce a device whenever there is something new to say of it.

        Not before it is known whole: after our restart an announcement with fewer sensors would replace a better one.
        """
        if self._home is None:
            return
        if isinstance(message, Capabilities):
            device.capabilities = message
        elif isinstance(message, Telemetry):
            device.heard, device.known = True, device.known | reported(message)
        if device.capabilities is not None and (device.heard or device.away):
            facts = device.capabilities, device.known
            if facts != device.told:
                device.told = facts
                yield self._announcement(self._home, name, *facts)

    def _announce_all(self, home: HomeAssistantSettings) -> Iterator[Publication]:
        self._counters["announced_anew"] += 1
        for name, device in self._devices.items():
            if device.told is not None:
                yield self._announcement(home, name, *device.told)

    def _announcement(
        self, home: HomeAssistantSettings, name: str, capabilities: Capabilities, known: frozenset[str]
    ) -> Publication:
        document = discovery(self._site, name, capabilities, known, self._version)
        return Publication(home.topic(self._site, name), to_text(document).encode(), 1, True)


def _own_version() -> str:
    try:
        return version("splitfleet")
    except PackageNotFoundError:  # run from a clone that is not installed
        return "0"
