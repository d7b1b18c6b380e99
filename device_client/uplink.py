"""What the device can tell of its link from round trips on its own clock: RTT and uplink rate. Pure."""

from __future__ import annotations

from collections import deque

SMALL_BYTES = 600
"""Up to here a round trip says more of the RTT than of the rate."""
WINDOW_MS = 20_000
BASE_SAMPLES = 8
RATE_SAMPLES = 4
LEAST_NOISE_MS = 0.3
MIN_BPS, MAX_BPS = 5e3, 500e6
PROBE_MS = 25.0
"""A probe is as large as takes about this long at the rate believed now; jitter hides what takes much less."""
PROBE_MIN_BYTES, PROBE_MAX_BYTES = 1024, 64 * 1024


class UplinkEstimator:
    """Feeds on (bytes, round trip) of publications that found the link idle.

    Whatever disturbs a round trip (jitter, a retransmission, a busy processor) makes it longer, so the quickest tells
    most: the quickest recent small message is the base, and the best rate of the last few large ones holds. A large one
    must take longer than the base by more than the small ones differ among themselves; what it takes less is noise, and
    one of a quarter of the largest size or less has nothing to add.
    The RTT is the base less its own transmission.
    """

    def __init__(self) -> None:
        self._small: deque[tuple[float, int, float]] = deque(maxlen=BASE_SAMPLES)
        self._large: deque[tuple[int, float]] = deque(maxlen=RATE_SAMPLES)
        self._last_large_ms: float | None = None

    def observe(self, now_ms: float, size_bytes: int, round_trip_ms: float) -> None:
        """Enter one round trip, less the time the other side says it worked; what tells too little is passed over."""
        if round_trip_ms <= 0:
            return
        if size_bytes <= SMALL_BYTES:
            self._small.append((now_ms, size_bytes, round_trip_ms))
            return
        _, base_ms = self._base(now_ms) or (0, 0.0)
        if size_bytes >= self.probe_bytes(now_ms) / 4 or round_trip_ms - base_ms >= PROBE_MS:
            self._large.append((size_bytes, round_trip_ms))
            self._last_large_ms = now_ms

    def rtt_ms(self, now_ms: float) -> float | None:
        """Round trip of an empty message, or ``None`` while unknown."""
        base = self._base(now_ms)
        if base is None:
            return None
        size, took = base
        rate = self.uplink_bps(now_ms)
        return took if rate is None else max(took - 8000 * size / rate, 0.0)

    def uplink_bps(self, now_ms: float) -> float | None:
        """Believed uplink rate in bit/s, or ``None`` while unknown."""
        if not self._large:
            return None
        base_bytes, base_ms = self._base(now_ms) or (0, 0.0)
        noise_ms = self._noise_ms(now_ms, base_ms)
        telling = max(size for size, _ in self._large) / 4
        rates = (
            8000 * (size - base_bytes) / max(took - base_ms, noise_ms) for size, took in self._large if size >= telling
        )
        return min(max(*rates, MIN_BPS), MAX_BPS)

    def age_ms(self, now_ms: float) -> int | None:
        """Age of the newest sample behind the rate."""
        return None if self._last_large_ms is None else int(now_ms - self._last_large_ms)

    def probe_bytes(self, now_ms: float) -> int:
        """Size of a probe that is worth sending now."""
        rate = self.uplink_bps(now_ms)
        if rate is None:
            return PROBE_MIN_BYTES * 4
        return int(min(max(rate * PROBE_MS / 8000, PROBE_MIN_BYTES), PROBE_MAX_BYTES))

    def _base(self, now_ms: float) -> tuple[int, float] | None:
        return min(self._recent(now_ms), key=lambda sample: sample[1], default=None)

    def _noise_ms(self, now_ms: float, base_ms: float) -> float:
        """Half of what a middling small message takes beyond the quickest."""
        times = sorted(took for _, took in self._recent(now_ms))
        return max((times[len(times) // 2] - base_ms) / 2, LEAST_NOISE_MS) if times else LEAST_NOISE_MS

    def _recent(self, now_ms: float) -> list[tuple[int, float]]:
        return [(size, took) for at, size, took in self._small if now_ms - at <= WINDOW_MS]
