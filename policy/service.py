"""The decision service: telemetry in, retained decisions out. The one module here that speaks over the wire."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from policy.baselines import POLICIES, make_policy
from policy.costs import CostModel
from policy.decider import Decider, Issued
from policy.errors import PolicyError
from policy.fleet import DeviceFacts, DeviceReport, Fleet, Limits, WorkerReport
from policy.hysteresis import Hysteresis
from policy.rules import DeviceRules, SiteRules
from policy.shelf import ProfileShelf
from tflite_models.catalog import CatalogError, load_catalog
from tflite_models.profile import ProfileError, load_edge_profile
from wire import channels
from wire import messages as m
from wire.channels import check_name, parse_topic, topic, topic_filter
from wire.codec import decode, encode
from wire.errors import WireError
from wire.inbox import Inbox
from wire.link import Acknowledged, Connected, Disconnected, LinkSettings, NotSent, Received, Subscription
from wire.mqtt import Link

log = logging.getLogger(__name__)

HEARD = (
    channels.STATE,
    channels.CAPABILITIES,
    channels.TELEMETRY,
    channels.DECISION,
    channels.WORKER_STATE,
    channels.WORKER_LOAD,
)
SETTLE_S = 0.3
"""After connecting: time for everything retained to arrive, our own decisions before all."""
LEAST_PAUSE_S = 0.1
"""Between two rounds, however often devices appear."""
SUMMARY_S = 60.0


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """The decision service's settings file."""

    site: str
    models: str
    """Folder of model folders."""
    profiles: str
    """Folder of ``<device class>.json``."""
    edge_profile: str
    name: str = "policy"
    policy: str = "sequential"
    period_s: float = 1.0
    seed: int = 0
    log_level: str = "INFO"
    link: LinkSettings = field(default_factory=LinkSettings)
    hysteresis: Hysteresis = field(default_factory=Hysteresis)
    limits: Limits = field(default_factory=Limits)
    defaults: DeviceRules = field(default_factory=DeviceRules)
    devices: Mapping[str, DeviceRules] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.site, "site")
        check_name(self.name, "name")
        if self.policy not in POLICIES:
            raise PolicyError(f"policy = '{self.policy}': allowed are {', '.join(POLICIES)}")
        if not 0.05 <= self.period_s <= 3600:
            raise PolicyError(f"period_s = {self.period_s:g}: allowed is 0.05 to 3600")
        if self.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise PolicyError(f"log_level = '{self.log_level}': allowed are DEBUG, INFO, WARNING, ERROR")


def run(settings: PolicySettings, stop: threading.Event) -> None:
    """Serve until ``stop`` is set. Raises ``PolicyError`` when models, profiles or settings cannot be used."""
    decider, fleet = _build(settings)
    inbox = Inbox()
    link = Link(
        settings.link,
        f"policy-{settings.site}-{settings.name}",
        inbox,
        subscriptions=[Subscription(topic_filter(settings.site, c), c.qos) for c in HEARD],
        clean_start=True,  # telemetry queued while we were away would pass for fresh
    )
    service = Service(settings, decider, fleet, link.publish, link.counters)
    link.start()
    log.info(_line("serving", policy=settings.policy, site=settings.site, plans=len(fleet.model.table)))
    try:
        while not stop.is_set():
            if not link.alive:
                raise PolicyError("the link's thread has ended")
            service.step(inbox.take(min(0.2, settings.period_s)), time.monotonic())
            service.counters["refused_inbox_full"] = inbox.refused
    finally:
        link.stop()
        service.summarise()


def _build(settings: PolicySettings) -> tuple[Decider, Fleet]:
    folder = Path(settings.profiles)
    if not folder.is_dir():
        raise PolicyError(f"profiles = '{folder}' is not a folder")
    try:
        catalog = load_catalog(Path(settings.models))
        edge = load_edge_profile(Path(settings.edge_profile))
    except (CatalogError, ProfileError) as error:
        raise PolicyError(str(error)) from error
    model = CostModel(catalog, edge)
    rules = SiteRules(settings.defaults, settings.devices)
    sha256 = {version.name: version.sha256 for version in catalog}
    fleet = Fleet(model, sha256, ProfileShelf(folder), rules, settings.limits)
    policy = make_policy(settings.policy, model, rules.fixed_plans())
    return Decider(fleet, policy, settings.hysteresis), fleet


