"""The worker bench runs, loses nothing, and writes what it measured."""

from __future__ import annotations

import json
from pathlib import Path

from tools.bench.worker import worker


def test_a_short_bench_answers_every_frame_once(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    worker(json_file=out, seconds=0.5, tails="0.2", batches="4", repeats=1)
    told = json.loads(out.read_text())
    for row in (*told["throughput"], *told["added_latency"]):
        assert row["sent"] > 0
        assert (row["lost"], row["doubled"]) == (0, 0)
    assert told["throughput"][0]["ratios"][0] > 0 and 1 <= told["throughput"][0]["batch_mean"] <= 4
