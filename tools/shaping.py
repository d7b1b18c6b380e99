"""How an emulated link delays bytes: rate, delay, jitter and outages, computed without any clock or socket."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

SEGMENT_BYTES = 1448
"""What one Ethernet frame carries of a TCP stream: bytes are serialised in steps of this size."""
QUEUE_FLOOR_BYTES = 16 * 1024
QUEUE_S = 0.2
"""Bytes waiting for the line: 200 ms of its rate, as a modem's buffer, and never below the floor."""
FLYING_LIMIT_BYTES = 8 * 1024 * 1024
"""Bytes on their way (or due, while the receiver does not read); bounds memory on a line of unlimited rate."""


@dataclass(frozen=True, slots=True)
class LinkShape:
    """One device's link. Uplink is what the connecting side sends; ``math.inf`` is an unlimited rate."""

    uplink_bps: float = math.inf
    downlink_bps: float = math.inf
    delay_ms: float = 0.0
    """One way, in each direction."""
    jitter_ms: float = 0.0
    """Added to each segment's delay, uniform between 0 and this; order is kept."""

    def __post_init__(self) -> None:
        if not (self.uplink_bps > 0 and self.downlink_bps > 0):
            raise ValueError("a link's rates must be above 0; use an outage for a link that is down")
        if self.delay_ms < 0 or self.jitter_ms < 0:
            raise ValueError("a link's delay and jitter cannot be negative")


@dataclass(frozen=True, slots=True)
class Outage:
    """The link goes down (existing connections stall, or are cut) or comes back."""

    down: bool
    cut: bool = True


Change = LinkShape | Outage


def symmetric(mbps: float, delay_ms: float, jitter_ms: float = 0.0) -> LinkShape:
    """Return a link of one rate (Mbit/s) in both directions."""
    return LinkShape(mbps * 1e6, mbps * 1e6, delay_ms, jitter_ms)


PRESETS: Mapping[str, LinkShape] = {
    "0.13": symmetric(0.13, 60.0, 10.0),
    "1.1": symmetric(1.1, 35.0, 8.0),
    "5.85": symmetric(5.85, 20.0, 5.0),
    "8": symmetric(8.0, 10.0, 2.0),
    "18.88": symmetric(18.88, 3.0, 1.0),
    "20": symmetric(20.0, 2.0, 0.5),
}
"""Links by their rate in Mbit/s; the delays are plausible for such a link, not measured."""


def preset(name: str) -> LinkShape:
    """Return a link by its name; raises ``ValueError`` naming those there are."""
    try:
        return PRESETS[name]
    except KeyError:
        raise ValueError(f"no link is called '{name}'; there are {', '.join(PRESETS)} (Mbit/s)") from None


class Pacer:
    """One direction of one connection: bytes go in with ``push`` and come out of ``poll`` when they have arrived.

    A segment starts when it is there and the line is free, occupies the line for bits/rate, and arrives after the
    delay, never before the segment ahead of it. Times are seconds of any rising clock.
    """

    def __init__(self, rate_bps: float, delay_s: float, jitter_s: float, rng: random.Random) -> None:
        self._rng = rng
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._flying: deque[tuple[float, bytes]] = deque()
        self._waiting_bytes = 0
        self._flying_bytes = 0
        self._line_free_at = -math.inf
        self._last_arrival = -math.inf
        self._down = False
        self.reshape(rate_bps, delay_s, jitter_s)

    def __len__(self) -> int:
        """Bytes that went in and have not come out."""
        return self._waiting_bytes + self._flying_bytes

    def reshape(self, rate_bps: float, delay_s: float, jitter_s: float) -> None:
        """Change the link from the next segment on; what is on its way keeps its time."""
        self._rate_bps, self._delay_s, self._jitter_s = rate_bps, delay_s, jitter_s
        queue_bytes = FLYING_LIMIT_BYTES if math.isinf(rate_bps) else int(QUEUE_S * rate_bps / 8)
        self._queue_bytes = max(QUEUE_FLOOR_BYTES, min(queue_bytes, FLYING_LIMIT_BYTES))

    def set_down(self, down: bool, now: float) -> None:
        """Stop everything, or let it go on: the line was not used in between."""
        if self._down and not down:
            self._line_free_at = max(self._line_free_at, now)
        self._down = down

    def room(self) -> int:
        """Bytes that may be pushed now; a caller that keeps to it never makes the queue grow beyond its bound."""
        return max(0, min(self._queue_bytes - self._waiting_bytes, FLYING_LIMIT_BYTES - len(self)))

    def push(self, data: bytes, now: float) -> None:
        """Take bytes that the sender has handed over at ``now``."""
        step = len(data) if math.isinf(self._rate_bps) else SEGMENT_BYTES
        for at in range(0, len(data), step or 1):
            self._waiting.append((now, data[at : at + step]))
        self._waiting_bytes += len(data)

    def poll(self, now: float) -> bytes:
        """Return what has arrived by ``now``."""
        return b"".join(self._arrived(now))

    def next_at(self) -> float:
        """Return when ``poll`` has something to do again; ``math.inf`` when only a push or a change can bring it."""
        if self._down:
            return math.inf
        line = max(self._line_free_at, self._waiting[0][0]) if self._waiting else math.inf
        return min(line, self._flying[0][0] if self._flying else math.inf)

    def _arrived(self, now: float) -> Iterator[bytes]:
        if self._down:
            return
        while self._waiting:
            start = max(self._line_free_at, self._waiting[0][0])
            if start > now:
                break
            self._serialise(start)
        while self._flying and self._flying[0][0] <= now:
            _, data = self._flying.popleft()
            self._flying_bytes -= len(data)
            yield data

    def _serialise(self, start: float) -> None:
        _, data = self._waiting.popleft()
        self._waiting_bytes -= len(data)
        self._line_free_at = start + 8 * len(data) / self._rate_bps
        arrival = self._line_free_at + self._delay_s + self._jitter_s * self._rng.random()
        self._last_arrival = max(self._last_arrival, arrival)
        self._flying.append((self._last_arrival, data))
        self._flying_bytes += len(data)
