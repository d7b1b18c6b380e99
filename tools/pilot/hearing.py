"""What a pilot hears while it runs, kept for its report, and who decides by what the service says last."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from policy.rules import DEFAULTS
from tools.operator_link import Operator
from tools.pilot.frames import FrameBook
from tools.pilot.profile import SiteProfile
from tools.pilot.schedule import Stretch
from wire import channels
from wire.channels import parse_topic
from wire.codec import decode
from wire.errors import WireError
from wire.link import Disconnected, Received
from wire.messages import Capabilities, Decision, Outcomes, PolicyState, Telemetry

log = logging.getLogger(__name__)

FOLLOWED = (channels.CAPABILITIES, channels.TELEMETRY, channels.OUTCOMES, channels.DECISION, channels.POLICY_STATE)
SILENT_S = 20.0
"""A service that says nothing for so long, or for three of its periods, is gone."""


@dataclass
class Record:
    """What a pilot has seen."""

    book: FrameBook = field(default_factory=FrameBook)
    profile: SiteProfile = field(default_factory=SiteProfile)
    stretches: list[Stretch] = field(default_factory=list)
    policy: str = ""
    """The site's own."""
    interrupted: str = ""
    """Why it is partial, in words; empty: it is whole."""
    notes: list[str] = field(default_factory=list)
    unreadable: int = 0
    """Messages that were none."""


class Hearing:
    """Takes in what comes of ``FOLLOWED``."""

    def __init__(self, operator: Operator, record: Record) -> None:
        self.deciding: str | None = None
        """The policy that was asked to decide, as the service said last; ``None``: it has said nothing yet."""
        self.problems: tuple[str, ...] = ()
        """What the service refused, of its last message that names anything."""
        self.gone = ""
        """Why the broker was lost, if it was."""
        self._operator = operator
        self._record = record
        self._heard_s = 0.0
        self._period_s = 0.0

    def take(self, timeout_s: float) -> None:
        """Take in everything that is there, waiting for the first of it."""
        for event in self._operator.take(timeout_s):
            match event:
                case Received():
                    self._read(event)
                case Disconnected(reason):
                    self.gone = reason

    def silent_s(self) -> float | None:
        """Return for how long the decision service has said nothing, where that is too long."""
        silent_s = time.monotonic() - self._heard_s
        return silent_s if self.deciding is not None and silent_s > max(SILENT_S, 3 * self._period_s) else None

    def _read(self, event: Received) -> None:
        try:
            address = parse_topic(event.topic)
            if event.payload:
                self._take(address.name, decode(address.channel, event.payload), event.arrived_ns / 1e9)
        except WireError as error:
            self._record.unreadable += 1
            log.warning("%s: %s", event.topic[:120], error)

    def _take(self, name: str, message: object, arrived_s: float) -> None:
        record = self._record
        match message:
            case Outcomes():
                record.book.outcomes(name, message)
            case PolicyState():
                self.deciding, self._heard_s = message.policy, arrived_s
                self._period_s = max(self._period_s, message.period_ms / 1000)
                self.problems = message.problems or self.problems
            case Telemetry():
                record.profile.take(name, message)
                record.book.telemetry(name, message, arrived_s)
            case Capabilities() | Decision():
                record.profile.take(name, message)

    def refusal(self, rev: int) -> str:
        """Return why the service refused the rules of every device of that revision; empty where it did not."""
        mine = [problem for problem in self.problems if problem.startswith(f"rules {rev} of {DEFAULTS}:")]
        return mine[0] if mine else ""
