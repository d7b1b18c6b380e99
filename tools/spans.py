"""Spans of time as people type them: 90s, 30m, 24h, 7d."""

from __future__ import annotations

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def milliseconds(text: str, option: str = "--since") -> int:
    """Return a span in milliseconds; raises ``PolicyError`` that names the option it was typed for."""
    from policy.errors import PolicyError

    try:
        value = float(text[:-1]) * _UNITS_MS[text[-1:]]
        if not 0 < value < 1e12:
            raise ValueError
    except (ValueError, KeyError):
        raise PolicyError(f"{option} {text}: write a time such as 90s, 30m, 24h or 7d") from None
    return int(value)
