"""A file that changes under a running service: swapped in whole, and a broken one never takes the place of a good."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from policy.choosing import Chosen
from policy.costs import CostModel
from policy.errors import PolicyError
from policy.guard import GuardSettings
from policy.interface import Policy
from policy.registry import LEARNED, POLICIES, NeedsWeights
from policy.rules import DeviceRules, SiteRules
from policy.watching import HotFile
from tests.policy.builders import DEVICE, HEAVY_S2, fleet, small_model

MODEL = small_model()


def number(path: Path) -> int:
    try:
        return int(path.read_text())
    except ValueError:
        raise PolicyError(f"{path.name} is no number") from None


def write(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def facts(hot: HotFile[int]) -> tuple[int | None, str, str, int]:
    return hot.value, hot.problem, hot.sha256, hot.loaded


def test_a_change_is_taken_in_and_a_broken_file_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "value"
    hot = HotFile(path, number, every_s=2.0)
    assert not hot.look(0.0)
    assert hot.value is None
    assert "cannot read" in hot.problem
    write(path, "1")
    assert not hot.look(1.0), "looked a second ago"
    assert hot.look(2.0)
    assert facts(hot) == (1, "", hashlib.sha256(b"1").hexdigest(), 1)
    assert not hot.look(4.0)
    write(path, "rubbish")
    assert not hot.look(6.0) and not hot.look(8.0)
    assert facts(hot) == (1, "value is no number", hashlib.sha256(b"1").hexdigest(), 1)
    assert hot.refused == 2
    write(path, "22")
    assert hot.look(10.0)
    assert facts(hot) == (22, "", hashlib.sha256(b"22").hexdigest(), 2)
    path.unlink()
    assert not hot.look(12.0) and hot.value == 22
    write(path, "22")
    assert hot.look(14.0) and hot.problem == ""


def test_the_same_size_at_another_time_is_a_change(tmp_path: Path) -> None:
    path = tmp_path / "value"
    path.write_text("1")
    hot = HotFile(path, number, every_s=0.0)
    assert hot.look(0.0)
    path.write_text("2")
    os.utime(path, ns=(1, 1))
    assert hot.look(1.0) and hot.value == 2


def by_name(model: CostModel, path: Path) -> Policy:
    """A policy whose weights are the name of another one."""
    from policy.baselines import FixedPlans

    try:
        return POLICIES[path.read_text()](model, FixedPlans())
    except KeyError as error:
        raise PolicyError(f"{path.name}: no such weights") from error


@pytest.fixture
def learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A learned policy ``by-name`` is there, with shipped weights at the path returned."""
    shipped = tmp_path / "shipped"
    monkeypatch.setitem(LEARNED, "by-name", NeedsWeights(shipped, by_name))
    return shipped


def test_a_learned_policy_that_acts_is_guarded_and_its_weights_are_exchanged(learned: Path) -> None:
    chosen = Chosen("by-name", "", MODEL, SiteRules(), GuardSettings())
    assert chosen.policy is not None and chosen.weights == ""
    rng = np.random.default_rng(0)

    def decided() -> tuple[str, str]:
        (choice,) = chosen.policy.decide(fleet(DEVICE), rng).values()  # type: ignore[union-attr]
        return choice.policy, choice.reason

    chosen.refresh(0.0)
    assert "cannot read" in decided()[1]
    write(learned, "local")
    assert chosen.refresh(10.0)
    assert decided() == ("", "best version the device runs alone")
    assert chosen.weights == hashlib.sha256(b"local").hexdigest()[:12]
    write(learned, "broken")
    assert not chosen.refresh(20.0)
    assert decided() == ("", "best version the device runs alone")
    assert chosen.problem == "shipped: no such weights"
    assert chosen.counters()["weights_refused"] == 2
    write(learned, "greedy")
    assert chosen.refresh(30.0)
    assert decided() == ("", "best for this device alone")


def test_a_learned_policy_that_only_watches_is_bare(learned: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("remote")
    chosen = Chosen("by-name", str(own), MODEL, SiteRules(), None)
    assert chosen.policy is None
    chosen.refresh(0.0)
    assert chosen.policy is not None and chosen.policy.name == "remote"


def test_weights_of_a_policy_that_has_none_are_refused() -> None:
    with pytest.raises(PolicyError, match="policy 'greedy' has none"):
        Chosen("greedy", "w.npz", MODEL, SiteRules(), None)


def test_fixed_follows_plans_that_are_set_while_it_runs() -> None:
    chosen = Chosen("fixed", "", MODEL, SiteRules(DeviceRules(plan="heavy/output/none")), GuardSettings())
    chosen.follow(SiteRules(DeviceRules(plan=str(HEAVY_S2))))
    assert chosen.policy is not None
    assert chosen.policy.decide(fleet(DEVICE), np.random.default_rng(0))["cam-1"].plan == HEAVY_S2
    with pytest.raises(PolicyError, match="needs a plan"):
        chosen.follow(SiteRules())
    assert chosen.policy.decide(fleet(DEVICE), np.random.default_rng(0))["cam-1"].plan == HEAVY_S2
