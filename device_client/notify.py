"""What systemd hears of the client: that it is ready, that its loop still turns, that it ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping


class Notifier:
    """Speaks to the socket that systemd names in ``NOTIFY_SOCKET``; without one it does nothing.

    Call it from the loop thread alone: then a loop that is stuck falls silent, and systemd restarts the client.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        watchdog_us = environment.get("WATCHDOG_USEC", "")
        self._period_s = int(watchdog_us) / 1e6 / 4 if watchdog_us.isdecimal() else 10.0
        self._next_s = 0.0

    def ready(self) -> None:
        """Say that the client works."""
        self._tell("READY=1")

    def alive(self, now_s: float, status: Callable[[], str]) -> None:
        """Say that the loop turns, a few times as often as is demanded, and what there is to say."""
        if self._address and now_s >= self._next_s:
            self._next_s = now_s + self._period_s
            self._tell(f"WATCHDOG=1\nSTATUS={status()}")

    def stopping(self) -> None:
        """Say that the client ends because it was asked to."""
        self._tell("STOPPING=1")

    def _tell(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as wire:
                wire.setblocking(False)  # a full socket must not hold up frames
                wire.sendto(message.encode(), self._address)
        except OSError:
            pass  # a silence too many, and systemd restarts us: nobody else could be told
