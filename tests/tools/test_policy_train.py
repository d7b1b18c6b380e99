"""The command ``splitfleet policy train``: weights that tell their origin, and plain words for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from policy.actor import load_actor
from policy.errors import PolicyError
from policy.learned import WEIGHTS
from tools.policy import app


def run(*arguments: str) -> str:
    told = CliRunner().invoke(app, ["train", *arguments], catch_exceptions=False)
    assert told.exit_code == 0, told.output
    return told.stdout


def test_training_goes_on_from_shipped_weights_and_says_so(tmp_path: Path) -> None:
    out = tmp_path / "candidate.npz"
    told = json.loads(run("--from", str(WEIGHTS), "--updates", "1", "--seed", "4", "--out", str(out), "--json"))
    about = load_actor(out).about
    assert told["weights"] == str(out)
    assert (about["updates"], about["seed"]) == (1, 4)
    assert about["begun_from"] == load_actor(WEIGHTS).about
    # A single step at a fraction of the learning rate leaves them close by, and not the same.
    moved = [
        abs(w - v).max() for (w, _), (v, _) in zip(load_actor(out).layers, load_actor(WEIGHTS).layers, strict=True)
    ]
    assert 0 < max(moved) < 0.01


def test_what_is_missing_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    for option in ("--from", "--site"):
        with pytest.raises(PolicyError, match="there are no"):
            run(option, str(tmp_path / "nowhere.npz"), "--out", str(tmp_path / "x.npz"))
    with pytest.raises(PolicyError, match="there is standard"):
        run("--suite", "other", "--out", str(tmp_path / "x.npz"))
