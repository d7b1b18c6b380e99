"""The bench of reports times what it says, over as many points as it says."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from typer.testing import CliRunner

from tools.bench.report import report


def test_reports_are_timed_in_processes_of_their_own(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(report)
    out = tmp_path / "report.json"
    assert CliRunner().invoke(app, ["--points", "3000", "--repeats", "2", "--json", str(out)]).exit_code == 0
    told = json.loads(out.read_text())
    assert told["points"] == 3000
    assert told["store_mb"] > 0.2
    assert len(told["report_s"]) == len(told["memory_mb"]) == 2
    assert all(0 < seconds < 60 for seconds in told["report_s"])
