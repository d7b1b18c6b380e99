"""The proof through its command: TensorFlow in a child process, every seed told."""

from __future__ import annotations

import json

import pytest
import typer

from tools.policy_prove import Task, prove
from tools.training import run_training


def test_the_identity_task_is_learned_from_every_seed(capsys: pytest.CaptureFixture[str]) -> None:
    prove(Task.IDENTITY, seeds=2, log=None, as_json=True)
    told = json.loads(capsys.readouterr().out)["results"]
    assert [(row["task"], row["seed"], row["steps"]) for row in told] == [("identity", 0, 1200), ("identity", 1, 1200)]
    assert all(row["score"] >= 90 and row["passed"] for row in told)


def test_a_missed_target_is_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missed = {"task": "identity", "seed": 0, "score": 25.0, "score_std": 4.0, "target": 90.0, "passed": False}
    row = missed | {"steps": 1200, "wall_s": 1.0, "steps_per_s": 1200.0}
    monkeypatch.setattr("tools.training.run_training", lambda module, arguments: ([row], 1))
    with pytest.raises(typer.Exit) as left:
        prove(Task.IDENTITY, seeds=1, log=None, as_json=False)
    assert left.value.exit_code == 1 and "25.0" in capsys.readouterr().out


def test_a_child_that_fails_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    results, status = run_training("policy.learn.prove", ["--task", "chess"])
    assert (results, status) == ([], 2) and "invalid choice" in capfd.readouterr().err
