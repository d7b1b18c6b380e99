"""The bench of the device client runs and tells the figures it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_the_bench_compares_client_and_bare_loop(tmp_path: Path) -> None:
    out = tmp_path / "device.json"
    done = subprocess.run(
        [sys.executable, "-m", "tools.cli", "bench", "device", "--seconds", "1", "--repeats", "1", "--fps", "20",
         "--json", str(out)],
        capture_output=True, text=True, timeout=110, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "beyond head and codec" in done.stdout
    told = json.loads(out.read_text())
    local, split = told["runs"]
    assert local["plan"] == "resnet-light/output/none"
    assert local["edge_frames"] == 0
    assert split["edge_frames"] > 0
    for run in told["runs"]:
        assert run["frames"] >= 15
        assert 10 < run["bare_resident_mb"] < run["client_resident_mb"] <= run["client_peak_mb"]
        assert run["first_frame_s"] > 0
        assert run["client_cpu_ms"] > run["bare_cpu_ms"] > 0
