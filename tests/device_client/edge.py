"""A small real edge for one device: answers activations by running the tail, or however a test wants, and records."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from device_client.client import Client
from device_client.settings import CameraSettings, DeviceSettings
from tflite_models.activation import decode_activation
from tflite_models.catalog import load_catalog
from tflite_models.runtime import Submodel
from wire import channels, codec
from wire.channels import Channel
from wire.errors import PayloadError
from wire.inbox import Inbox
from wire.link import LinkSettings, Received, Subscription
from wire.messages import (
    Activation,
    Capabilities,
    Decision,
    FrameOutcome,
    Outcome,
    Outcomes,
    Recorded,
    Result,
    ScoredLabel,
    State,
    Status,
    Telemetry,
)
from wire.mqtt import Link
from wire.plan import Plan

DEVICE = "cam"
PATIENCE_S = 20.0

Answering = Callable[["Edge", Activation], None]


def link_to(port: int) -> LinkSettings:
    """Return settings that come back quickly after a lost connection."""
    return LinkSettings(port=port, backoff_min_s=0.05, backoff_max_s=0.2, keepalive_s=5)


def device_settings(
    tmp: Path, site: str, port: int | None, models: Path, pictures: Path, **changes: Any
) -> DeviceSettings:
    """Return the settings of a client that takes a picture folder's frames as fast as it can."""
    camera = changes.pop("camera", CameraSettings(kind="folder", path=pictures, fps=0))
    return DeviceSettings(
        site=site, name=DEVICE, models=models, state=tmp / "state", broker=port is not None,
        link=link_to(port or 1), camera=camera, **{"telemetry_period_s": 0.2, **changes},
    )  # fmt: skip


class Edge:
    """Worker, recorder and policy of one device in a thread of its own; everything seen is kept for the test."""

    def __init__(self, site: str, port: int, models: Path) -> None:
        self.site = site
        self.answering: Answering = answer_ok
        self.recording = True
        self.lines: dict[tuple[int, int], list[FrameOutcome]] = {}
        self.plans: dict[tuple[int, int], Plan] = {}
        self.captured: dict[int, int] = {}
        self.folded: dict[tuple[int, str, str], int] = {}
        self.results: list[Result] = []
        self.states: list[State] = []
        self.telemetry: list[Telemetry] = []
        self.capabilities: list[Capabilities] = []
        self.activations: list[Activation] = []
        self.batches: list[Outcomes] = []
        self.held: list[Activation] = []
        self._catalog = load_catalog(models)
        self._tails: dict[tuple[str, str], Submodel] = {}
        self._inbox = Inbox()
        self._changed = threading.Condition()
        self._stop = threading.Event()
        seen = (channels.STATE, channels.CAPABILITIES, channels.TELEMETRY, channels.ACTIVATION, channels.RESULT,
                channels.OUTCOMES)  # fmt: skip
        subscriptions = [Subscription(channels.topic(site, DEVICE, c), 1, no_local=True) for c in seen]
        self._link = Link(link_to(port), f"edge-{site}", self._inbox, subscriptions=subscriptions)
        self._thread = threading.Thread(target=self._run, daemon=True)

    # -- what a test says and asks ---------------------------------------------------------------------------------

    def decide(self, rev: int, plan: Plan, deadline_ms: float = 2000.0) -> None:
        """Publish a retained decision."""
        self.send(channels.DECISION, Decision(rev, plan, deadline_ms, "test", "a test"), retain=True)

    def send(self, channel: Channel, message: object, *, retain: bool = False) -> None:
        """Publish to the device."""
        self.raw(channel, codec.encode(channel, message), retain=retain)

    def raw(self, channel: Channel, payload: bytes, *, retain: bool = False) -> None:
        """Publish bytes to the device."""
        self._link.publish(channels.topic(self.site, DEVICE, channel), payload, qos=1, retain=retain)

    def answer_late(self, activation: Activation) -> None:
        """Answer a held frame, in the thread that owns the tails."""
        self._inbox.put(activation)

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
        """Wait until something has been seen."""
        with self._changed:
            assert self._changed.wait_for(condition, seconds), f"not seen in {seconds} s: {what}"

    def outcomes(self, session: int | None = None) -> Counter[tuple[Outcome, str]]:
        """Count the recorded frames by (outcome, reason)."""
        with self._changed:
            return Counter(
                (lines[0].outcome, lines[0].reason)
                for (owner, _), lines in self.lines.items()
                if session in (None, owner)
            )

    def reasons(self) -> set[str]:
        """Return every reason recorded so far."""
        return {reason for _, reason in self.outcomes()}

    def count(self, outcome: Outcome, reason: str | None = None) -> int:
        """Return how many recorded frames ended so."""
        return sum(n for (o, r), n in self.outcomes().items() if o is outcome and reason in (None, r))

    def rev(self) -> int:
        """Return the decision that the newest telemetry names."""
        return self.telemetry[-1].decision_rev if self.telemetry else 0

    def counter(self, name: str) -> int:
        """Return a counter of the newest telemetry."""
        return self.telemetry[-1].counters.get(name, 0) if self.telemetry else 0

    def assert_every_frame_once(self) -> None:
        """Every captured frame of every session has exactly one line, always the same, or is folded."""
        for session, captured in self.captured.items():
            frames = sorted(frame for owner, frame in self.lines if owner == session)
            folded = sum(n for (owner, _, _), n in self.folded.items() if owner == session)
            assert len(frames) + folded == captured, f"session {session}: {len(frames)} lines of {captured} frames"
            assert frames == sorted(set(frames))
            assert all(1 <= frame <= captured for frame in frames)
        for key, lines in self.lines.items():
            assert all(line == lines[0] for line in lines), f"frame {key} ended in two ways"

    # -- its thread ------------------------------------------------------------------------------------------------

    def __enter__(self) -> Edge:
        self._link.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._link.stop()

    def _run(self) -> None:
        while not self._stop.is_set():
            for event in self._inbox.take(0.05):
                if isinstance(event, Received):
                    self._receive(event)
                elif isinstance(event, Activation):
                    answer_ok(self, event)

    def _receive(self, event: Received) -> None:
        channel = channels.parse_topic(event.topic).channel
        try:
            message = codec.decode(channel, event.payload)
        except PayloadError:  # our own poison, from a broker that does not know "no local"
            return
        with self._changed:
            self._keep(message)
            self._changed.notify_all()
        if isinstance(message, Activation):
            self.answering(self, message)
        elif isinstance(message, Outcomes) and self.recording:
            self.send(channels.RECORDED, Recorded(message.session, message.batch))

    def _keep(self, message: Any) -> None:
        match message:
            case Outcomes():
                self.batches.append(message)
                self._keep_lines(message)
            case Result() if message.computed_by == DEVICE:
                self.results.append(message)
            case State():
                self.states.append(message)
            case Telemetry():
                self.telemetry.append(message)
            case Capabilities():
                self.capabilities.append(message)
            case Activation():
                self.activations.append(message)

    def _keep_lines(self, batch: Outcomes) -> None:
        self.captured[batch.session] = max(batch.captured, self.captured.get(batch.session, 0))
        for row in batch.rows:
            self.lines.setdefault((batch.session, row.frame), []).append(row)
            self.plans[batch.session, row.frame] = batch.plans[row.plan]
        for folded in batch.folded:
            self.folded[batch.session, folded.outcome, folded.reason] = folded.frames

    def best(self, activation: Activation) -> ScoredLabel:
        """Run the tail."""
        plan = activation.plan
        folder = self._catalog.folder(plan.version)
        key = (plan.version, plan.cut)
        if key not in self._tails:
            self._tails[key] = Submodel(folder.tail(plan.cut))
        scores = self._tails[key].run(*decode_activation(folder.version.cut(plan.cut), activation.tensors))[0][0]
        return ScoredLabel(int(np.argmax(scores)), float(scores.max()))


