"""What devices and links are like: capabilities and the spread of what telemetry measured. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from wire.messages import Capabilities, Decision, Telemetry

MOST_SAMPLES = 4096
"""Per device and figure: more than an hour at one a second."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of what was measured."""

    p10: float
    p50: float
    p90: float
    samples: int


@dataclass(slots=True)
class DeviceProfile:
    """One device as it was heard."""

    name: str
    capabilities: Capabilities | None = None
    decision: Decision | None = None
    telemetry: int = 0
    """Messages, but for replayed ones."""
    samples: dict[str, list[float]] = field(default_factory=dict)

    def take(self, message: object) -> None:
        """Take in any message of the device."""
        match message:
            case Capabilities():
                self.capabilities = message
            case Decision():
                self.decision = message
            case Telemetry() if not message.replayed:
                self.telemetry += 1
                figures = message.fps, message.uplink_bps, message.rtt_ms, message.head_ms_per_plan_ms
                for name, value in zip(("fps", "uplink_bps", "rtt_ms", "head_over_profile"), figures, strict=True):
                    kept = self.samples.setdefault(name, [])
                    if value is not None and len(kept) < MOST_SAMPLES:
                        kept.append(value)

    def spread(self, name: str) -> Spread | None:
        """Return the percentiles of a figure; ``None``: it was never measured."""
        kept = self.samples.get(name)
        if not kept:
            return None
        p10, p50, p90 = (float(value) for value in np.percentile(kept, [10, 50, 90]))
        return Spread(p10, p50, p90, len(kept))

    @property
    def deadline_ms(self) -> float | None:
        """What the policy told the device last, else its own."""
        if self.decision is not None:
            return self.decision.deadline_ms
        return self.capabilities.deadline_ms if self.capabilities else None


@dataclass
class SiteProfile:
    """Every device that was heard."""

    devices: dict[str, DeviceProfile] = field(default_factory=dict)

    def take(self, name: str, message: object) -> None:
        """Take in a message of a device."""
        self.devices.setdefault(name, DeviceProfile(name)).take(message)

    @property
    def present(self) -> Mapping[str, DeviceProfile]:
        """Those that sent telemetry; others are known by what the broker retains of them."""
        return {name: device for name, device in sorted(self.devices.items()) if device.telemetry}
