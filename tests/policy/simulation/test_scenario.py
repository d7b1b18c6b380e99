"""Scenario files: those that ship are played, those that are wrong are refused with a message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policy.errors import PolicyError
from policy.references.starts import best_local
from policy.simulation.scenario import Scenario, load_scenario, load_suite, names
from policy.simulation.world import World


@pytest.mark.parametrize("name", names())
def test_every_scenario_can_be_played(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.title
    assert scenario.version >= 1
    world = World(scenario, 1, 1)
    for _ in range(2):
        outcome = world.step(best_local(world.seen().batch))
        assert outcome.reward.shape == (1, scenario.devices)
        assert np.isfinite(outcome.reward).all()


def test_the_standard_suite_is_all_of_them() -> None:
    assert [scenario.name for scenario in load_suite("standard").scenarios] == names()
    assert [scenario.name for scenario in load_suite("bursts").scenarios] == ["bursts"]


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    with pytest.raises(PolicyError, match="no scenario 'burst': there are battery_day, bursts"):
        load_suite("burst")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema = 1\ntitle =", "is not TOML"),
        ('title = "no schema"', "not a scenario of schema 1"),
        ('schema = 2\ntitle = "newer"', "not a scenario of schema 1"),
        ("schema = 1", "title"),
        ('schema = 1\ntitle = "t"\ndevises = 4', "devises"),
        ('schema = 1\ntitle = "t"\ndevices = "many"', "devices"),
        ('schema = 1\ntitle = "t"\ndevices = 0', "at least 1"),
        ('schema = 1\ntitle = "t"\nweights = "fair"', "allowed are equal, accuracy, mixed"),
        ('schema = 1\ntitle = "t"\ntable = "pi"', "allowed are zoo, tx2"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.toml").write_text(text, encoding="utf-8")
    with pytest.raises(PolicyError, match=message):
        load_scenario("bad", tmp_path)


def test_ranges_are_read_as_numbers(tmp_path: Path) -> None:
    (tmp_path / "fine.toml").write_text('schema = 1\ntitle = "t"\nfps = [1, 2]\nuplink_mbps = [8]', encoding="utf-8")
    fine = load_scenario("fine", tmp_path)
    assert fine == Scenario("fine", "t", fps=(1.0, 2.0), uplink_mbps=(8.0,))
