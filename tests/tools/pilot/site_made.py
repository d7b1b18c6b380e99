"""A site that is nothing but its messages: a device that tells its frames, and a service that obeys rules."""

from __future__ import annotations

import threading
import time
from typing import Any

from edge_broker_side.broker import Broker
from wire import channels
from wire.channels import Channel, parse_topic, topic, topic_filter
from wire.codec import decode, encode
from wire.inbox import Inbox
from wire.link import LinkSettings, Received, Subscription
from wire.messages import (
    Capabilities,
    EnergySource,
    FrameOutcome,
    Outcome,
    Outcomes,
    PolicyState,
    Rules,
    Telemetry,
)
from wire.mqtt import Link
from wire.plan import Plan

LOCAL, REMOTE = Plan("light", "output", "none"), Plan("heavy", "input", "webp50")
OWN = "pricing"
AHEAD_MS = 7_200_000
"""The device's clock is two hours ahead: nobody's clock may be believed."""


class MadeSite:
    """Runs in a thread of its own; ``quiet``: the service says nothing, ``deaf``: nor obeys, ``mute``: nor says why."""

    def __init__(self, broker: Broker, site: str) -> None:
        self.quiet = self.deaf = self.mute = False
        self.heard: list[Rules | None] = []
        """Every rule for all devices, ``None``: cleared."""
        self._site = site
        self._inbox = Inbox()
        self._policy = OWN
        self._problems: tuple[str, ...] = ()
        wanted = [Subscription(topic_filter(site, channels.RULES), 1)]
        settings = LinkSettings(host=broker.host, port=broker.port, backoff_min_s=0.05, backoff_max_s=0.2)
        self._link = Link(settings, f"made-{site}", self._inbox, subscriptions=wanted)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._frame = 0

    def __enter__(self) -> MadeSite:
        self._link.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._link.stop(drain_s=0.2)

    def set_rules(self, rules: Rules, name: str = "defaults") -> None:
        """Set rules as somebody else."""
        self._say(channels.RULES, rules, name)

    def garble(self, name: str) -> None:
        """Retain what is no message; tell outcomes that are none, too."""
        self._link.publish(topic(self._site, name, channels.OUTCOMES), b"rubbish", qos=1, watch=False)
        self._link.publish(topic(self._site, name, channels.RULES), b"rubbish", qos=1, retain=True, watch=False)

    def _run(self) -> None:
        self._say(channels.CAPABILITIES, Capabilities(
            1, "0", "made", "made", "none", 1, 1, (), (), EnergySource.MODELLED, fps=20.0, deadline_ms=300.0,
        ))  # fmt: skip
        seq = 0
        while not self._stop.is_set():
            seq += 1
            changed = False
            for event in self._inbox.take(0.05):
                if isinstance(event, Received) and parse_topic(event.topic).name == "defaults":
                    changed |= self._obey(decode(channels.RULES, event.payload) if event.payload else None)
            if changed or (seq % 4 == 0 and not self.quiet):
                state = PolicyState(1, 0, 200.0, self._policy, self._policy, 1, 0, problems=self._problems)
                self._problems = ()  # told once
                self._say(channels.POLICY_STATE, state, "policy")
            self._tell(seq)

    def _obey(self, rules: Rules | None) -> bool:
        self.heard.append(rules)
        if self.deaf:
            self._problems = (
                (f"rules {rules.rev} of defaults: a promotion is in progress",) if rules and not self.mute else ()
            )
            return False
        lasts = rules is not None and rules.at_ms / 1000 + (rules.policy_for_s or 0.0) > time.time()
        before, self._policy = self._policy, (rules and lasts and rules.policy) or OWN
        return self._policy != before

    def _tell(self, seq: int) -> None:
        now_ms = round(time.time() * 1000) + AHEAD_MS
        local = self._policy == "local"
        self._frame += 1
        plan, outcome = (LOCAL, Outcome.DEVICE) if local else (REMOTE, Outcome.EDGE)
        row = FrameOutcome(self._frame, outcome, 0, now_ms, 90.0 if local else 30.0, energy_mj=5.0)
        self._say(channels.OUTCOMES, Outcomes(1, self._frame, self._frame, (plan,), (row,)))
        self._say(channels.TELEMETRY, Telemetry(1, seq, now_ms, plan, 0, 20.0, 0, 0, uplink_bps=8e6, rtt_ms=5.0))

    def _say(self, channel: Channel, message: Any, name: str = "cam") -> None:
        where, payload = topic(self._site, name, channel), encode(channel, message)
        self._link.publish(where, payload, qos=1, retain=channel.retained, watch=False)
