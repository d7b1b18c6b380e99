"""Logging of a process that runs for years: stderr, and no flood of the same complaint."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

BURST = 20
"""Warnings and errors that one line of code may log per period; strangers decide how often it is reached."""
PERIOD_S = 60.0


class Sparse(logging.Filter):
    """Lets a burst per period and place through, and says how many were left out since; below WARNING all pass."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._places: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be written."""
        if record.levelno < logging.WARNING:
            return True
        place, now_s = (record.pathname, record.lineno), self._clock()
        since_s, count = self._places.get(place, (now_s, 0))
        if now_s - since_s >= PERIOD_S:
            if count > BURST:
                record.msg, record.args = f"{record.getMessage()} (and {count - BURST} more like it, left out)", ()
            since_s, count = now_s, 0
        self._places[place] = since_s, count + 1
        return count < BURST


def start_logging(level: str, form: str) -> None:
    """Log to stderr from ``level`` on."""
    handler = logging.StreamHandler()
    handler.addFilter(Sparse())
    logging.basicConfig(level=level, format=form, handlers=[handler])
