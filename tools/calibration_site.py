"""The site behind ``splitfleet policy calibrate``: one real device, told plan after plan, and all its frames."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from edge_broker_side.broker import BrokerSettings, start_broker
from tflite_models.profile import DeviceProfile, save_profile
from tools.fleet_view import DeviceView, summarise
from tools.relay import Relay
from tools.shaping import LinkShape
from tools.supervisor import Supervisor, SupervisorError
from wire import channels, codec
from wire.inbox import Inbox
from wire.link import LinkSettings, Received, Subscription
from wire.messages import Decision, DeviceState, FrameOutcome, Telemetry, WorkerState
from wire.mqtt import Link
from wire.plan import Plan

SITE, DEVICE, WORKER = "calibrate", "board", "edge"
SKIPPED_FRAMES = 5
"""At the start of each plan: caches are cold, and the frame before may still be under way."""
WORKER_THREADS = 1
DEADLINE_MS = 20_000.0
"""Far away: a deadline that is missed would turn the latency to be measured into a fallback's."""
PATIENCE_S = 40.0
"""Beyond what the frames themselves take: start of processes, loading of models, outcomes in batches."""
STOP_S = 20.0


@dataclass(frozen=True, slots=True)
class BoardSetup:
    """What the one device is."""

    models: Path
    """Folder of model folders with heads and tails."""
    profile: DeviceProfile
    """Of the board as it is emulated: already slowed."""
    fps: float
    link: LinkShape | None
    """Between device and broker; ``None``: loopback as it is."""


@dataclass(frozen=True, slots=True)
class PlanRun:
    """The frames of one plan, without those skipped at its start, and what the device reported of itself before it."""

    plan: Plan
    before: Telemetry
    """The last report before the device was told: all that a policy could have known."""
    lines: tuple[FrameOutcome, ...]


