"""What the board says of itself through the kernel: power, battery, temperature, CPU and memory.

Every reader takes the root of the file system, so that a board can be laid out in a folder; what is missing or
unreadable reads as ``None``.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

INA_CHIPS = frozenset(
    {"ina209", "ina219", "ina220", "ina226", "ina230", "ina231", "ina233", "ina237", "ina238", "ina260"}
)
INA_MULTI = "ina3221"
ROOT = Path("/")
LARGEST = 1e18
"""Beyond what any of the files read here counts."""


class PowerMeter(Protocol):
    """A source of energy drawn so far."""

    @property
    def name(self) -> str:
        """Name for logs."""

    def energy_mj(self) -> float | None:
        """Millijoules since some fixed moment; ``None`` when the reading failed."""


def find_power_meter(root: Path = ROOT) -> PowerMeter | None:
    """Return the best meter of this board: an INA sensor on its supply, else RAPL, else none."""
    for hwmon in sorted(root.glob("sys/class/hwmon/hwmon*")):
        chip = _text(hwmon / "name")
        if chip in INA_CHIPS or chip == INA_MULTI:
            meter = InaMeter(hwmon, chip)
            if meter.power_mw() is not None:
                return meter
    package = root / "sys/class/powercap/intel-rapl:0"
    rapl = RaplMeter(package)
    return rapl if rapl.energy_mj() is not None else None


@dataclass(slots=True)
class InaMeter:
    """An INA2xx (one channel) or INA3221 (its first channel is the supply) of the hwmon class."""

    path: Path
    chip: str
    _energy_mj: float = 0.0
    _last: tuple[float, float] | None = field(default=None)

    @property
    def name(self) -> str:
        """Name for capabilities and logs."""
        return self.chip

    def power_mw(self) -> float | None:
        """Power drawn now, in milliwatts."""
        micro_watts = _number(self.path / "power1_input")
        if micro_watts is not None:
            return micro_watts / 1000
        milli_volts, milli_amperes = _number(self.path / "in1_input"), _number(self.path / "curr1_input")
        if milli_volts is None or milli_amperes is None:
            return None
        return milli_volts * milli_amperes / 1000

    def energy_mj(self) -> float | None:
        """Energy so far by trapezoids between the readings taken: call it at least at both ends of what you meter."""
        now, power = time.monotonic(), self.power_mw()
        if power is None:
            return None
        if self._last is not None:
            before, last_power = self._last
            self._energy_mj += (now - before) * (power + last_power) / 2
        self._last = (now, power)
        return self._energy_mj


@dataclass(slots=True)
class RaplMeter:
    """The processor package's energy counter on x86; readable by root only on most systems."""

    path: Path
    name: str = "rapl"
    _wraps: int = 0
    _last: float = 0.0

    def energy_mj(self) -> float | None:
        """Energy of the package so far; the counter's wrap-around is unrolled."""
        micro_joules = _number(self.path / "energy_uj")
        if micro_joules is None:
            return None
        if micro_joules < self._last:
            self._wraps += 1
        self._last = micro_joules
        span = _number(self.path / "max_energy_range_uj") or 0.0
        return (micro_joules + self._wraps * span) / 1000


def battery_share(root: Path = ROOT) -> float | None:
    """Charge of the first battery, 0 to 1."""
    for supply in sorted(root.glob("sys/class/power_supply/*")):
        percent = _number(supply / "capacity")
        if _text(supply / "type") == "Battery" and percent is not None:
            return min(max(percent / 100, 0.0), 1.0)
    return None


def temperature_c(root: Path = ROOT) -> float | None:
    """Hottest thermal zone in degrees Celsius."""
    zones = [_number(zone / "temp") for zone in root.glob("sys/class/thermal/thermal_zone*")]
    known = [milli / 1000 for milli in zones if milli is not None]
    return max(known, default=None)


def throttled(root: Path = ROOT) -> int | None:
    """The Raspberry Pi firmware's ``get_throttled`` bits; ``None`` on other boards."""
    for path in sorted(root.glob("sys/devices/platform/soc*/*firmware/get_throttled")):
        try:
            return int(_text(path) or "", 16) & 0xFFFFFFFF
        except ValueError:
            continue
    return None


def disk_free_mb(folder: Path) -> float | None:
    """MiB that this process may still write to the file system of ``folder``."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize / 2**20


def resident_mb(root: Path = ROOT) -> float | None:
    """Resident memory of this process in MiB."""
    fields = (_text(root / "proc/self/statm") or "").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20 if len(fields) > 1 else None


def board_name(root: Path = ROOT) -> str:
    """Name of the board as the firmware gives it, else of the processor."""
    model = _text(root / "proc/device-tree/model") or _text(root / "sys/class/dmi/id/product_name")
    if model:
        return model.strip("\0 ")
    return os.uname().machine


def total_memory_mb() -> int:
    """Physical memory in MiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


class CpuShare:
    """CPU time of this process over wall time since the last reading; 1 is one core."""

    def __init__(self) -> None:
        self._last = (time.monotonic(), time.process_time())

    def read(self) -> float:
        """Return the share since the last call."""
        now = (time.monotonic(), time.process_time())
        wall, cpu = now[0] - self._last[0], now[1] - self._last[1]
        self._last = now
        return cpu / wall if wall > 0 else 0.0


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _number(path: Path) -> float | None:
    try:
        value = float(_text(path) or "")
    except ValueError:
        return None
    return value if abs(value) < LARGEST else None  # not "nan" nor "inf" either
