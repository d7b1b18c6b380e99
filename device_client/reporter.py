"""What a device says of itself: state, capabilities, telemetry, the ledger's batches and link probes."""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Callable

import device_client
from device_client import meters
from device_client.energy import EnergyAccount
from device_client.engine import codecs_here
from device_client.ledger import BATCH_ROWS, Ledger
from device_client.settings import DeviceSettings
from device_client.uplink import SMALL_BYTES, UplinkEstimator
from tflite_models.catalog import Catalog
from wire import channels, codec
from wire.channels import Channel
from wire.errors import WireError
from wire.link import Acknowledged
from wire.messages import (
    CachedVersion,
    Capabilities,
    DeviceState,
    Probe,
    State,
    Telemetry,
)
from wire.mqtt import Link
from wire.plan import Plan

log = logging.getLogger(__name__)

BATCH_PERIOD_MS = 1000.0
REPEAT_MIN_MS, REPEAT_MAX_MS = 2000.0, 60_000.0
PROBE_PERIOD_MS = 3000.0
SMALL_PROBE_PERIOD_MS = 500.0
REPLAY_PERIOD_MS = 200.0


@dataclasses.dataclass(slots=True)
class Averages:
    """Head times since the last telemetry, and how they compare with the profile."""

    head_ms: float = 0.0
    ratio: float = 0.0
    ratios: int = 0
    frames: int = 0

    def add(self, head_ms: float, expected_ms: float | None) -> None:
        """Enter one frame's head time."""
        self.head_ms += head_ms
        self.frames += 1
        if expected_ms:
            self.ratio += head_ms / expected_ms
            self.ratios += 1


