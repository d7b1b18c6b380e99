"""The edge worker: takes activations from the shared subscription, runs tails in batches, answers each exactly once."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_broker_side.batcher import Batcher, Job, Key
from edge_broker_side.errors import EdgeError
from edge_broker_side.executor import Answer, Done, Executor, Request, Warm
from edge_broker_side.load import LoadMeter
from edge_broker_side.tails import TailCache
from tflite_models.catalog import Catalog, load_catalog
from wire import channels
from wire.codec import decode, encode
from wire.errors import PayloadError, TopicError
from wire.exposition import Exposition, PrometheusSettings
from wire.inbox import Inbox
from wire.link import Connected, LinkSettings, Received, Subscription, Unsubscribed
from wire.messages import CachedVersion, DeviceState, Outcome, Result, Status, WorkerState
from wire.mqtt import Link
from wire.outbox import Outgoing
from wire.plan import OUTPUT

log = logging.getLogger(__name__)

MAX_BUDGET_MS = 60_000.0
"""No device waits longer; a larger figure is a mistake or a lie."""
LATE_NS = 1_000_000_000
MAX_PLAN_CHARS = 500
"""Every answer repeats the plan it is for: a longer one could make an answer that cannot be sent."""
IDLE_S = 0.2
SWITCH_INTERVAL_S = 0.0005
"""A finished batch waits for Python's lock at most this long behind the loop; by default it is ten times as much."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """One worker process."""

    site: str
    name: str
    models: str
    """The store: a folder of model folders with tails."""
    link: LinkSettings = field(default_factory=LinkSettings)
    group: str = "workers"
    """Workers of one group share the activations of the site."""
    threads: int = 0
    """Batches computed at once; 0: one per core this process may use."""
    runtime: str | None = None
    max_batch: int = 32
    max_delay_ms: float = 0.0
    """How long an idle executor lets the first frame of a batch wait for others.

    0: not at all; a batch is then what came in while the executors were busy. On a processor a larger batch gains
    little over that (``splitfleet bench worker``), and the delay is paid by every frame of a quiet site.
    """
    max_jobs: int = 256
    max_queue_bytes: int = 64 * 1024 * 1024
    max_tails: int = 64
    """Loaded tails per thread."""
    max_tail_bytes: int = 512 * 1024 * 1024
    load_period_s: float = 1.0
    drain_s: float = 10.0
    """Longest time from SIGTERM to the last answer."""
    log_level: str = "info"
    prometheus: PrometheusSettings | None = None

    def __post_init__(self) -> None:
        channels.check_name(self.site, "site")
        channels.check_name(self.name, "name")
        channels.check_name(self.group, "group")
        for name in ("max_batch", "max_jobs", "max_queue_bytes", "max_tails", "max_tail_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, allowed is 1 and more")
        for name in ("threads", "max_delay_ms", "drain_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, allowed is 0 and more")
        if self.load_period_s <= 0:
            raise ValueError(f"load_period_s is {self.load_period_s}, allowed is more than 0")


