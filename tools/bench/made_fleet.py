"""A fleet that is made up: what its devices would say, at their pace, to a real broker."""

from __future__ import annotations

import time

from wire import channels
from wire.channels import Channel
from wire.codec import encode
from wire.errors import WireError
from wire.inbox import Inbox
from wire.link import LinkSettings
from wire.messages import (
    CachedVersion,
    Capabilities,
    Decision,
    DeviceState,
    EnergySource,
    FrameOutcome,
    Outcome,
    Outcomes,
    State,
    Telemetry,
)
from wire.mqtt import Link
from wire.plan import Plan

PLANS = (
    Plan("resnet-heavy", "s3b1", "q2"),
    Plan("resnet-heavy", "input", "jpeg75"),
    Plan("resnet-light", "output", "none"),
)
SAID_FIRST_S = 30.0
MOST_WAITING = 200
"""Messages that the broker has not acknowledged."""
FRAMES = 3
"""Per batch of outcomes; two batches per second."""


class MadeFleet:
    """Devices that all speak over one connection; not thread-safe but for ``telemetry``."""

    def __init__(self, site: str, broker_port: int, devices: int) -> None:
        """Connect, and introduce every device; raises ``WireError`` when no broker answers."""
        self.names = [f"cam-{number:04d}" for number in range(devices)]
        self.said = 0
        self.charge: float | None = None
        """Of the first device's battery."""
        self._site = site
        self._frame = 0
        self._batch = 0
        self._link = Link(
            LinkSettings(port=broker_port, qos1_outbox_bytes=64 * 2**20), f"{site}-fleet", Inbox(), clean_start=True
        )
        self._link.start()
        for number, name in enumerate(self.names):
            self._introduce(number, name)
        deadline_s = time.monotonic() + SAID_FIRST_S
        while self._link.waiting:
            if time.monotonic() > deadline_s:
                raise WireError(f"the broker on port {broker_port} takes nothing")
            time.sleep(0.01)

    def close(self) -> None:
        """Disconnect."""
        self._link.stop(drain_s=0.0)

    def round(self, seconds: float) -> None:
        """Let every device tell its telemetry and two batches of outcomes, spread over so many seconds."""
        begun_s = time.monotonic()
        for half in range(2):
            self._batch += 1
            for number in range(len(self.names)):
                self._outcomes(number)
                if half == 0:
                    self.telemetry(number)
                due_s = begun_s + seconds * (half + (number + 1) / len(self.names)) / 2
                if (early_s := due_s - time.monotonic()) > 0.01:
                    time.sleep(early_s)
                while self._link.waiting > MOST_WAITING:  # so slow a broker shall be seen in the rate, not in the lag
                    time.sleep(0.005)
            self._frame += FRAMES

    def telemetry(self, number: int) -> None:
        """Let one device tell its telemetry."""
        wave = (number * 37 + self._batch * 11) % 100 / 100
        message = Telemetry(
            session=1, seq=self._batch, at_ms=_now_ms(), plan=PLANS[number % 3], decision_rev=1, fps=6.0 + wave,
            in_flight=1, queued=0, rtt_ms=20 + 30 * wave, uplink_bps=1e6 + 8e6 * wave, cpu_share=0.4 + 0.1 * wave,
            memory_mb=66.0, battery_share=self.charge if number == 0 else None, power_mw=2500.0 + 100 * wave,
            counters={"frames": self._frame, "link_sent": self._batch, "probes": self._batch // 5},
        )  # fmt: skip
        self._say(channels.TELEMETRY, number, message)

    def _outcomes(self, number: int) -> None:
        plan = PLANS[number % 3]
        usual = Outcome.DEVICE if plan.is_local else Outcome.EDGE
        now_ms = _now_ms()
        frames = range(self._frame + 1, self._frame + FRAMES + 1)
        lines = tuple(self._line(frame, number, usual, now_ms) for frame in frames)
        message = Outcomes(1, self._batch, self._frame + FRAMES, (plan,), lines)
        self._say(channels.OUTCOMES, number, message)

    def _line(self, frame: int, number: int, usual: Outcome, now_ms: int) -> FrameOutcome:
        late = (frame + number) % 40 == 0
        return FrameOutcome(
            frame, Outcome.FALLBACK if late else usual, 0, now_ms, 60.0 + (frame * 7 + number) % 50, head_ms=12.0,
            encode_ms=1.0, network_ms=30.0, wait_ms=2.0, tail_ms=8.0, batch=2, sent_bytes=456, energy_mj=35.0,
            energy_source=EnergySource.MODELLED, label=3, score=0.9, reason="no-answer" if late else "",
        )  # fmt: skip

    def _introduce(self, number: int, name: str) -> None:
        self._say(channels.STATE, number, State(DeviceState.READY, 1))
        about = Capabilities(
            1, "0.1.0", f"board of {name}", "made", "tflite-runtime 2.14.0", 4, 3792,
            (CachedVersion("resnet-heavy", "ab" * 32), CachedVersion("resnet-light", "cd" * 32)), ("q2", "jpeg75"),
            EnergySource.MODELLED, 6.0, 400.0,
        )  # fmt: skip
        self._say(channels.CAPABILITIES, number, about)
        self._say(channels.DECISION, number, Decision(1, PLANS[number % 3], 400.0, "a2c", "made up for the bench"))

    def _say(self, channel: Channel, number: int, message: object) -> None:
        topic = channels.topic(self._site, self.names[number], channel)
        if self._link.publish(topic, encode(channel, message), qos=channel.qos, retain=channel.retained, watch=False):
            self.said += 1


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