def state_payload(session: int, state: DeviceState, reason: str = "") -> bytes:
    """Return the payload of a state message."""
    return codec.encode(channels.STATE, State(state, session, reason, time.time_ns() // 1_000_000))


class Reporter:
    """Sends what is due; ``now_ms`` is monotonic throughout."""

    def __init__(
        self,
        settings: DeviceSettings,
        ledger: Ledger,
        link: Link | None,
        uplink: UplinkEstimator,
        energy: EnergyAccount,
        rng: random.Random,
    ) -> None:
        self.averages = Averages()
        self._settings = settings
        self._ledger = ledger
        self._link = link
        self._uplink = uplink
        self._energy = energy
        self._rng = rng
        self._cpu = meters.CpuShare()
        self._seq = 0
        self._began_ms = time.monotonic_ns() / 1e6
        self._captured_before = 0
        self._telemetry_at: float | None = None
        self._batch_at = 0.0
        self._repeat_ms = REPEAT_MIN_MS
        self._probe_at = 0.0
        self._replay_at = 0.0
        self._timed: dict[int, int] = {}
        self.hurry = False
        """Send batch after batch without a pause: the client is stopping."""

    # -- at birth and death ----------------------------------------------------------------------------------------

    def announce(self, state: DeviceState, reason: str = "") -> None:
        """Publish the retained state."""
        if self._link is not None:
            payload = state_payload(self._ledger.session, state, reason)
            self._link.publish(self._topic(channels.STATE), payload, qos=1, retain=True, watch=False)

    def introduce(self, catalog: Catalog, runtime: str) -> None:
        """Publish the retained capabilities."""
        settings = self._settings
        message = Capabilities(
            session=self._ledger.session,
            client_version=device_client.__version__,
            board=meters.board_name(),
            device_class=settings.device_class,
            runtime=runtime,
            cores=os.cpu_count() or 1,
            memory_mb=meters.total_memory_mb(),
            versions=tuple(CachedVersion(v.name, v.sha256) for v in catalog),
            codecs=codecs_here(),
            energy_source=self._energy.source,
            fps=settings.camera.fps,
            deadline_ms=settings.deadline_ms,
            may_ship_input=settings.may_ship_input,
            slowdown=settings.slowdown,
            tags=settings.tags,
        )
        self._publish(channels.CAPABILITIES, message, retain=True)

    def connected(self) -> None:
        """The broker is there again: whatever waited for it is due now."""
        self._batch_at = 0.0
        self._repeat_ms = REPEAT_MIN_MS
        self._timed.clear()

    # -- while running ---------------------------------------------------------------------------------------------

    def tend(self, now_ms: float, *, link_idle: bool, telemetry: Callable[[float], Telemetry]) -> None:
        """Send what is due; ``link_idle`` says that no activation of ours is on its way, so times can be taken."""
        if self._telemetry_at is None or now_ms >= self._telemetry_at:
            period_ms = self._settings.telemetry_period_s * 1000
            elapsed_s = (period_ms + now_ms - (self._telemetry_at or now_ms)) / 1000
            self._telemetry_at = now_ms + period_ms
            self._send_telemetry(telemetry(elapsed_s), link_idle)
        if self._link is None or not self._link.connected:
            return
        if now_ms >= self._batch_at:
            self.send_batch(now_ms)
        if now_ms >= self._replay_at:
            self._replay(now_ms)
        if link_idle and now_ms >= self._probe_at and not self._link.waiting:
            self._probe(now_ms)

    def next_wake_ms(self) -> float:
        """When ``tend`` next has something to do."""
        batch_at = self._batch_at if self._link is not None and self._link.connected else float("inf")
        return min(self._telemetry_at or 0.0, batch_at)

    def measure(
        self, elapsed_s: float, plan: Plan, rev: int, in_flight: int, queued: int, counters: Counter[str], now_ms: float
    ) -> Telemetry:
        """Return the telemetry of the period that ends now."""
        self._seq += 1
        fps = (self._ledger.captured - self._captured_before) / elapsed_s
        self._captured_before = self._ledger.captured
        averages, self.averages = self.averages, Averages()
        return Telemetry(
            session=self._ledger.session,
            seq=self._seq,
            at_ms=time.time_ns() // 1_000_000,
            plan=plan,
            decision_rev=rev,
            fps=fps,
            in_flight=in_flight,
            queued=queued,
            head_ms=averages.head_ms / averages.frames if averages.frames else None,
            head_ms_per_plan_ms=averages.ratio / averages.ratios if averages.ratios else None,
            rtt_ms=self._uplink.rtt_ms(now_ms),
            uplink_bps=self._uplink.uplink_bps(now_ms),
            estimate_age_ms=self._uplink.age_ms(now_ms),
            cpu_share=self._cpu.read(),
            memory_mb=meters.resident_mb(),
            temperature_c=meters.temperature_c(),
            battery_share=meters.battery_share(),
            power_mw=self._energy.mean_power_mw(),
            energy_source=self._energy.source,
            counters=dict(counters),
            disk_free_mb=meters.disk_free_mb(self._settings.state),
            throttled=meters.throttled(),
            uptime_s=(now_ms - self._began_ms) / 1000,
        )

    def acknowledged(self, event: Acknowledged, now_ms: float) -> None:
        """Take the link's time from a publication that found it idle; a small one behind another small one will do."""
        size = self._timed.pop(event.token, None)
        if size is not None and (event.idle_link or size <= SMALL_BYTES):
            self._uplink.observe(now_ms, size, event.elapsed_ms)
            if SMALL_BYTES < size < self._uplink.probe_bytes(now_ms) / 2:  # too small to tell on so fast a link
                self._probe_at = min(self._probe_at, now_ms + SMALL_PROBE_PERIOD_MS)

    def not_sent(self, token: int) -> None:
        """Forget a publication whose acknowledgement will never come."""
        self._timed.pop(token, None)

    def send_batch(self, now_ms: float) -> None:
        """Send the ledger's batch; repeated, ever more rarely, until ``recorded``."""
        message = self._ledger.batch()
        if message is None:
            self._batch_at = now_ms + BATCH_PERIOD_MS
            return
        self._publish(channels.OUTCOMES, message)
        self._batch_at = now_ms + self._repeat_ms * self._rng.uniform(0.8, 1.2)
        self._repeat_ms = min(self._repeat_ms * 2, REPEAT_MAX_MS)

    def recorded(self, session: int, batch: int, now_ms: float) -> bool:
        """Forget the batch the recorder has; the next follows at once when it would be full."""
        if not self._ledger.recorded(session, batch):
            return False
        self._repeat_ms = REPEAT_MIN_MS
        at_once = self.hurry or self._ledger.unrecorded >= BATCH_ROWS
        self._batch_at = now_ms if at_once else now_ms + BATCH_PERIOD_MS
        return True

    def _send_telemetry(self, message: Telemetry, link_idle: bool) -> None:
        if self._link is not None and self._link.connected:
            self._publish(channels.TELEMETRY, message, timed=link_idle)
        elif self._link is not None:
            self._ledger.spool(codec.encode(channels.TELEMETRY, message))

    def _replay(self, now_ms: float) -> None:
        self._replay_at = now_ms + REPLAY_PERIOD_MS
        oldest = self._ledger.unspool()
        if oldest is None:
            return
        number, payload = oldest
        try:
            kept: Telemetry = codec.decode(channels.TELEMETRY, payload)
        except WireError as error:  # of another release
            log.warning("telemetry kept while offline cannot be sent: %s", error)
            self._ledger.drop_spooled(number)
            return
        if self._publish(channels.TELEMETRY, dataclasses.replace(kept, replayed=True)):
            self._ledger.drop_spooled(number)

    def _probe(self, now_ms: float) -> None:
        if self._uplink.rtt_ms(now_ms) is None:  # what large messages take beyond a small one is the rate
            self._publish(channels.PROBE, Probe(b""), timed=True)
            self._probe_at = now_ms + SMALL_PROBE_PERIOD_MS
            return
        self._probe_at = now_ms + PROBE_PERIOD_MS * self._rng.uniform(0.8, 1.2)
        age_ms = self._uplink.age_ms(now_ms)
        if age_ms is None or age_ms >= PROBE_PERIOD_MS / 2:
            self._publish(channels.PROBE, Probe(bytes(self._uplink.probe_bytes(now_ms))), timed=True)

    def _publish(self, channel: Channel, message: object, *, retain: bool = False, timed: bool = False) -> bool:
        """Hand a message to the link and return whether it took it."""
        if self._link is None:
            return False
        payload = codec.encode(channel, message)
        token = self._link.publish(self._topic(channel), payload, qos=channel.qos, retain=retain, watch=timed)
        if timed and token is not None:
            self._timed[token] = len(payload)
        return token is not None

    def _topic(self, channel: Channel) -> str:
        return channels.topic(self._settings.site, self._settings.name, channel)