class CalibrationSite:
    """Broker, recorder, worker and device; a context manager that leaves none of them running."""

    def __init__(
        self, folder: Path, setup: BoardSetup, *, embedded: bool = False, patience_s: float = PATIENCE_S
    ) -> None:
        self.broker = ""
        """Kind and version, once it runs."""
        self._folder = folder
        self._setup = setup
        self._embedded = embedded
        self._patience_s = patience_s
        self._view = DeviceView(DEVICE)
        self._inbox = Inbox()
        self._workers: set[str] = set()
        self._rev = 0
        self._stack = ExitStack()

    def __enter__(self) -> CalibrationSite:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def device_log(self) -> Path:
        """Where the device writes what it does."""
        return self._folder / "logs" / f"{DEVICE}.log"

    def wait_ready(self) -> None:
        """Wait until the worker serves and the device has measured its link; raises ``SupervisorError``."""

        def ready() -> bool:
            told = self._view.telemetry
            known = told is not None and told.uplink_bps is not None and told.rtt_ms is not None
            return WORKER in self._workers and self._view.state is DeviceState.READY and known

        self._wait(ready, "to report its link", self._patience_s)

    def run(self, plan: Plan, frames: int, seen: Callable[[int], None] = lambda _: None) -> PlanRun:
        """Tell the device a plan and return its next frames under it; ``seen`` is told how many have come.

        Each plan may be run once. Raises ``SupervisorError`` when the device does not answer in time.
        """
        before = self._view.telemetry
        if before is None:
            raise SupervisorError("the device has not reported yet")
        told_ms = time.time_ns() // 1_000_000
        self._decide(plan)
        wanted = frames + SKIPPED_FRAMES

        def lines() -> list[FrameOutcome]:
            found = [frame.line for frame in self._view.frames.values() if frame.plan == plan]
            return [line for line in found if line.captured_ms >= told_ms]

        def enough() -> bool:
            count = len(lines())
            seen(min(max(count - SKIPPED_FRAMES, 0), frames))
            return count >= wanted

        self._wait(enough, f"to finish {wanted} frames of {plan}", self._patience_s + 3 * wanted / self._setup.fps)
        ordered = sorted(lines(), key=lambda line: line.frame)
        return PlanRun(plan, before, tuple(ordered[SKIPPED_FRAMES:wanted]))

    def finish(self) -> dict[str, Any]:
        """End the device and return what became of all its frames, as ``tools.fleet_view.summarise`` gives it."""
        self._processes.stop([DEVICE], STOP_S)
        deadline = time.monotonic() + STOP_S
        # The device publishes its last outcomes before it says goodbye, and the broker keeps the order.
        while self._view.state is not DeviceState.STOPPED and time.monotonic() < deadline:
            self._take(0.2)
        return summarise([self._view])

    # -- the processes ---------------------------------------------------------------------------------------------

    def _start(self, stack: ExitStack) -> None:
        setup, folder = self._setup, self._folder
        broker_settings = BrokerSettings(
            folder=str(folder / "broker"), port=0, kind="embedded" if self._embedded else "auto",
            log_file=str(folder / "broker.log"),
        )  # fmt: skip
        broker = stack.enter_context(start_broker(broker_settings))
        self.broker = f"{broker.kind} {broker.version}".strip()
        self._processes = stack.enter_context(Supervisor(folder / "logs"))
        self._link = self._listen(broker.port)
        stack.callback(self._link.stop)
        port = broker.port
        if setup.link is not None:
            relay = Relay(broker.host, broker.port, setup.link, seed=1)
            stack.callback(relay.stop)
            port = relay.start()
        profile = folder / "profile.json"
        save_profile(setup.profile, profile)
        link = {"host": "127.0.0.1", "port": broker.port}
        documents: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
            "recorder": (("edge_broker_side", "recorder"), {"store": {"path": str(folder / "points.sqlite")}}),
            WORKER: (("edge_broker_side", "worker"), {"models": str(setup.models), "threads": WORKER_THREADS}),
            DEVICE: (("device_client",), {
                "models": str(setup.models), "state": str(folder / DEVICE), "deadline_ms": DEADLINE_MS,
                "device_class": setup.profile.device_class, "profile": str(profile),
                "slowdown": setup.profile.slowdown, "camera": {"kind": "pack", "fps": setup.fps},
                "link": {"host": "127.0.0.1", "port": port},
            }),
        }  # fmt: skip
        for name, ((module, *role), document) in documents.items():
            path = folder / f"{name}.toml"
            path.write_text(tomli_w.dumps({"site": SITE, "name": name, "link": link, **document}), encoding="utf-8")
            self._processes.start(name, module, *role, str(path))

    def _listen(self, port: int) -> Link:
        heard = [
            channels.topic_filter(SITE, c, DEVICE) for c in (channels.STATE, channels.TELEMETRY, channels.OUTCOMES)
        ]
        subscriptions = [
            Subscription(topic, 1) for topic in (*heard, channels.topic_filter(SITE, channels.WORKER_STATE))
        ]
        link = Link(LinkSettings(port=port), f"splitfleet-{SITE}-operator", self._inbox, subscriptions=subscriptions)
        link.start()
        return link

    def _decide(self, plan: Plan) -> None:
        """Publish a retained decision, as the policy service does."""
        self._rev += 1
        message = Decision(self._rev, plan, DEADLINE_MS, "calibrate", f"frames of {plan} are to be timed")
        topic = channels.topic(SITE, DEVICE, channels.DECISION)
        self._link.publish(topic, codec.encode(channels.DECISION, message), qos=channels.DECISION.qos, retain=True)

    # -- what they say ---------------------------------------------------------------------------------------------

    def _wait(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            self._processes.check()
            if time.monotonic() > deadline:
                raise SupervisorError(f"waited {seconds:.0f} s in vain for the device {what}: see {self.device_log}")
            self._take(0.2)

    def _take(self, timeout_s: float) -> None:
        for event in self._inbox.take(timeout_s):
            if isinstance(event, Received) and event.payload:
                address = channels.parse_topic(event.topic)
                message = codec.decode(address.channel, event.payload)
                if isinstance(message, WorkerState):
                    if message.state is DeviceState.READY:
                        self._workers.add(address.name)
                else:
                    self._view.take(message)
