"""Meters on boards laid out in a folder, and what frames cost by them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_client import meters
from device_client.energy import DEFAULT_ACTIVE_MW, DEFAULT_TX_MW, EnergyAccount
from device_client.meters import RaplMeter, find_power_meter
from tflite_models.profile import DeviceProfile
from wire.messages import EnergySource


def lay_out(root: Path, files: dict[str, str]) -> Path:
    """Write files below a root."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


HWMON = "sys/class/hwmon/hwmon"
RAPL = "sys/class/powercap/intel-rapl:0/"


def test_ina219_by_its_power_register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = lay_out(tmp_path, {f"{HWMON}0/name": "cpu_thermal\n", f"{HWMON}1/name": "ina219\n"})
    power = lay_out(root, {f"{HWMON}1/power1_input": "2000000\n"}) / f"{HWMON}1/power1_input"
    clock = iter([10.0, 12.0, 12.5, 12.75, 13.0])
    monkeypatch.setattr("device_client.meters.time.monotonic", lambda: next(clock))
    meter = find_power_meter(root)
    assert meter is not None
    assert meter.name == "ina219"
    assert meter.energy_mj() == 0.0
    assert meter.energy_mj() == pytest.approx(4000.0)  # 2 W over 2 s
    power.write_text("4000000")
    assert meter.energy_mj() == pytest.approx(4000.0 + 1500.0)  # rising from 2 to 4 W over half a second
    power.write_text("garbage")
    assert meter.energy_mj() is None
    power.write_text("4000000")
    assert meter.energy_mj() == pytest.approx(5500.0 + 2000.0)


def test_ina3221_by_volts_and_amperes_of_its_supply(tmp_path: Path) -> None:
    root = lay_out(
        tmp_path,
        {
            f"{HWMON}3/name": "ina3221",
            f"{HWMON}3/in1_input": "5000",
            f"{HWMON}3/curr1_input": "400",
            f"{HWMON}3/in2_input": "9999",
            f"{HWMON}3/curr2_input": "9999",
        },
    )
    meter = find_power_meter(root)
    assert isinstance(meter, meters.InaMeter)
    assert meter.power_mw() == 2000.0


def test_an_ina_that_says_nothing_gives_way_to_rapl(tmp_path: Path) -> None:
    root = lay_out(tmp_path, {f"{HWMON}0/name": "ina219", f"{RAPL}energy_uj": "5000"})
    meter = find_power_meter(root)
    assert isinstance(meter, RaplMeter)


def test_rapl_goes_on_rising_when_its_counter_wraps(tmp_path: Path) -> None:
    root = lay_out(tmp_path, {f"{RAPL}energy_uj": "900000", f"{RAPL}max_energy_range_uj": "1000000"})
    meter = find_power_meter(root)
    assert meter is not None
    readings = [meter.energy_mj()]
    for text in ("990000", "20000", "500000", "100000"):
        (root / RAPL / "energy_uj").write_text(text)
        readings.append(meter.energy_mj())
    assert readings == pytest.approx([900.0, 990.0, 1020.0, 1500.0, 2100.0])


@pytest.mark.parametrize("text", ["", "garbage", "nan", "inf", "1e400", "\0\0"])
def test_missing_and_garbled_files_are_not_known(tmp_path: Path, text: str) -> None:
    assert find_power_meter(tmp_path) is None
    assert meters.battery_share(tmp_path) is None
    assert meters.temperature_c(tmp_path) is None
    assert meters.resident_mb(tmp_path) is None
    assert meters.throttled(tmp_path) is None
    assert meters.disk_free_mb(tmp_path / "nowhere") is None
    root = lay_out(
        tmp_path,
        {
            f"{HWMON}0/name": "ina219",
            f"{HWMON}0/power1_input": text,
            f"{RAPL}energy_uj": text,
            "sys/class/power_supply/BAT0/type": "Battery",
            "sys/class/power_supply/BAT0/capacity": text,
            "sys/class/thermal/thermal_zone0/temp": text,
            "sys/devices/platform/soc/soc:firmware/get_throttled": f"?{text}",  # hexadecimal, as 1e400 would be
            "proc/self/statm": text.replace("nan", "1 x").split(" ")[0],
        },
    )
    assert find_power_meter(root) is None
    assert meters.battery_share(root) is None
    assert meters.temperature_c(root) is None
    assert meters.resident_mb(root) is None
    assert meters.throttled(root) is None
    assert meters.board_name(root)