class Worker:
    """The loop's state; every method runs in the loop thread."""

    def __init__(self, settings: WorkerSettings, catalog: Catalog) -> None:
        self.counters: Counter[str] = Counter()
        self._settings = settings
        self._catalog = catalog
        self._session = time.time_ns() // 1_000_000  # rises with every start, without a file to keep it in
        self._inbox = Inbox(settings.max_queue_bytes)
        self._batcher: Batcher[Request] = Batcher(
            settings.max_batch, int(settings.max_delay_ms * 1e6), settings.max_jobs, settings.max_queue_bytes
        )
        threads = settings.threads or len(os.sched_getaffinity(0))
        self._executors = [Executor(number, catalog, self._tail_cache(), self._inbox) for number in range(threads)]
        self._free: list[int] = []
        self._keys: set[Key] = set()
        self._fastest_ns: dict[Key, int] = {}
        self._meter = LoadMeter(threads, time.monotonic_ns())
        self._runtime = ""
        self._state = DeviceState.READY
        self._unsubscribed = False
        asked = settings.prometheus
        self._exposition = Exposition(asked, "worker", settings.site, settings.name) if asked else None
        self._link = self._make_link()

    def start(self) -> None:
        """Try every tail in every thread, then connect; raises ``EdgeError`` where no tail can run."""
        broken: dict[Key, str] = {}
        single: frozenset[Key] = frozenset()
        for executor in self._executors:
            executor.start()
        while len(self._free) < len(self._executors):
            for warm in self._inbox.take(IDLE_S):
                if isinstance(warm, Warm):
                    self._free.append(warm.executor)
                    self._runtime = warm.runtime or self._runtime
                    single |= warm.single
                    broken |= warm.broken
        for key, problem in broken.items():
            log.error("tail %s is left out: %s", key, problem)
        self._keys = {
            key for version in self._catalog for cut in version.cuts if cut.name != OUTPUT
            if (key := Key(version.name, cut.name)) not in broken
        }  # fmt: skip
        if not self._keys:
            raise EdgeError(
                f"no tail below {self._settings.models} can run: {next(iter(broken.values()), 'none there')}"
            )
        self._batcher.limit(dict.fromkeys(single, 1))
        log.info("%d tails ready on %d threads (%s)", len(self._keys), len(self._executors), self._runtime)
        self._link.start()

    def serve(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set."""
        while not stop.is_set():
            self._turn(IDLE_S)
            if not self._link.alive:
                raise EdgeError("the link's thread has ended: see the log")

    def drain(self) -> None:
        """Take nothing new, answer what is here, say goodbye."""
        end_ns = time.monotonic_ns() + int(self._settings.drain_s * 1e9)
        self._state = DeviceState.SLEEPING
        self._announce("draining")
        self._link.unsubscribe()
        while time.monotonic_ns() < end_ns and self._busy():
            self._turn(0.02)
        self._state = DeviceState.STOPPED
        self._announce("")
        self._link.stop()
        for executor in self._executors:
            executor.stop()
        if self._exposition is not None:
            self._exposition.close()

    def _busy(self) -> bool:
        waiting_for_broker = self._link.connected and not self._unsubscribed
        return waiting_for_broker or len(self._batcher) > 0 or len(self._free) < len(self._executors)

    def _turn(self, idle_s: float) -> None:
        now_ns = time.monotonic_ns()
        wake_ns = self._dispatch(now_ns)
        wake_ns = min(wake_ns, self._report(now_ns), now_ns + int(idle_s * 1e9))
        for event in self._inbox.take(max(0.0, (wake_ns - time.monotonic_ns()) / 1e9)):
            self._on_event(event)

    def _on_event(self, event: Any) -> None:
        match event:
            case Received():
                self._on_activation(event)
            case Done():
                self._on_done(event)
            case Connected():
                self._announce("")
            case Unsubscribed():
                self._unsubscribed = True

    def _on_activation(self, event: Received) -> None:
        if event.retained:  # brokers hand retained messages even to shared subscriptions: nobody waits for these
            self.counters["ignored_retained"] += 1
            return
        try:
            address = channels.parse_topic(event.topic)
            activation = decode(channels.ACTIVATION, event.payload)
            if len(str(activation.plan)) > MAX_PLAN_CHARS:
                raise PayloadError("activation", f"a plan of more than {MAX_PLAN_CHARS} characters")
        except (TopicError, PayloadError) as error:
            self.counters["refused_payload"] += 1
            log.warning("refused on %s: %s", event.topic[:120], error)
            return
        self._meter.arrived += 1
        key = Key(activation.plan.version, activation.plan.cut)
        budget_ns = int(max(0.0, min(activation.budget_ms, MAX_BUDGET_MS)) * 1e6)
        request = Request(address.name, activation, event.arrived_ns + budget_ns)
        if key not in self._keys:
            self._answer(Answer(request, Status.UNKNOWN_PLAN, f"this worker has no tail {key}"[:200]))
            return
        held = self._catalog.folder(key.version).version.sha256
        if activation.model and not held.startswith(activation.model):
            self._answer(
                Answer(request, Status.UNKNOWN_PLAN, f"this worker has another model of the name {key.version}")
            )
            return
        latest_ns = request.deadline_ns - self._fastest_ns.get(key, 0)
        job = Job(key, event.arrived_ns, latest_ns, len(event.payload), request)
        if not self._batcher.add(job):
            self._answer(Answer(request, Status.BUSY, f"{len(self._batcher)} frames are waiting"))

    def _dispatch(self, now_ns: int) -> int:
        """Give out what is due; return when to look again."""
        due = self._batcher.due(now_ns, len(self._free), flush=self._state is not DeviceState.READY)
        for job in due.expired:
            wait_ms = (now_ns - job.arrived_ns) / 1e6
            self._answer(Answer(job.content, Status.EXPIRED, "no time left for the tail", wait_ms=wait_ms))
        for batch in due.batches:
            number = self._free.pop()
            self._meter.began(number, now_ns)
            self._executors[number].give(batch)
        return due.next_ns if due.next_ns is not None else now_ns + 10**9

    def _on_done(self, done: Done) -> None:
        now_ns = time.monotonic_ns()
        self._free.append(done.executor)
        self._meter.ended(done.executor, now_ns)
        if done.computed:
            self._meter.computed(str(done.key), done.computed, done.tail_ms)
            # The fastest ever, not the mean: one slow batch must never make a worker refuse everything after it.
            spent_ns = int(done.tail_ms * 1e6)
            self._fastest_ns[done.key] = min(spent_ns, self._fastest_ns.get(done.key, spent_ns))
        self._dispatch(now_ns)  # before the answers are encoded: the interpreter need not wait for that
        for answer in done.answers:
            self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        self.counters[f"answered_{answer.status}"] += 1
        self._meter.answered(answer.status, answer.wait_ms)
        request = answer.request
        try:
            payload = encode(channels.RESULT, self._result(answer))
        except PayloadError as error:
            self.counters["unsendable_results"] += 1
            failed = Answer(request, Status.FAILED, str(error)[:200])
            payload = encode(channels.RESULT, self._result(failed))
        topic = channels.topic(self._settings.site, request.device, channels.RESULT)
        # A late answer is of no use for its frame, but tells the device that and why it was late.
        expires_ns = max(request.deadline_ns, time.monotonic_ns() + LATE_NS)
        sent = self._link.publish(topic, payload, qos=channels.RESULT.qos, expires_ns=expires_ns)
        if sent is None:
            self.counters["results_not_sent"] += 1

    def _result(self, answer: Answer) -> Result:
        activation = answer.request.activation
        return Result(
            session=activation.session,
            frame=activation.frame,
            plan=activation.plan,
            status=answer.status,
            outcome=Outcome.EDGE if answer.status is Status.OK else Outcome.FALLBACK,
            computed_by=self._settings.name,
            best=answer.best,
            outputs=answer.outputs,
            stamp_ns=activation.stamp_ns,
            wait_ms=answer.wait_ms,
            tail_ms=answer.tail_ms,
            batch=answer.batch,
            reason=answer.reason,
        )

    def _report(self, now_ns: int) -> int:
        """Publish the load once per period; return when the next one is due."""
        due_ns = self._meter.since_ns + int(self._settings.load_period_s * 1e9)
        if now_ns < due_ns:
            return due_ns
        # Copied in one step: the link's thread counts on meanwhile.
        link_counters = dict(self._link.counters)
        counters = {**self.counters, **{f"link_{name}": count for name, count in link_counters.items()}}
        load = self._meter.take(now_ns, self._session, len(self._batcher), counters)
        self._publish(channels.WORKER_LOAD, load)
        if self._exposition is not None:
            self._exposition.show(load)
        return now_ns + int(self._settings.load_period_s * 1e9)

    def _announce(self, reason: str) -> None:
        self._publish(channels.WORKER_STATE, self._worker_state(self._state, reason))

    def _worker_state(self, state: DeviceState, reason: str) -> WorkerState:
        versions = {key.version for key in self._keys}
        return WorkerState(
            state=state,
            session=self._session,
            runtime=self._runtime,
            threads=len(self._executors),
            versions=tuple(CachedVersion(v.name, v.sha256) for v in self._catalog if v.name in versions),
            reason=reason,
            at_ms=time.time_ns() // 1_000_000,
        )

    def _publish(self, channel: channels.Channel, message: object) -> None:
        topic = channels.topic(self._settings.site, self._settings.name, channel)
        if self._link.publish(topic, encode(channel, message), qos=channel.qos, retain=channel.retained) is None:
            self.counters[f"not_sent_{channel.name}"] += 1

    def _make_link(self) -> Link:
        settings = self._settings
        will = Outgoing(
            channels.topic(settings.site, settings.name, channels.WORKER_STATE),
            encode(channels.WORKER_STATE, WorkerState(DeviceState.LOST, self._session, reason="connection lost")),
            channels.WORKER_STATE.qos,
            retain=True,
        )
        activations = channels.topic_filter(settings.site, channels.ACTIVATION)
        return Link(
            # No session: a broker must not keep activations for a worker that is away while others could do them.
            dataclasses.replace(settings.link, session_expiry_s=0),
            f"{settings.site}-{settings.name}",
            self._inbox,
            subscriptions=[Subscription(channels.shared_filter(settings.group, activations), channels.ACTIVATION.qos)],
            will=will,
            clean_start=True,
        )

    def _tail_cache(self) -> TailCache:
        settings = self._settings
        return TailCache(
            self._catalog,
            max_tails=settings.max_tails,
            max_bytes=settings.max_tail_bytes,
            runtime=settings.runtime,
        )


def run(settings: WorkerSettings, stop: threading.Event) -> None:
    """Work until ``stop`` is set, then drain; raises ``EdgeError`` or ``ModelsError`` when it cannot."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    worker = Worker(settings, load_catalog(Path(settings.models)))
    worker.start()
    worker.serve(stop)
    worker.drain()
