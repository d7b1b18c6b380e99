"""The one root of what flashing cannot do."""

from __future__ import annotations


class FlashError(Exception):
    """A board cannot be flashed as asked; the message says what is wrong and what to do."""
