"""How a process learns that it is to end."""

from __future__ import annotations

import signal
import threading
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM or SIGINT sets. Ask it with ``is_set``; never ``wait`` for it in the main thread.

    A handler runs between two instructions of the main thread, and a second signal runs it inside the first. The lock
    of an event is not reentrant: setting it twice like that, or while the main thread waits for it, would end in a
    deadlock. Seen with the death signals of a killed parent.
    """
    stop = threading.Event()
    asked = False

    def ask(*_: Any) -> None:
        nonlocal asked
        if not asked:
            asked = True
            stop.set()

    for number in SIGNALS:
        signal.signal(number, ask)
    return stop
