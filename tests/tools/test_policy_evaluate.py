"""``splitfleet policy evaluate`` and ``report``: what they write, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from policy.errors import PolicyError
from policy.evaluation.results import load_json, save_json
from policy.evaluation.runner import FIRST_SEED
from tests.policy.evaluation.results_made import made
from tools.policy_evaluate import evaluate, make_agents, report


def test_an_evaluation_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, page = tmp_path / "new" / "results.json", tmp_path / "report.html"
    evaluate("single_device", seeds=2, fleets=1, agents="greedy, local_light", as_json=results, html=page)
    out = capsys.readouterr().out
    found = load_json(results)
    assert {"greedy", "local_light", "random", "oracle_observed"} <= set(found["scenarios"]["single_device"])
    assert found["seeds"] == [FIRST_SEED, FIRST_SEED + 1]
    assert "--suite single_device --seeds 2 --fleets 1 --agents 'greedy, local_light'" in found["command"]
    assert "local light" in out
    assert "score by scenario, modelled" in out
    assert "single_device" in page.read_text(encoding="utf-8")


def test_a_report_is_made_of_results_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_json(made({"calm": -0.03, "bursts": 0.04}), tmp_path / "results.json")
    report(tmp_path / "results.json", html=tmp_path / "report.html", charts=tmp_path / "charts")
    out = capsys.readouterr().out
    assert "▲ above" in out
    assert "▼ below" in out
    assert (tmp_path / "report.html").is_file()
    assert len(list((tmp_path / "charts").glob("*.svg"))) == 5


def test_what_cannot_be_evaluated_is_told(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no suite or scenario 'nowhere': there are standard, battery_day"):
        evaluate("nowhere", seeds=2)
    with pytest.raises(PolicyError, match="no policy 'magic': there are a2c, random"):
        make_agents("greedy,magic", None)
    with pytest.raises(PolicyError, match=r"there are no weights at .*absent\.npz"):
        make_agents("a2c", tmp_path / "absent.npz")
    with pytest.raises(PolicyError, match="which --agents greedy leaves out"):
        make_agents("greedy", tmp_path / "absent.npz")
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(PolicyError, match=r"broken\.npz"):
        make_agents("a2c", broken)
    with pytest.raises(PolicyError, match="cannot read the results"):
        report(tmp_path / "absent.json")