class Service:
    """The loop's body: translates messages for the fleet and decisions for the wire. Not thread-safe."""

    def __init__(
        self,
        settings: PolicySettings,
        decider: Decider,
        fleet: Fleet,
        publish: Callable[..., int | None],
        link_counters: Counter[str],
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._link_counters = link_counters
        self._settings = settings
        self._decider = decider
        self._fleet = fleet
        self._publish = publish
        self._rng = np.random.default_rng(settings.seed)
        self._connected = False
        self._next_s = 0.0
        self._settled_s = 0.0
        self._last_s = 0.0
        self._summary_s = 0.0
        self._take: Mapping[channels.Channel, Callable[[str, Any, float], None]] = {
            channels.STATE: self._on_state,
            channels.CAPABILITIES: self._on_capabilities,
            channels.TELEMETRY: self._on_telemetry,
            channels.DECISION: self._on_decision,
            channels.WORKER_STATE: self._on_worker_state,
            channels.WORKER_LOAD: self._on_worker_load,
        }

    def step(self, events: list[Any], now_s: float) -> None:
        """Take in events of the link and, when it is time, decide and publish."""
        for event in events:
            match event:
                case Received():
                    self._received(event)
                case Connected():
                    self._connected = True
                    self._decider.connected()
                    self._next_s = self._settled_s = now_s + SETTLE_S
                case Disconnected(reason):
                    self._connected = False
                    log.info(_line("disconnected", reason=reason))
                case NotSent(_, reason):
                    self.counters[f"not_sent_{reason}"] += 1
                case Acknowledged():
                    self.counters["acknowledged"] += 1
        if self._connected and now_s >= self._next_s:
            self._next_s = now_s + self._settings.period_s
            self._last_s = now_s
            self._decide(now_s)
        self._summary_s = self._summary_s or now_s
        if now_s - self._summary_s >= SUMMARY_S:
            self._summary_s = now_s
            self.summarise()

    def summarise(self) -> None:
        """Log every counter that is not zero."""
        # Copied in one step: the link's thread counts on meanwhile.
        link_counters = Counter(dict(self._link_counters))
        counters = self.counters + self._fleet.counters + self._decider.counters + link_counters
        log.info(_line("counters", edge_calibration=round(self._fleet.calibration.factor, 3), **counters))

    def _decide(self, now_s: float) -> None:
        try:
            decisions = self._decider.decide(now_s, self._rng)
        except Exception:  # the outermost loop: the last good decisions stay while the cause is in the log
            self.counters["decide_errors"] += 1
            log.exception("no decisions this period")
            return
        for issued in decisions:
            self._tell(issued)

    def _tell(self, issued: Issued) -> None:
        message = m.Decision(
            issued.rev, issued.plan, issued.deadline_ms, issued.policy, issued.reason, at_ms=time.time_ns() // 1_000_000
        )
        where = topic(self._settings.site, issued.device, channels.DECISION)
        try:
            payload = encode(channels.DECISION, message)
        except WireError as error:
            self.counters["unsendable_decisions"] += 1
            log.error(_line("unsendable", device=issued.device, problem=str(error)))
            return
        if self._publish(where, payload, qos=channels.DECISION.qos, retain=channels.DECISION.retained) is None:
            self.counters["decisions_refused_by_link"] += 1
            self._decider.not_told(issued.device)
            return
        self.counters["decisions"] += 1
        log.info(_line("decision", device=issued.device, rev=issued.rev, plan=str(issued.plan), reason=issued.reason))

    # -- messages in -----------------------------------------------------------------------------------------------

    def _received(self, event: Received) -> None:
        try:
            address = parse_topic(event.topic)
            if not event.payload:  # a retained message was cleared
                self.counters[f"cleared_{address.channel.name}"] += 1
                return
            message = decode(address.channel, event.payload)
        except WireError as error:
            self.counters["bad_payloads"] += 1
            log.debug("%s: %s", event.topic, error)
            return
        take = self._take.get(address.channel)
        if take is not None:
            take(address.name, message, event.arrived_ns / 1e9)

    def _on_state(self, name: str, state: m.State, arrived_s: float) -> None:
        self._fleet.device_state(name, state.session, ready=state.state == m.DeviceState.READY)
        self._soon(arrived_s)

    def _on_capabilities(self, name: str, told: m.Capabilities, arrived_s: float) -> None:
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
        self._soon(arrived_s)

    def _on_telemetry(self, name: str, told: m.Telemetry, arrived_s: float) -> None:
        if told.replayed:
            self.counters["replayed_telemetry"] += 1
            return
        report = DeviceReport(
            told.session,
            told.plan,
            told.decision_rev,
            told.fps,
            told.head_ms_per_plan_ms,
            told.rtt_ms,
            told.uplink_bps,
            told.battery_share,
        )
        self._fleet.device_report(name, report, arrived_s)
        self._decider.follows(name, told.decision_rev)

    def _on_decision(self, name: str, told: m.Decision, _arrived_s: float) -> None:
        self._decider.retained(Issued(name, told.rev, told.plan, told.deadline_ms, told.policy, told.reason))

    def _on_worker_state(self, name: str, told: m.WorkerState, arrived_s: float) -> None:
        versions = {version.name: version.sha256 for version in told.versions}
        ready = told.state == m.DeviceState.READY
        self._fleet.worker_state(name, told.session, told.threads, versions, arrived_s, ready=ready)
        self._soon(arrived_s)

    def _on_worker_load(self, name: str, told: m.WorkerLoad, arrived_s: float) -> None:
        load = WorkerReport(told.session, told.period_ms, told.queued, told.served, told.utilisation, told.batch_mean)
        self._fleet.worker_load(name, load, arrived_s, steady=self._decider.is_steady(arrived_s))

    def _soon(self, arrived_s: float) -> None:
        """Something came or went: decide before the period is over, but not while retained messages arrive."""
        self._next_s = min(self._next_s, max(arrived_s, self._settled_s, self._last_s + LEAST_PAUSE_S))


def _line(event: str, **facts: object) -> str:
    """Return one line of JSON for the log."""
    return json.dumps({"event": event, **facts}, ensure_ascii=False)
