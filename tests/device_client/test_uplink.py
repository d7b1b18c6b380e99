"""The uplink estimate against a simulated link that knows nothing of the estimator: bytes leave in order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from device_client.uplink import MAX_BPS, MIN_BPS, PROBE_MAX_BYTES, PROBE_MIN_BYTES, UplinkEstimator

SEGMENT, HEADERS = 1448, 52


@dataclass
class SimulatedLink:
    """A first-in-first-out uplink of packets with headers, a delay that jitters, and an echo at the other end."""

    rate_bps: float
    rtt_ms: float
    jitter_ms: float
    rng: random.Random
    free_at_ms: float = 0.0

    def round_trip_ms(self, at_ms: float, size: int) -> float:
        """Send ``size`` bytes and return when the answer is back, in ms after sending."""
        packets = -(-size // SEGMENT)
        busy_ms = (size + packets * HEADERS) * 8 / self.rate_bps * 1000
        self.free_at_ms = max(self.free_at_ms, at_ms) + busy_ms
        wobble_ms = self.rng.expovariate(1 / self.jitter_ms) if self.jitter_ms else 0.0
        return self.free_at_ms - at_ms + self.rtt_ms + wobble_ms


@dataclass
class Device:
    """What a client sends: a frame per period, telemetry each second, probes of the size the estimator asks for."""

    link: SimulatedLink
    frame_bytes: int
    estimator: UplinkEstimator = field(default_factory=UplinkEstimator)
    now_ms: float = 0.0

    def send(self, size: int) -> None:
        """Send one message on an idle link, wait for its answer and a little more."""
        took = self.link.round_trip_ms(self.now_ms, size)
        self.now_ms += took
        self.estimator.observe(self.now_ms, size, took)
        self.now_ms += 20

    def run(self, seconds: int) -> None:
        """Send as a client does for a while."""
        for second in range(seconds):
            self.send(350)
            if self.frame_bytes:
                self.send(self.frame_bytes)
            age_ms = self.estimator.age_ms(self.now_ms)
            if second % 5 == 0 and (age_ms is None or age_ms >= 2500):
                self.send(self.estimator.probe_bytes(self.now_ms))
            self.now_ms = max(self.now_ms, (second + 1) * 1000.0)


def links() -> Iterator[tuple[float, float, float]]:
    """(Mbit/s, RTT, jitter) of the presets, near and far, quiet and restless."""
    for mbps in (0.13, 1.1, 5.85, 8.0, 18.88, 20.0):
        for rtt_ms, jitter_ms in ((2.0, 0.2), (20.0, 2.0), (80.0, 5.0)):
            yield mbps, rtt_ms, jitter_ms


@pytest.mark.parametrize("frame_bytes", [0, 1200, 6000, 40_000])
@pytest.mark.parametrize(("mbps", "rtt_ms", "jitter_ms"), list(links()))
def test_the_estimate_is_within_a_factor(mbps: float, rtt_ms: float, jitter_ms: float, frame_bytes: int) -> None:
    within = []
    for seed in range(10):
        link = SimulatedLink(mbps * 1e6, rtt_ms, jitter_ms, random.Random(seed))
        device = Device(link, frame_bytes)
        device.run(30)
        estimate = device.estimator.uplink_bps(device.now_ms)
        assert estimate is not None
        within.append(estimate / (mbps * 1e6))
        rtt = device.estimator.rtt_ms(device.now_ms)
        assert rtt is not None
        headers_ms = 2 * HEADERS * 8 / (mbps * 1e3)
        assert abs(rtt - rtt_ms) <= max(0.3 * rtt_ms, 4 * jitter_ms) + headers_ms
    within.sort()
    factor = {0.2: 1.1, 2.0: 1.5, 5.0: 2.5}[jitter_ms]
    assert 1 / factor <= within[1], "all but one of ten runs"
    assert within[-2] <= factor, "all but one of ten runs"


class RestlessLink(SimulatedLink):
    """One round trip in five is held up by 10 to 120 ms, as by a retransmission or a busy processor."""

    def round_trip_ms(self, at_ms: float, size: int) -> float:
        """Send and return as the quiet link does, but for the hold-ups."""
        held_ms = self.rng.uniform(10, 120) if self.rng.random() < 0.2 else 0.0
        return super().round_trip_ms(at_ms, size) + held_ms


@pytest.mark.parametrize("mbps", [0.13, 1.1, 5.85, 20.0])
def test_hold_ups_do_not_pull_the_estimate_down(mbps: float) -> None:
    within = []
    for seed in range(20):
        device = Device(RestlessLink(mbps * 1e6, 20.0, 2.0, random.Random(seed)), 6000)
        device.run(30)
        estimate = device.estimator.uplink_bps(device.now_ms)
        assert estimate is not None
        within.append(estimate / (mbps * 1e6))
    within.sort()
    assert within[2] >= 1 / 2, "all but two of twenty runs"
    assert within[-3] <= 2, "all but two of twenty runs"


@pytest.mark.parametrize(("before", "after"), [(20.0, 0.13), (0.13, 20.0), (8.0, 1.1), (1.1, 8.0)])
def test_the_estimate_follows_a_change_of_rate_within_six_large_samples(before: float, after: float) -> None:
    link = SimulatedLink(before * 1e6, 20.0, 1.0, random.Random(3))
    device = Device(link, 6000)
    device.run(30)
    link.rate_bps = after * 1e6
    for _ in range(6):
        device.send(350)
        device.send(max(6000, device.estimator.probe_bytes(device.now_ms)))
    estimate = device.estimator.uplink_bps(device.now_ms)
    assert estimate is not None
    assert 0.5 <= estimate / (after * 1e6) <= 2


def test_nothing_is_known_before_the_first_large_sample_and_no_number_is_absurd() -> None:
    estimator = UplinkEstimator()
    assert estimator.uplink_bps(0) is None
    assert estimator.rtt_ms(0) is None
    assert estimator.age_ms(0) is None
    estimator.observe(0, 100, 30.0)
    assert estimator.uplink_bps(0) is None
    assert estimator.rtt_ms(0) == 30.0
    for took in (-5.0, 0.0, 0.001, 1e9):
        estimator.observe(1000, 50_000, took)
        rate = estimator.uplink_bps(1000)
        assert rate is None or MIN_BPS <= rate <= MAX_BPS
        assert PROBE_MIN_BYTES <= estimator.probe_bytes(1000) <= PROBE_MAX_BYTES
    assert estimator.age_ms(4000) == 3000


def test_small_frames_on_a_fast_link_do_not_keep_probes_away() -> None:
    """They take less than the jitter, so they must not count as a fresh measurement of the rate."""
    link = SimulatedLink(20e6, 40.0, 3.0, random.Random(1))
    device = Device(link, 1200)
    device.run(20)
    last = device.estimator.age_ms(device.now_ms)
    assert last is not None
    assert last > 2000
