"""Training of the fleet's policy: the network against its numpy twin, seeds, checkpoints, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policy.actor import SHARPNESS, Actor, scores, start
from policy.errors import PolicyError
from policy.features import PLAN_FEATURES, STATE
from policy.learn.recipe import Lesson, of_site, standard
from policy.learn.rollout import Player
from policy.learn.scorer import PlanScorer
from policy.learn.train import Progress, settings, train
from policy.references.learned import LearnedAgent
from policy.simulation.replay import Recording, recording
from policy.simulation.scenario import Scenario
from policy.simulation.world import World

SLOW_EDGE = Scenario(
    "slow edge", "Tails take four times as long as the profile says", devices=4, periods=12, families=("resnet",),
    demand=(1.5, 2.5), edge_truth=(4.0, 4.0), calibrated=False, most_plans=16, discount=0.5,
)  # fmt: skip
LESSON = Lesson(SLOW_EDGE, fleets=6)


def same(one: Actor, other: Actor) -> bool:
    """Whether two actors have the very same weights."""
    pairs = zip(one.layers, other.layers, strict=True)
    return all((w == v).all() and (b == c).all() for (w, b), (v, c) in pairs)


def random_network() -> PlanScorer:
    network = PlanScorer(seed=3)
    rng = np.random.default_rng(4)
    for variable in network.variables.values():
        variable.assign(rng.normal(0, 0.3, variable.shape))
    return network


def test_the_actor_in_numpy_scores_as_the_network_does() -> None:
    network, rng = random_network(), np.random.default_rng(5)
    states = rng.normal(size=(7, len(STATE))).astype(np.float32)
    features = rng.normal(size=(7, 5, len(PLAN_FEATURES))).astype(np.float32)
    by_network = network.logits((states, features, np.zeros((7, 1), np.float32))).numpy()[:, 0]
    actor = network.actor({})
    assert SHARPNESS * scores(features, actor.coefficients(states)) == pytest.approx(by_network, abs=1e-3)


def test_the_critic_in_numpy_expects_what_the_network_does() -> None:
    network, rng = random_network(), np.random.default_rng(6)
    states = rng.normal(size=(7, len(STATE))).astype(np.float32)
    unused = np.zeros((7, 1, len(PLAN_FEATURES)), np.float32)
    by_network = network.value((states, unused, np.full((7, 1), 0.9, np.float32))).numpy()
    assert network.worth(states, 0.9) == pytest.approx(by_network, abs=1e-4)


def test_an_untrained_network_says_what_the_cost_model_says() -> None:
    states = np.random.default_rng(7).normal(size=(3, len(STATE))).astype(np.float32)
    assert (PlanScorer(seed=1).actor({}).coefficients(states) == start()).all()


def test_the_same_seed_trains_the_same_weights_and_another_does_not() -> None:
    one, again, other = (train([LESSON], settings(seed), 4) for seed in (1, 1, 2))
    assert same(one, again)
    assert not same(one, other)


def test_a_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    seen: list[Progress] = []
    path = tmp_path / "run.ck"
    train([LESSON], settings(1), 5, checkpoint=path, checkpoint_every=5, tell=seen.append)
    train([LESSON], settings(1), 8, checkpoint=path, tell=seen.append)
    assert [now.update for now in seen[-4:]] == [5, 6, 7, 8]
    assert seen[-1].decisions == 8 * 5 * 6 * 4


def test_it_learns_that_the_edge_is_slower_than_its_profile() -> None:
    """Pricing, where training starts, trusts the profile; what the workers report tells otherwise."""

    def reward(actor: Actor) -> float:
        world, agent, rng = World(SLOW_EDGE, 12, 9_999), LearnedAgent(actor), np.random.default_rng(0)
        agent.begin(world)
        earned = [world.step(agent.act(world, world.seen(), rng)).reward.mean() for _ in range(SLOW_EDGE.periods)]
        return float(np.mean(earned))

    before = PlanScorer(seed=1).actor({})
    assert reward(train([LESSON], settings(1), 60)) > reward(before) + 0.02


def test_training_goes_on_from_weights() -> None:
    first = train([LESSON], settings(1), 3)
    assert same(train([LESSON], settings(2), 0, begin=first), first)


def test_what_every_plan_would_have_earned_is_known_and_finite() -> None:
    lesson = replace(LESSON, scenario=replace(SLOW_EDGE, discount=0.0))
    batch, reward = Player(lesson.scenario, 3, 5).play(PlanScorer(seed=1), 4, 0.95)
    assert batch.known_values is not None
    assert batch.known_values.shape == batch.allowed.shape
    assert np.isfinite(batch.known_values).all()
    assert (batch.advantages == 0).all()
    assert -1.5 <= reward <= 1.0


def test_a_sites_recording_is_learned_from() -> None:
    rng = np.random.default_rng(8)
    site = recording(
        rng.uniform(1e6, 5e6, (3, 40)), np.full((3, 40), 10.0), np.full((3, 40), 2.0), np.array([1.2, np.nan, 2.0])
    )
    lessons = of_site(site)
    assert all(lesson.scenario.devices == 3 and lesson.scenario.periods == 40 for lesson in lessons)
    assert list(lessons[0].scenario.edge_truth) == pytest.approx([1.2 * 0.8, 2.0 * 1.25])
    world = World(lessons[0].scenario, 5, 1, lessons[0].recorded)
    assert set(world.traces.uplink_bps.ravel()) <= set(site.uplink_bps.ravel())
    train(lessons[:1], settings(1), 1)


def test_a_recording_that_is_too_short_is_refused() -> None:
    one = np.ones((2, 5))
    with pytest.raises(PolicyError, match="too short"):
        Recording(one, one, one, (1.0, 1.0))


def test_the_recipe_leaves_the_unseen_family_out() -> None:
    assert all("densenet" not in lesson.scenario.families for lesson in standard())
