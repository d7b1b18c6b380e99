"""An operator's connection to the broker of a site: reads the rules that are set, and sets others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from wire.channels import RULES, check_name, parse_topic, topic, topic_filter
from wire.codec import decode
from wire.errors import WireError
from wire.inbox import Inbox
from wire.link import Acknowledged, Connected, LinkSettings, Received, Subscription
from wire.messages import Rules
from wire.mqtt import Link

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

    def __init__(self, settings: OperatorSettings) -> None:
        self.rules: dict[str, Rules] = {}
        self._settings = settings
        self._inbox = Inbox()
        wanted = [Subscription(topic_filter(settings.site, RULES), RULES.qos)]
        name = f"operator-{settings.site}-{os.getpid()}-{time.time_ns() % 1_000_000}"
        link = replace(settings.link, session_expiry_s=0)
        self._link = Link(link, name, self._inbox, subscriptions=wanted, clean_start=True)

    def start(self) -> None:
        """Connect and take in what is retained; raises ``NotReached``."""
        self._link.start()
        patience_s = self._settings.link.connect_timeout_s
        self._until(lambda event: isinstance(event, Connected), patience_s, "is a broker there, and the account known?")
        while events := self._inbox.take(QUIET_S):
            for event in events:
                self._read(event)

    def say(self, name: str, payload: bytes) -> None:
        """Publish retained rules (none: clear them) and wait until the broker has them; raises ``NotReached``."""
        where = topic(self._settings.site, name, RULES)
        token = self._link.publish(where, payload, qos=RULES.qos, retain=RULES.retained)
        self._until(
            lambda event: isinstance(event, Acknowledged) and event.token == token,
            self._settings.link.connect_timeout_s,
            "may this account write rules?",
        )

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

    def _read(self, event: object) -> None:
        if isinstance(event, Received) and event.payload:
            self.rules[parse_topic(event.topic).name] = decode(RULES, event.payload)
