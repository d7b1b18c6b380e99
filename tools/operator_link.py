"""An operator's connection to the broker of a site: reads the rules that are set and whatever else, sets others."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from wire.channels import RULES, Channel, check_name, parse_topic, topic, topic_filter
from wire.codec import decode
from wire.errors import WireError
from wire.inbox import Inbox
from wire.link import Acknowledged, Connected, LinkSettings, Received, Subscription
from wire.messages import Rules
from wire.mqtt import Link

log = logging.getLogger(__name__)

QUIET_S = 0.5
"""Nothing retained comes any more when nothing has come for so long after connecting."""


class NotReached(WireError):
    """The broker did not answer."""


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """Where the broker of a site is, and as whom to come."""

    site: str = "default"
    link: LinkSettings = field(default_factory=LinkSettings)

    def __post_init__(self) -> None:
        check_name(self.site, "site")


class Operator:
    """A connected account of role operator, with the rules that the broker retains."""

    def __init__(self, settings: OperatorSettings, follow: Sequence[Channel] = ()) -> None:
        """``follow``: channels to hear beside the rules, since an account has one connection at a time."""
        self.rules: dict[str, Rules] = {}
        self._settings = settings
        self._inbox = Inbox()
        self._heard: list[object] = []
        wanted = [Subscription(topic_filter(settings.site, channel), channel.qos) for channel in (RULES, *follow)]
        name = f"operator-{settings.site}-{os.getpid()}-{time.time_ns() % 1_000_000}"
        link = replace(settings.link, session_expiry_s=0)
        self._link = Link(link, name, self._inbox, subscriptions=wanted, clean_start=True)

    def start(self) -> None:
        """Connect and take in what is retained; raises ``NotReached``."""
        self._link.start()
        patience_s = self._settings.link.connect_timeout_s
        self._until(lambda event: isinstance(event, Connected), patience_s, "is a broker there, and the account known?")
        quiet_s = time.monotonic() + QUIET_S
        while (left_s := quiet_s - time.monotonic()) > 0:
            for event in self._inbox.take(left_s):
                quiet_s = time.monotonic() + QUIET_S if self._read(event) else quiet_s

    def say(self, name: str, payload: bytes) -> None:
        """Publish retained rules (none: clear them) and wait until the broker has them; raises ``NotReached``."""
        where = topic(self._settings.site, name, RULES)
        token = self._link.publish(where, payload, qos=RULES.qos, retain=RULES.retained)
        self._until(
            lambda event: isinstance(event, Acknowledged) and event.token == token,
            self._settings.link.connect_timeout_s,
            "may this account write rules?",
        )

    def take(self, timeout_s: float) -> list[object]:
        """Return events since the last call, but for rules: those are read; wait for the first if there is none."""
        for event in self._inbox.take(0.0 if self._heard else timeout_s):
            self._read(event)
        heard, self._heard = self._heard, []
        return heard

    def stop(self) -> None:
        """Disconnect."""
        self._link.stop()

    def _until(self, reached: Callable[[object], bool], patience_s: float, advice: str) -> None:
        deadline_s = time.monotonic() + patience_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            events = self._inbox.take(left_s)
            for event in events:
                self._read(event)
            if any(reached(event) for event in events):
                return
        where = f"{self._settings.link.host}:{self._settings.link.port}"
        raise NotReached(f"no answer from {where} within {patience_s:g} s: {advice}")

    def _read(self, event: object) -> bool:
        """Take in rules; return whether it was such a message."""
        if isinstance(event, Received) and (address := parse_topic(event.topic)).channel is RULES:
            self._take_rules(address.name, event.payload)
            return True
        self._heard.append(event)
        return False

    def _take_rules(self, name: str, payload: bytes) -> None:
        if not payload:
            self.rules.pop(name, None)
            return
        try:
            self.rules[name] = decode(RULES, payload)
        except WireError as error:
            log.warning("the rules of %s cannot be read: %s", name, error)
