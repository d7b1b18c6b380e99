"""What waits to be sent: two queues with their bounds, apart from any socket."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One publication. ``token`` names it in the events that tell what became of it."""

    topic: str
    payload: bytes
    qos: int
    retain: bool = False
    expires_ns: int | None = None
    """Monotonic time after which sending it is pointless."""
    token: int | None = None

    @property
    def size(self) -> int:
        """Bytes it will take on the wire, near enough for bounds."""
        return len(self.payload) + len(self.topic) + 32


class Outbox:
    """Fresh data (QoS 0: oldest goes first when full) and durable data (QoS 1: refused when full)."""

    def __init__(self, qos0_bytes: int, qos1_bytes: int) -> None:
        self._qos0: deque[Outgoing] = deque()
        self._qos1: deque[Outgoing] = deque()
        self._bounds = (qos0_bytes, qos1_bytes)
        self._held = [0, 0]

    def __len__(self) -> int:
        return len(self._qos0) + len(self._qos1)

    def add(self, item: Outgoing) -> tuple[bool, list[Outgoing]]:
        """Queue a publication; return whether it was taken, and what older ones had to go for it."""
        if item.qos:
            if self._held[1] + item.size > self._bounds[1]:
                return False, []
            self._qos1.append(item)
            self._held[1] += item.size
            return True, []
        if item.size > self._bounds[0]:
            return False, []
        evicted = []
        while self._held[0] + item.size > self._bounds[0]:
            oldest = self._qos0.popleft()
            self._held[0] -= oldest.size
            evicted.append(oldest)
        self._qos0.append(item)
        self._held[0] += item.size
        return True, evicted

    def next(self, now_ns: int, *, window_open: bool) -> tuple[Outgoing | None, list[Outgoing]]:
        """Return what to send now, durable first while its window is open, and what expired meanwhile."""
        expired: list[Outgoing] = []
        for qos, queue in ((1, self._qos1), (0, self._qos0)):
            while queue and (qos == 0 or window_open):
                item = queue.popleft()
                self._held[qos] -= item.size
                if item.expires_ns is None or now_ns < item.expires_ns:
                    return item, expired
                expired.append(item)
        return None, expired

    def drain_qos0(self) -> list[Outgoing]:
        """Empty the queue of fresh data, as when the connection is gone, and return what was in it."""
        gone = list(self._qos0)
        self._qos0.clear()
        self._held[0] = 0
        return gone
