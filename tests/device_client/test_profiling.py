"""Profiling a machine: every plan gets its costs, measured by a meter where there is one."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from device_client import profiling
from device_client.profiling import main, profile_device, sample_frames
from tests.device_client.stores import picture
from tflite_models.catalog import load_catalog
from tflite_models.profile import load_device_profile, save_profile

FRAMES = [picture(number) for number in range(5)]


def test_every_plan_has_its_costs_and_the_file_can_be_read_back(models: Path, tmp_path: Path) -> None:
    catalog = load_catalog(models)
    steps: list[tuple[str, int, int]] = []
    profile = profile_device(
        catalog, FRAMES, device_class="bench", runs=7, active_power_mw=2000.0, progress=lambda *step: steps.append(step)
    )
    save_profile(profile, tmp_path / "bench.json")
    again = load_device_profile(tmp_path / "bench.json")
    assert again == profile
    for plan, _ in catalog.plans():
        head = again.head(plan.version, plan.cut)
        assert again.encode_ms(plan.version, plan.cut, plan.codec) >= 0
        if plan.cut != "input":
            assert 0 < head.head_ms_p50 <= head.head_ms_p95
            assert head.energy_mj == pytest.approx(head.head_ms_p50 * 2.0)
    assert again.energy_source == "modelled"
    assert again.frame_overhead_ms > 0
    assert steps[-1] == ("done", 6, 6)
    assert [done for _, done, _ in steps[1:]] == list(range(7))


class Constant:
    """A board that draws so much, always."""

    name = "constant"

    def __init__(self, power_mw: float) -> None:
        self.power_mw = power_mw

    def energy_mj(self) -> float | None:
        return time.monotonic() * self.power_mw


def test_with_a_meter_energy_is_what_is_drawn_above_idle(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "IDLE_S", 0.1)
    monkeypatch.setattr(profiling, "PAUSE_S", 0.0)
    steady = profile_device(load_catalog(models), FRAMES, device_class="b", runs=7, meter=Constant(3000.0))
    assert steady.energy_source == "measured"
    assert steady.idle_power_mw == pytest.approx(3000.0, rel=0.05)
    # It never draws more than at rest: so computing costs next to nothing.
    assert all(head.energy_mj < head.head_ms_p95 * 3.0 * 0.5 + 0.05 for head in steady.heads)

    class Busier(Constant):
        """Draws a watt at rest and eleven from the first head on."""

        calls = 0

        def energy_mj(self) -> float | None:
            self.calls += 1
            base = time.monotonic() * 1000.0
            if self.calls <= profiling.IDLE_READINGS + 1:
                self.began = time.monotonic()
                return base
            return base + (time.monotonic() - self.began) * 10_000.0

    busy = profile_device(load_catalog(models), FRAMES, device_class="b", runs=50, meter=Busier(0))
    assert busy.idle_power_mw == pytest.approx(1000.0, rel=0.05)
    assert busy.active_power_mw > 9000.0
    assert all(head.energy_mj >= head.head_ms_p50 * 10.0 * 0.5 for head in busy.heads)


def test_frames_come_from_a_pack_or_are_made_up(pack: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert len(sample_frames(pack, 7)) == 7
    monkeypatch.setattr(profiling, "shipped_pack", lambda: tmp_path / "none.npz")
    made_up = sample_frames(None, 7)
    assert len(made_up) == 7
    assert made_up[0].shape == (96, 96, 3)


def test_the_board_command_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["profiling", "--models", str(tmp_path), "--out", str(tmp_path / "o.json"), "--class", "b"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert main() == 2


def test_the_command_line_writes_a_profile(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "profile.json"
    done = subprocess.run(
        [sys.executable, "-m", "tools.cli", "profile", "device", "--models", str(models), "--out", str(out),
         "--class", "pi", "--runs", "2"],
        capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert load_device_profile(out).device_class == "pi"
    assert "tiny" in done.stdout
