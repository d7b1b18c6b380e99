"""Who is handed the next piece of a bundle: each device in its turn, all together not above a rate. Pure."""

from __future__ import annotations

from collections import OrderedDict

from wire.messages import Fetch

BURST_S = 0.25
"""So much of the rate may go out at once."""


class HandingOut:
    """What devices have asked for. A device has one wish at a time: a newer one takes the place of the older."""

    def __init__(self, rate_bytes_per_s: float) -> None:
        self._rate = rate_bytes_per_s
        self._wishes: OrderedDict[str, Fetch] = OrderedDict()
        self._credit = 0.0
        self._counted_s: float | None = None

    def __len__(self) -> int:
        return len(self._wishes)

    def ask(self, device: str, wish: Fetch) -> None:
        """Take in a wish; it waits where the device's older one did."""
        self._wishes[device] = wish

    def forget(self, device: str) -> None:
        """Drop a device's wish."""
        self._wishes.pop(device, None)

    def next(self, now_s: float) -> tuple[str, Fetch] | None:
        """Return whose turn it is, if the rate allows one more piece now."""
        since_s = 0.0 if self._counted_s is None else max(0.0, now_s - self._counted_s)
        self._counted_s = now_s
        self._credit = min(self._credit + since_s * self._rate, self._rate * BURST_S)
        if not self._wishes or self._credit < 0:
            return None
        device, wish = self._wishes.popitem(last=False)
        self._credit -= wish.length
        return device, wish

    def wait_s(self) -> float:
        """Return how long until the rate allows one more piece."""
        return max(0.0, -self._credit / self._rate)
