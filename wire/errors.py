"""The one root of everything that can be wrong with a payload, a topic or a link."""

from __future__ import annotations


class WireError(ValueError):
    """A payload, topic or setting of the link does not follow the contract."""


class PayloadError(WireError):
    """Bytes that are not a message of the channel they came on."""

    def __init__(self, channel: str, problem: str) -> None:
        self.channel = channel
        self.problem = problem
        super().__init__(f"not a valid '{channel}' message: {problem}")


class TopicError(WireError):
    """A topic or name outside ``splitfleet/v1/<site>/<name>/<channel>``."""
