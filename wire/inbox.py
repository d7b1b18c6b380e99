"""The bounded mailbox through which other threads hand events to a process's one loop thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any


class Inbox:
    """First in, first out, bounded in bytes; what does not fit is refused and counted, never waited for."""

    def __init__(self, max_bytes: int = 32 * 1024 * 1024) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._items: deque[tuple[Any, int]] = deque()
        self._ready = threading.Condition()
        self.refused = 0
        """Events that did not fit since the process began."""

    def put(self, item: Any, size: int = 0) -> bool:
        """Add an event that holds ``size`` payload bytes; events of size 0 (connection changes) always fit."""
        with self._ready:
            if size and self._bytes + size > self._max_bytes:
                self.refused += 1
                return False
            self._items.append((item, size))
            self._bytes += size
            self._ready.notify()
            return True

    def take(self, timeout_s: float) -> list[Any]:
        """Return everything that is there, waiting up to ``timeout_s`` for the first event."""
        with self._ready:
            if not self._items and timeout_s > 0:
                deadline = time.monotonic() + timeout_s
                while not self._items:
                    left = deadline - time.monotonic()
                    if left <= 0 or not self._ready.wait(left):
                        break
            events = [item for item, _ in self._items]
            self._items.clear()
            self._bytes = 0
            return events
