"""The decision service: telemetry in, retained decisions out."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from policy.decider import Issued
from policy.errors import PolicyError
from policy.guard import FALLBACK
from policy.hearing import Hearing
from policy.parts import Parts, assemble, measured
from policy.registry import make_policy
from policy.settings import PolicySettings
from policy.shelf import ProfileShelf
from policy.telling import shadow_messages, state_message
from wire import channels
from wire import messages as m
from wire.channels import Channel, topic, topic_filter
from wire.codec import encode
from wire.errors import WireError
from wire.exposition import Exposition
from wire.inbox import Inbox
from wire.link import Acknowledged, Connected, Disconnected, NotSent, Received, Subscription
from wire.mqtt import Link

__all__ = ["HEARD", "PolicySettings", "Service", "run"]

log = logging.getLogger(__name__)

HEARD = (
    channels.RULES,  # before the devices they are for: what the broker retains comes in this order
    channels.STATE,
    channels.CAPABILITIES,
    channels.TELEMETRY,
    channels.DECISION,
    channels.WORKER_STATE,
    channels.WORKER_LOAD,
)
SETTLE_S = 0.3
"""After connecting: time for everything retained to arrive, our own decisions before all."""
FORGET_S = 5.0
"""After connecting: rules that the broker has not shown by then were cleared meanwhile. Late enough for a slow link,
since rules that are forgotten may let a picture leave its device."""
LEAST_PAUSE_S = 0.1
"""Between two rounds, however often devices appear."""
SUMMARY_S = 60.0


def run(settings: PolicySettings, stop: threading.Event, file: Path | None = None) -> None:
    """Serve until ``stop`` is set; ``file`` is where the settings are from, and its rules are followed as they change.

    Raises ``PolicyError`` when models, profiles or settings cannot be used.
    """
    catalog, model = measured(settings)
    shelf = ProfileShelf(Path(settings.profiles))
    parts = assemble(settings, model, catalog, shelf, file)
    exposition = None
    if settings.prometheus is not None:
        exposition = Exposition(settings.prometheus, "policy", settings.site, settings.name)
    inbox = Inbox()
    link = Link(
        settings.link,
        f"policy-{settings.site}-{settings.name}",
        inbox,
        subscriptions=[Subscription(topic_filter(settings.site, c), c.qos) for c in HEARD],
        clean_start=True,  # telemetry queued while we were away would pass for fresh
    )
    service = Service(settings, parts, link.publish, link.counters)
    if exposition is not None:
        service.show = exposition.show
    link.start()
    log.info(_line("serving", policy=settings.policy, site=settings.site, plans=len(model.table)))
    try:
        while not stop.is_set():
            if not link.alive:
                raise PolicyError("the link's thread has ended")
            service.step(inbox.take(min(0.2, settings.period_s)), time.monotonic())
            service.counters["refused_inbox_full"] = inbox.refused
    finally:
        link.stop()
        if exposition is not None:
            exposition.close()
        service.summarise()


class Service:
    """The loop's body: what was heard goes to its part, decisions go out. Not thread-safe."""

    def __init__(
        self,
        settings: PolicySettings,
        parts: Parts,
        publish: Callable[..., int | None],
        link_counters: Counter[str],
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.show: Callable[[m.PolicyState], None] = lambda _: None
        """Is given every message about the service itself."""
        self._link_counters = link_counters
        self._settings = settings
        self._parts = parts
        self._hearing = Hearing(parts.decider, parts.fleet, parts.book, parts.trial)
        self._publish = publish
        self._rng = np.random.default_rng(settings.seed)
        self._reference = make_policy(FALLBACK, parts.model, settings.rules.fixed_plans())
        self._session = time.time_ns() // 1_000_000
        self._connected = False
        self._next_s = 0.0
        self._settled_s = 0.0
        self._forget_s: float | None = None
        self._last_s = 0.0
        self._summary_s: float | None = None
        self._state_s: float | None = None
        self._state_soon = False
        self._shadow_s = 0.0
        self._spent_ms: list[float] = []
        self._issued = 0

    def step(self, events: list[Any], now_s: float) -> None:
        """Take in events of the link and, when it is time, decide and publish."""
        for event in events:
            match event:
                case Received():
                    self._received(event)
                case Connected():
                    self._connected = True
                    self._parts.decider.connected()
                    self._parts.book.connected()
                    self._next_s = self._settled_s = now_s + SETTLE_S
                    self._forget_s = now_s + FORGET_S
                case Disconnected(reason):
                    self._connected = False
                    self._forget_s = None  # what was not shown was not cleared: the next connection tells
                    log.info(_line("disconnected", reason=reason))
                case NotSent(_, reason):
                    self.counters[f"not_sent_{reason}"] += 1
                case Acknowledged():
                    self.counters["acknowledged"] += 1
        self._safely(self._refresh, now_s)
        decides = self._connected and now_s >= self._next_s
        if decides:
            self._next_s = now_s + self._settings.period_s
            self._last_s = now_s
            self._safely(self._promote, now_s)
            self._safely(self._decide, now_s)
            self._safely(self._watch, now_s)
        self._state_s = now_s if self._state_s is None else self._state_s
        is_due = now_s - self._state_s >= self._settings.state_period_s
        if self._connected and (is_due or (decides and self._state_soon)):  # after the first round of a new policy
            self._safely(self._tell_state, now_s)
            self._state_s, self._state_soon = now_s, False
        self._summary_s = now_s if self._summary_s is None else self._summary_s
        if now_s - self._summary_s >= SUMMARY_S:
            self._summary_s = now_s
            self.summarise()

    def summarise(self) -> None:
        """Log every counter that is not zero."""
        factor = self._parts.fleet.calibration.factor
        log.info(_line("counters", edge_calibration=round(factor, 3), **self._all_counters()))

    def _safely(self, act: Callable[[float], None], now_s: float) -> None:
        try:
            act(now_s)
        except Exception:  # the outermost loop: the last good decisions stay while the cause is in the log
            self.counters[f"{act.__name__.strip('_')}_errors"] += 1
            log.exception("no %s this period", act.__name__.strip("_"))

    def _received(self, event: Received) -> None:
        self._hearing.take(event)
        if self._hearing.new_rules:
            self._follow_rules()
        if self._hearing.soon or self._hearing.new_rules:
            # Something came or went: decide before the period is over, but not while retained messages arrive.
            soonest_s = max(event.arrived_ns / 1e9, self._settled_s, self._last_s + LEAST_PAUSE_S)
            self._next_s = min(self._next_s, soonest_s)

    # -- between two decisions -------------------------------------------------------------------------------------

    def _refresh(self, now_s: float) -> None:
        """Swap in weights and rules that are new, and who decides."""
        parts = self._parts
        for chosen in (parts.acting, parts.trial.guest):
            if chosen is not None and chosen.refresh(now_s):
                log.info(_line("weights", policy=chosen.name, sha256=chosen.weights))
        if parts.watching is not None and parts.shadow is not None:
            parts.watching.refresh(now_s)
            parts.shadow.policy = parts.watching.policy
        if self._forget_s is not None and now_s >= self._forget_s:
            self._forget_s = None
            if parts.book.settled():
                self._follow_rules()
        if parts.file is not None and parts.file.look(now_s) and parts.file.value is not None:
            try:
                changed = parts.book.refile(parts.file.value)
            except PolicyError as error:
                self._problem(f"the file's rules: {error}")
                return
            if changed:
                self._follow_rules()
                self._next_s = min(self._next_s, max(now_s, self._settled_s))
        self._turn(now_s)

    def _turn(self, now_s: float) -> None:
        """Let a trial begin or end when it is time, and tell so at once."""
        parts = self._parts
        lasted = parts.trial.on_trial
        try:
            if not parts.trial.turn(parts.book.trial, parts.book.rules, now_s):
                return
        except PolicyError as error:
            self._problem(str(error))
        parts.trial.chosen.refresh(now_s)
        if lasted and parts.promoting is not None:
            parts.promoting.pass_over()
        parts.decider.act_by(parts.deciding)
        log.info(_line("deciding", policy=parts.trial.chosen.name, on_trial=parts.trial.on_trial))
        self._state_soon = True
        self._next_s = min(self._next_s, max(now_s, self._settled_s, self._last_s + LEAST_PAUSE_S))

    def _follow_rules(self) -> None:
        parts = self._parts
        parts.fleet.rules = parts.book.rules
        self.counters["rules_changed"] += 1
        log.info(_line("rules changed"))
        for chosen in (parts.acting, parts.trial.guest, parts.watching):
            try:
                if chosen is not None:
                    chosen.follow(parts.book.rules)
            except PolicyError as error:
                self._problem(f"the plans before stay: {error}")
        if parts.promoting is not None:
            parts.promoting.follow(parts.book.rules)
        parts.decider.act_by(parts.deciding)

    def _promote(self, now_s: float) -> None:
        """Let a promotion go on."""
        if self._parts.promoting is None or self._parts.trial.on_trial:
            return  # what is asked for meanwhile waits: the rewards of a trial are not the incumbent's
        for event in self._parts.promoting.turn(now_s):
            log.info(_line("promotion", kind=event.kind, text=event.text))

    def _problem(self, words: str) -> None:
        self.counters["rules_refused"] += 1
        self._hearing.problems.append(words[:300])
        log.error("%s", words)

    # -- deciding --------------------------------------------------------------------------------------------------

    def _decide(self, now_s: float) -> None:
        begun = time.perf_counter()
        decisions = self._parts.decider.decide(now_s, self._rng)
        self._spent_ms.append((time.perf_counter() - begun) * 1000)
        for issued in decisions:
            self._tell(issued)
        last = self._parts.decider.last
        if last is not None:
            told = self._parts.decider.plans()
            self._parts.monitor.saw(now_s, {d.name: told[d.name] for d in last.fleet.devices if d.name in told})

    def _watch(self, now_s: float) -> None:
        """Let the shadow decide too, after everything that acts has been published."""
        shadow, last = self._parts.shadow, self._parts.decider.last
        if shadow is None or last is None:
            return
        shadow.watch(last.fleet, last.choices)
        if now_s - self._shadow_s >= self._settings.shadow_period_s:
            self._shadow_s = now_s
            names = self._parts.trial.chosen.name, self._settings.shadow
            for message in shadow_messages(shadow.rows(), *names, _now_ms()):
                self._say(channels.SHADOW, self._settings.name, message)

    def _tell(self, issued: Issued) -> None:
        message = m.Decision(issued.rev, issued.plan, issued.deadline_ms, issued.policy, issued.reason, at_ms=_now_ms())
        sent = self._say(channels.DECISION, issued.device, message)
        if sent:
            self.counters["decisions"] += 1
            self._issued += 1
            what = {"device": issued.device, "rev": issued.rev, "plan": str(issued.plan), "reason": issued.reason}
            log.info(_line("decision", **what))
        elif sent is False:
            self._parts.decider.not_told(issued.device)

    def _tell_state(self, now_s: float) -> None:
        period_ms = 1000 * (now_s - (self._state_s or now_s))
        state = state_message(self._parts, self._spent_ms, self._collapse(), period_ms)
        state = replace(
            state,
            session=self._session,
            at_ms=_now_ms(),
            decisions=self._issued,
            counters=self._all_counters(),
            problems=self._take_problems(),
        )
        self._spent_ms, self._issued = [], 0
        self.show(state)
        self._say(channels.POLICY_STATE, self._settings.name, state)

    def _collapse(self) -> str:
        """Return in words how the plans have collapsed; the reference is asked only where that may be."""
        last, who = self._parts.decider.last, self._parts.trial
        if last is None or who.on_trial or who.chosen.name == FALLBACK or not self._parts.monitor.is_suspect():
            return ""
        choices = self._reference.decide(last.fleet, np.random.default_rng(self._settings.seed))
        collapse = self._parts.monitor.collapse(choice.plan for choice in choices.values())
        if collapse:
            log.warning(_line("collapsed", words=collapse))
        return collapse

    def _say(self, channel: Channel, name: str, message: object) -> bool | None:
        """Publish; return whether the link took it, ``None``: it can never be sent."""
        try:
            payload = encode(channel, message)
        except WireError as error:
            self.counters[f"unsendable_{channel.name}"] += 1
            log.error(_line("unsendable", channel=channel.name, name=name, problem=str(error)))
            return None
        where = topic(self._settings.site, name, channel)
        taken = self._publish(where, payload, qos=channel.qos, retain=channel.retained) is not None
        self.counters[f"{channel.name}_refused_by_link"] += not taken
        return taken

    def _take_problems(self) -> tuple[str, ...]:
        lately = self._hearing.problems
        told = [problem[:300] for problem in (*self._parts.problems(), *lately) if problem]
        lately.clear()
        return tuple(told)

    def _all_counters(self) -> Counter[str]:
        # The link's are copied in one step: its thread counts on meanwhile.
        return +(Counter(dict(self._link_counters)) + self.counters + self._hearing.counters + self._parts.counters())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _line(event: str, **facts: object) -> str:
    """Return one line of JSON for the log."""
    return json.dumps({"event": event, **facts}, ensure_ascii=False)
