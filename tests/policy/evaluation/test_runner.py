"""The runner: its JSON, its scores, and that a policy's figures do not depend on who else is played."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policy.batch import Index
from policy.errors import PolicyError
from policy.evaluation.results import Results, load_json, save_json
from policy.evaluation.runner import Progress, evaluate, evaluation_seeds, fleets_for
from policy.references.agent import Memoryless
from policy.references.registry import REFERENCES
from policy.references.starts import best_local
from policy.simulation.scenario import Suite, load_scenario
from policy.simulation.world import Seen, World
from tests.policy.worlds import SMALL, scenario

SUITE = Suite("two", (SMALL, scenario(name="day", battery=(0.4, 0.8), day=True, period_s=450.0)))
SEEDS = evaluation_seeds(3)


class Mine(Memoryless):
    """A policy that is no reference."""

    name = "mine"

    def act(self, world: World, seen: Seen, rng: np.random.Generator) -> Index:
        return best_local(seen.batch)


@pytest.fixture(scope="module")
def results() -> Results:
    return evaluate(SUITE, {**REFERENCES, "mine": Mine}, SEEDS, fleets=2, command="test")


def test_every_scenario_has_every_policy_with_its_figures(results: Results) -> None:
    on_mains = [name for name in REFERENCES if name not in ("pricing_per_frame", "oracle_battery")]
    assert list(results["scenarios"]["small"]) == [*on_mains, "mine"]
    assert list(results["scenarios"]["day"]) == [*REFERENCES, "mine"]
    for rows in results["scenarios"].values():
        for row in rows.values():
            low, high = row["score_ci95"]
            assert low <= row["score"] <= high
            shares = row["shares"]
            total = shares["edge"] + shares["device"] + shares["fallback"] + shares["dropped"]
            assert total == pytest.approx(1, abs=1e-5)
            assert sum(p["share"] for p in row["plan_mix"]) == pytest.approx(1, abs=1e-4)
            assert row["latency_ms_p50"] <= row["latency_ms_p95"]
            assert row["reward"] == pytest.approx(np.mean(row["reward_by_seed"]), abs=1e-5)
            assert len(row["regret"]["period"]) == len(row["regret"]["cumulated"]) == SMALL.periods


def test_random_scores_nothing_and_the_oracle_all(results: Results) -> None:
    small, day = results["scenarios"]["small"], results["scenarios"]["day"]
    assert (small["random"]["score"], small["oracle_clairvoyant"]["score"]) == (0, 1)
    assert small["oracle_observed"]["score_observed"] == 1
    assert small["oracle_clairvoyant"]["regret"]["cumulated"][-1] == 0
    assert results["oracle"] == {"small": "oracle_clairvoyant", "day": "oracle_battery"}
    assert day["oracle_battery"]["score"] == 1
    lost = small["oracle_clairvoyant"]["reward"] - small["random"]["reward"]
    assert small["random"]["regret"]["cumulated"][-1] == pytest.approx(lost * SMALL.periods, rel=1e-3)


def test_shares_follow_what_a_policy_does(results: Results) -> None:
    rows = results["scenarios"]["small"]
    assert rows["local_light"]["shares"]["edge"] == rows["local_light"]["shares"]["fallback"] == 0
    assert rows["remote_raw"]["shares"]["device"] == 0
    assert rows["best_static"]["switches"] == 0
    assert rows["random"]["switches"] > 0.5
    assert rows["local_heavy"]["against_local_heavy"] == {
        "latency_percent": 0, "energy_percent": 0, "accuracy_points": 0,
    }  # fmt: skip


def test_differences_are_of_what_is_no_reference_and_paired(results: Results) -> None:
    found = results["differences"]["small"]
    rows = results["scenarios"]["small"]
    assert set(found) == {f"mine-{name}" for name in rows if name != "mine"}
    pair = found["mine-greedy"]
    assert pair["reward"] == pytest.approx(rows["mine"]["reward"] - rows["greedy"]["reward"], abs=1e-5)
    assert pair["score"] == pytest.approx(rows["mine"]["score"] - rows["greedy"]["score"], abs=1e-5)
    assert pair["ci95"][0] <= pair["reward"] <= pair["ci95"][1]


def test_figures_do_not_depend_on_who_else_is_played(results: Results) -> None:
    steps: list[Progress] = []
    alone = evaluate(Suite("one", (SMALL,)), {"sequential": REFERENCES["sequential"]}, SEEDS, 2, steps.append)
    assert list(alone["scenarios"]["small"]) == ["random", "sequential", "oracle_observed", "oracle_clairvoyant"]
    one, other = (dict(r["scenarios"]["small"]["sequential"]) for r in (alone, results))
    for key in one.keys() - {"decide_ms"}:
        assert one[key] == other[key]
    assert [(step.done, step.of) for step in steps] == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_the_json_comes_back_whole(results: Results, tmp_path: Path) -> None:
    save_json(results, tmp_path / "r" / "results.json")
    assert load_json(tmp_path / "r" / "results.json") == results


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": 1}'])
def test_what_is_no_results_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text, encoding="utf-8")
    with pytest.raises(PolicyError, match="results"):
        load_json(tmp_path / "r.json")


@pytest.mark.parametrize(
    ("seeds", "fleets", "message"),
    [((10_001,), 2, "two seeds"), ((10_001, 10_001), 2, "each once"), ((5, 6), 2, "training"), (SEEDS, 0, "one fleet")],
)
def test_what_cannot_be_evaluated_is_told(seeds: tuple[int, ...], fleets: int, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        evaluate(SUITE, {}, seeds, fleets)


def test_large_sites_are_played_in_fewer_fleets() -> None:
    assert fleets_for(load_scenario("contention_64"), 8) == 2
    assert fleets_for(load_scenario("contention_16"), 8) == 8
    assert fleets_for(load_scenario("contention_64"), 1) == 1
