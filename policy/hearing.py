"""What the decision service hears: messages of devices, workers and operators, translated for those they concern."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from policy.decider import Decider, Issued
from policy.deciding import Deciding
from policy.errors import PolicyError
from policy.fleet import Fleet
from policy.interface import Weights
from policy.plausible import DeviceFacts, DeviceReport, WorkerReport
from policy.rules import DEFAULTS, DeviceRules, RuleBook, SiteRules, Trial
from wire import channels
from wire import messages as m
from wire.channels import parse_topic
from wire.codec import decode
from wire.errors import WireError
from wire.link import Received

log = logging.getLogger(__name__)

MOST_PROBLEMS = 8


class Hearing:
    """Takes messages in. After each, ``soon`` says whether something came or went and a decision is due."""

    def __init__(
        self,
        decider: Decider,
        fleet: Fleet,
        book: RuleBook,
        deciding: Deciding,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``clock``: Unix time, by which alone the age of a retained wish can be told."""
        self.counters: Counter[str] = Counter()
        self.soon = False
        self.new_rules = False
        self.problems: deque[str] = deque(maxlen=MOST_PROBLEMS)
        """What operators asked for and did not get, in words."""
        self._decider = decider
        self._fleet = fleet
        self._book = book
        self._deciding = deciding
        self._clock = clock
        self._retained = False
        self._take: Mapping[channels.Channel, Callable[[str, Any, float], None]] = {
            channels.STATE: self._on_state,
            channels.CAPABILITIES: self._on_capabilities,
            channels.TELEMETRY: self._on_telemetry,
            channels.DECISION: self._on_decision,
            channels.WORKER_STATE: self._on_worker_state,
            channels.WORKER_LOAD: self._on_worker_load,
            channels.RULES: self._on_rules,
        }

    def take(self, event: Received) -> None:
        """Take in one publication; what is no message is counted."""
        self.soon = self.new_rules = False
        self._retained = event.retained
        try:
            address = parse_topic(event.topic)
            if not event.payload:  # a retained message was cleared
                self.counters[f"cleared_{address.channel.name}"] += 1
                if address.channel is channels.RULES:
                    self.new_rules = self._book.clear(address.name)
                return
            message = decode(address.channel, event.payload)
        except WireError as error:
            self.counters["bad_payloads"] += 1
            log.debug("%s: %s", event.topic, error)
            return
        take = self._take.get(address.channel)
        if take is not None:
            take(address.name, message, event.arrived_ns / 1e9)

    def _on_state(self, name: str, state: m.State, _arrived_s: float) -> None:
        self._fleet.device_state(name, state.session, ready=state.state == m.DeviceState.READY)
        self.soon = True

    def _on_capabilities(self, name: str, told: m.Capabilities, _arrived_s: float) -> None:
        facts = DeviceFacts(
            told.session,
            told.device_class,
            told.slowdown,
            {version.name: version.sha256 for version in told.versions},
            frozenset(told.codecs),
            told.fps,
            told.deadline_ms,
            told.may_ship_input,
        )
        self._fleet.device_facts(name, facts)
        self.soon = True

    def _on_telemetry(self, name: str, told: m.Telemetry, arrived_s: float) -> None:
        if told.replayed:
            self.counters["replayed_telemetry"] += 1
            return
        ended = {outcome: told.counters.get(f"outcome_{outcome}", 0) for outcome in m.Outcome}
        report = DeviceReport(
            told.session,
            told.plan,
            told.decision_rev,
            told.fps,
            told.head_ms_per_plan_ms,
            told.rtt_ms,
            told.uplink_bps,
            told.battery_share,
            None if told.estimate_age_ms is None else float(told.estimate_age_ms),
            ended[m.Outcome.FALLBACK],
            sum(ended.values()),
        )
        self._fleet.device_report(name, report, arrived_s)
        self._decider.follows(name, told.decision_rev, arrived_s)

    def _on_decision(self, name: str, told: m.Decision, _arrived_s: float) -> None:
        self._decider.retained(Issued(name, told.rev, told.plan, told.deadline_ms, told.policy, told.reason))

    def _on_worker_state(self, name: str, told: m.WorkerState, arrived_s: float) -> None:
        versions = {version.name: version.sha256 for version in told.versions}
        ready = told.state == m.DeviceState.READY
        self._fleet.worker_state(name, told.session, told.threads, versions, arrived_s, ready=ready)
        self.soon = True

    def _on_worker_load(self, name: str, told: m.WorkerLoad, arrived_s: float) -> None:
        load = WorkerReport(
            told.session,
            told.period_ms,
            told.queued,
            told.served,
            told.utilisation,
            told.batch_mean,
            told.wait_ms_mean,
        )
        self._fleet.worker_load(name, load, arrived_s, steady=self._decider.is_steady(arrived_s))

    def _on_rules(self, name: str, told: m.Rules, arrived_s: float) -> None:
        try:
            rules, trial = rules_of(told), trial_of(name, told)
            if trial is not None:
                # One that the broker kept may have been asked for long ago: a restart does not begin it anew.
                age_s = max(0.0, self._clock() - told.at_ms / 1000) if self._retained else 0.0
                trial = replace(trial, until_s=arrived_s + trial.for_s - age_s)

            def check(site: SiteRules) -> None:
                if trial is not None:
                    self._deciding.check(trial, site, arrived_s)

            self.new_rules = self._book.tell(name, told.rev, rules, trial, check)
        except PolicyError as error:
            self.new_rules = self._book.refused(name, private=told.may_ship_input is False)
            self.counters["rules_refused"] += 1
            self.problems.append(f"rules {told.rev} of {name}: {error}"[:300])
            log.error("rules %d of %s refused, those before stay: %s", told.rev, name, error)


def rules_of(told: m.Rules) -> DeviceRules:
    """Return what a message asks for; raises ``PolicyError`` where that cannot be."""
    if told.weights is not None and len(told.weights) != 3:
        raise PolicyError(f"weights has {len(told.weights)} numbers: accuracy, latency and energy are needed")
    return DeviceRules(
        weights=None if told.weights is None else Weights(*told.weights),
        deadline_ms=told.deadline_ms,
        may_ship_input=told.may_ship_input,
        battery_floor=told.battery_floor,
        plan=None if told.plan is None else str(told.plan),
        battery_wh=told.battery_wh,
        battery_hours=told.battery_hours,
    )


def trial_of(name: str, told: m.Rules) -> Trial | None:
    """Return the policy that a message puts on trial, its end still open; raises ``PolicyError`` where that cannot be.

    Half a site cannot be decided for by another policy, since the devices share its edge.
    """
    if told.policy is None and told.policy_for_s is None:
        return None
    if name != DEFAULTS:
        raise PolicyError("policy and policy_for_s: only the rules of every device can have them")
    if told.policy is None or told.policy_for_s is None:
        raise PolicyError("policy and policy_for_s go together: who decides, and for how many seconds")
    return Trial(told.policy, told.policy_for_s, told.rev, told.at_ms)
