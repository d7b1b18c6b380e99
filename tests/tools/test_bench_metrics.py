"""The metrics bench runs through an outage, finds every frame on a real server, and writes what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from tools.bench.metrics import metrics


def test_a_short_bench_with_an_outage_loses_and_doubles_nothing(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    metrics(out, seconds=0.6, outage=0.4, repeats=1, rate=0.0, senders="ours-influxd", scenarios="outage")
    (run,) = json.loads(out.read_text())["runs"]
    assert run["points"] > 0 and run["outage_s"] == 0.4
    assert (run["lost"], run["doubled"]) == (0, 0)
    assert 0 < run["arrived_per_s"] <= run["taken_per_s"]
    assert run["cpu_us_per_point"] > 0 and run["memory_mb"] > 0


def test_a_sender_that_is_unknown_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="choose from ours-victoria"):
        metrics(None, seconds=1.0, outage=1.0, repeats=1, rate=0.0, senders="theirs", scenarios="steady")