def test_battery_temperature_memory_and_name(tmp_path: Path) -> None:
    root = lay_out(
        tmp_path,
        {
            "sys/class/power_supply/AC/type": "Mains",
            "sys/class/power_supply/AC/capacity": "3",
            "sys/class/power_supply/BAT0/type": "Battery",
            "sys/class/power_supply/BAT0/capacity": "87",
            "sys/class/thermal/thermal_zone0/temp": "41500",
            "sys/class/thermal/thermal_zone1/temp": "52250",
            "sys/class/thermal/thermal_zone2/temp": "oops",
            "proc/self/statm": "100000 2560 100 1 0 1 0",
            "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
        },
    )
    assert meters.throttled(root) == 0b0101_0000_0000_0000_0101
    assert 0 < (meters.disk_free_mb(root) or 0) <= shutil.disk_usage(root).total / 2**20
    assert meters.battery_share(root) == 0.87
    assert meters.temperature_c(root) == 52.25
    page_mb = os.sysconf("SC_PAGE_SIZE") / 2**20
    assert meters.resident_mb(root) == 2560 * page_mb
    assert meters.board_name(root) == "Raspberry Pi 4 Model B Rev 1.4"
    assert (meters.resident_mb() or 0) > 5
    assert meters.total_memory_mb() > 64


class FakeMeter:
    """Reads a list of energies."""

    name = "list"

    def __init__(self, *readings: float | None) -> None:
        self.readings = list(readings)

    def energy_mj(self) -> float | None:
        return self.readings.pop(0)


PROFILE = DeviceProfile("c", "b", "r", "measured", 100.0, 3000.0, 500.0, (), ())


def test_energy_is_measured_where_there_is_a_meter() -> None:
    account = EnergyAccount(FakeMeter(10.0, 17.5, 20.0, 19.0, None), PROFILE)
    assert account.source is EnergySource.MEASURED
    assert account.computed_mj(account.start(), 99.0) == 7.5
    assert account.computed_mj(account.start(), 99.0) == 0.0, "a counter that fell"
    assert account.sent_mj(10_000, 1e6) == 0.0, "the meter sees the radio too"
    before = account.start()
    assert before is None
    assert account.computed_mj(before, 10.0) == 30.0, "a reading that failed is modelled"


@given(st.floats(0, 1e4), st.integers(0, 10**6), st.floats(1e4, 1e8))
def test_energy_is_modelled_where_there_is_none(busy_ms: float, size: int, rate_bps: float) -> None:
    for profile, active_mw, tx_mw in ((PROFILE, 3000.0, 500.0), (None, DEFAULT_ACTIVE_MW, DEFAULT_TX_MW)):
        account = EnergyAccount(None, profile)
        assert account.source is EnergySource.MODELLED
        assert account.start() is None
        assert account.computed_mj(None, busy_ms) == pytest.approx(busy_ms / 1000 * active_mw)
        assert account.sent_mj(size, rate_bps) == pytest.approx(size * 8 / rate_bps * tx_mw)
        assert account.sent_mj(size, None) == 0.0
        assert account.mean_power_mw() is None


def test_mean_power_is_that_since_the_last_question(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 3.0, 4.0, 5.0])
    monkeypatch.setattr("device_client.energy.time.monotonic", lambda: next(clock))
    account = EnergyAccount(FakeMeter(100.0, 500.0, None, 900.0), None)
    assert account.mean_power_mw() is None
    assert account.mean_power_mw() == 200.0
    assert account.mean_power_mw() is None
    assert account.mean_power_mw() is None
