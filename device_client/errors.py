"""The one root of what a device client cannot do, beside bad settings and bad models."""

from __future__ import annotations


class DeviceError(Exception):
    """The client cannot go on; the message says what is wrong and what to do."""
