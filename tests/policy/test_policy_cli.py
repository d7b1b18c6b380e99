"""``splitfleet policy …`` as a user types it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.policy.builders import LIGHT_WEBP, board, edge_profile, small_catalog
from tflite_models.catalog import MANIFEST, MODEL, version_to_json
from tflite_models.profile import save_profile
from tools.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    for version in small_catalog():
        folder = tmp_path / "store" / version.name
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text(version_to_json(version))
        (folder / MODEL).write_bytes(b"")
    save_profile(board(), tmp_path / "board.json")
    save_profile(edge_profile(), tmp_path / "profiles" / "edge.json")
    monkeypatch.setenv("SPLITFLEET_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["splitfleet", "policy", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_explain_shows_every_plan_and_what_is_picked(run: Run) -> None:
    code, out, _ = run("explain", "--models", "store", "--profile", "board.json", "--devices", 3, "--private", "--json")
    told = json.loads(out)
    assert code == 0
    assert {row["plan"]: row["mask"] for row in told["plans"]}[str(LIGHT_WEBP)] == "pictures must not leave this device"
    assert len(told["plans"]) == 6
    assert sum(told["picked"].values()) == 3
    code, out, _ = run("explain", "--models", "store", "--profile", "board.json")
    assert code == 0
    assert "together, modelled:" in out


@pytest.mark.parametrize("policy", ["a2c", "pricing", "greedy"])
def test_explain_asks_any_policy_a_learned_one_with_the_weights_it_came_with(run: Run, policy: str) -> None:
    words = ("--models", "store", "--profile", "board.json", "--devices", 4, "--policy", policy, "--json")
    code, out, _ = run("explain", *words)
    told = json.loads(out)
    assert (code, told["policy"], sum(told["picked"].values())) == (0, policy, 4)


def test_help_names_every_command(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    judging = ("calibrate", "train", "evaluate", "report", "prove", "compare", "export")
    for command in ("serve", "explain", "rules", *judging, "promote", "status", "rollback"):
        assert f"\n  {command} " in out


def test_what_cannot_be_is_one_line_and_exit_code_2(run: Run) -> None:
    assert run("explain", "--profile", "absent.json")[0] == 2
    code, _, err = run("explain", "--profile", "board.json", "--weights", "1,1,1")
    assert code == 2
    assert err.count("\n") == 1
    assert "must sum to 1" in err
    code, _, err = run("explain", "--models", "store", "--profile", "board.json", "--policy", "magic")
    assert (code, "no policy 'magic'" in err) == (2, True)
    code, _, err = run("serve", "absent.toml")
    assert (code, "cannot read absent.toml" in err) == (2, True)
