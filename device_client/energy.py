"""What a frame costs this board in energy: measured where there is a meter, else modelled from the profile."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from device_client.meters import PowerMeter
from tflite_models.profile import DeviceProfile
from wire.messages import EnergySource

DEFAULT_ACTIVE_MW = 2500.0
"""Drawn above idle while computing, for a board without profile: a Raspberry Pi 4 at one busy core draws about this."""
DEFAULT_TX_MW = 700.0
"""Drawn above idle while sending; the value at which the published TX2 energies are consistent."""


@dataclass(slots=True)
class EnergyAccount:
    """Turns time and bytes into millijoules per frame."""

    meter: PowerMeter | None
    profile: DeviceProfile | None
    _read: tuple[float, float | None] | None = field(default=None, init=False)

    @property
    def source(self) -> EnergySource:
        """What every figure of this account is."""
        return EnergySource.MODELLED if self.meter is None else EnergySource.MEASURED

    def mean_power_mw(self) -> float | None:
        """Return the mean power since the last call, where a meter has it."""
        before, self._read = self._read, (time.monotonic(), self.start())
        at, energy_mj = self._read
        if before is None or before[1] is None or energy_mj is None or at <= before[0]:
            return None
        return (energy_mj - before[1]) / (at - before[0])

    def start(self) -> float | None:
        """Take the reading before a computation."""
        return None if self.meter is None else self.meter.energy_mj()

    def computed_mj(self, before: float | None, busy_ms: float) -> float:
        """Return what a computation drew: the whole board's where measured, above idle where modelled."""
        if self.meter is not None and before is not None:
            after = self.meter.energy_mj()
            if after is not None:
                return max(after - before, 0.0)
        power = self.profile.active_power_mw if self.profile else DEFAULT_ACTIVE_MW
        return busy_ms * power / 1000

    def sent_mj(self, size_bytes: int, uplink_bps: float | None) -> float:
        """Return the modelled cost of sending; zero where a meter counts the whole board or the rate is unknown."""
        if self.meter is not None or not uplink_bps:
            return 0.0
        power = self.profile.tx_power_mw if self.profile else DEFAULT_TX_MW
        return size_bytes * 8 / uplink_bps * power