def answer_ok(edge: Edge, activation: Activation) -> None:
    """Answer with the tail's label."""
    edge.send(
        channels.RESULT,
        Result(
            activation.session, activation.frame, activation.plan, Status.OK, Outcome.EDGE, "edge",
            best=edge.best(activation), stamp_ns=activation.stamp_ns, wait_ms=0.5, tail_ms=0.25, batch=1,
        ),
    )  # fmt: skip


def answer_with(status: Status) -> Answering:
    """Refuse every frame with a status."""

    def answer(edge: Edge, activation: Activation) -> None:
        refusal = Result(activation.session, activation.frame, activation.plan, status, Outcome.FALLBACK, "edge")
        edge.send(channels.RESULT, refusal)

    return answer


def keep_silent(edge: Edge, activation: Activation) -> None:
    """Do not answer; what came is held."""
    edge.held.append(activation)


def answer_twice(edge: Edge, activation: Activation) -> None:
    """Answer two times."""
    answer_ok(edge, activation)
    answer_ok(edge, activation)


@contextmanager
def running(settings: DeviceSettings, client: type[Client] = Client) -> Iterator[Client]:
    """Run a client in a thread, and stop it in good order."""
    stop = threading.Event()
    box: list[Client] = []
    failure: list[BaseException] = []
    made = threading.Event()

    def run() -> None:
        try:
            box.append(client(settings))
            made.set()
            box[0].run(stop)
        except BaseException as error:  # noqa: BLE001  handed to the test below
            failure.append(error)
        finally:
            made.set()

    thread = threading.Thread(target=run, name="client", daemon=True)
    thread.start()
    made.wait(PATIENCE_S)
    try:
        if not failure:
            yield box[0]
    finally:
        stop.set()
        thread.join(PATIENCE_S)
    if failure:
        raise failure[0]
    assert not thread.is_alive(), "the client did not stop"


def free_port() -> int:
    """Return a port nobody listens on."""
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def eventually(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
    """Poll for something that no event tells."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not seen in {seconds} s: {what}"
        time.sleep(0.01)
