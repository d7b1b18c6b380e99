"""The plan: the one value that says what a device runs, where it cuts and how it encodes."""

from __future__ import annotations

from dataclasses import dataclass

INPUT = "input"
"""The cut that ships the encoded frame itself: everything runs on the edge."""

OUTPUT = "output"
"""The cut that ships nothing: everything runs on the device."""

NO_CODEC = "none"
"""The codec of every plan at cut ``output``."""


@dataclass(frozen=True, slots=True, order=True)
class Plan:
    """A (version, cut, codec) triple.

    Pass it whole: a later field (such as an escalation threshold) then needs no change in any caller.
    """

    version: str
    cut: str
    codec: str

    @property
    def is_local(self) -> bool:
        """Whether the device computes the whole network itself."""
        return self.cut == OUTPUT

    @property
    def ships_input(self) -> bool:
        """Whether the picture itself leaves the device."""
        return self.cut == INPUT

    def __str__(self) -> str:
        return f"{self.version}/{self.cut}/{self.codec}"


def parse_plan(text: str) -> Plan:
    """Return the plan that ``str(plan)`` wrote. Raises ``ValueError`` for anything else."""
    parts = text.split("/")
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"'{text}' is not a plan: write version/cut/codec, such as resnet-light/output/none")
    return Plan(*parts)
