"""Every reference plays every kind of site; each does what its name says, and the bounds bound."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from policy.batch import Batch
from policy.evaluation.episode import play
from policy.references.alone import Greedy, LinUCB
from policy.references.fixed import shipping
from policy.references.hindsight import BestStatic, replay
from policy.references.oracles import plan_well
from policy.references.registry import BATTERY_ONLY, REFERENCES
from policy.references.starts import alone_on_edge, as_they_are, idle_rewards
from policy.simulation.world import World
from tests.policy.sites import random_plans, random_site
from tests.policy.worlds import SMALL, played, scenario

BATTERY = scenario(battery=(0.4, 0.8), day=True, period_s=450.0, periods=16)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("kind", [SMALL, BATTERY, scenario(families=("resnet", "densenet"), devices=1)])
def test_every_reference_chooses_only_what_is_allowed(name: str, kind: object) -> None:
    world = World(kind, 2, 1)  # type: ignore[arg-type]
    allowed = world.hardware.allowed
    episode = play(world, REFERENCES[name](), np.random.default_rng(0))
    fleet, device = np.indices(allowed.shape[:2])
    assert all(allowed[fleet, device, plans].all() for plans in episode.plan)
    assert np.isfinite(episode.reward).all()


def test_names_are_those_of_the_registry() -> None:
    assert [make().name for make in REFERENCES.values()] == list(REFERENCES)
    assert set(REFERENCES) > BATTERY_ONLY


def test_local_policies_never_send_and_remote_ones_ship_the_input() -> None:
    world = World(SMALL, 3, 1)
    for name in ("local_light", "local_heavy"):
        assert not played(name).remote.any()
    light, heavy = played("local_light"), played("local_heavy")
    assert (heavy.accuracy >= light.accuracy).all()
    assert (light.latency_ms <= heavy.latency_ms + 1e-3).all()
    for name, codec in (("remote_raw", "raw8"), ("remote_jpeg", "jpeg75")):
        used = {world.hardware.sets[f].names[p] for _, f, _, p in _every_choice(played(name).plan)}
        assert {plan.split("/")[1:][0] for plan in used} == {"input"}
        assert {plan.split("/")[2] for plan in used} == {codec}


def _every_choice(plans: np.ndarray) -> list[tuple[int, int, int, int]]:  # type: ignore[type-arg]
    return [(*map(int, at), int(plan)) for at, plan in np.ndenumerate(plans)]  # type: ignore[misc]


def test_a_site_without_the_codec_ships_what_it_has() -> None:
    hardware = World(SMALL, 2, 1).hardware
    assert (shipping(hardware, ("no-such-codec",)) == (hardware.ships_input & hardware.allowed)).all()
    assert (shipping(hardware, ("no-such-codec", "raw8")) == shipping(hardware, ("raw8",))).all()


def test_random_chooses_every_plan() -> None:
    long = scenario(periods=200)
    world = World(long, 1, 1)
    episode = play(World(long, 1, 1), REFERENCES["random"](), np.random.default_rng(0))
    assert set(np.unique(episode.plan)) == set(np.flatnonzero(world.hardware.allowed[0, 0]))


def test_greedy_alone_is_the_best_of_all_plans() -> None:
    world = World(scenario(devices=1), 4, 1)
    seen = world.seen()
    chosen = Greedy().act(world, seen, np.random.default_rng(0))
    rewards = [seen.batch.together(np.full((4, 1), p))[:, 0] for p in range(seen.batch.shape[2])]
    best = np.where(seen.batch.allowed[:, 0], np.stack(rewards, axis=1), -np.inf).max(axis=1)
    assert seen.batch.together(chosen)[:, 0] == pytest.approx(best, abs=1e-4)


def test_devices_keep_what_they_follow_and_newcomers_start_at_their_best() -> None:
    _, batch = random_site(0, devices=3)
    current = random_plans(batch, np.random.default_rng(0))
    current[0, 1] = -1
    start = as_they_are(batch, current)
    assert start[0, [0, 2]].tolist() == current[0, [0, 2]].tolist()
    assert start[0, 1] == alone_on_edge(batch)[0, 1] == np.argmax(idle_rewards(batch)[0, 1])


@pytest.mark.parametrize("seed", range(8))
def test_planning_well_finds_the_best_of_all_combinations(seed: int) -> None:
    _, batch = random_site(seed, devices=3, edge_heavy_ms=150.0)
    best = _exhaustive(batch)
    found = plan_well(batch, random_plans(batch, np.random.default_rng(seed)), np.random.default_rng(seed))
    assert float(batch.together(found).sum()) >= best - 0.01 * 3


def _exhaustive(batch: Batch) -> float:
    plans = [np.flatnonzero(batch.allowed[0, i]) for i in range(batch.shape[1])]
    combinations = np.array(list(itertools.product(*plans)))
    return max(float(batch.together(row[None]).sum()) for row in combinations)


def test_a_penalty_keeps_plans_out() -> None:
    _, batch = random_site(1, devices=4)
    penalty = np.where(batch.local, np.float32(0), np.float32(10))
    found = plan_well(batch, alone_on_edge(batch), np.random.default_rng(0), penalty)
    assert batch.pick(batch.local, found).all()


def test_the_clairvoyant_is_not_below_what_knows_less() -> None:
    kind = scenario(telemetry_delay=(2, 5), uplink_jitter=0.4, periods=20)
    clairvoyant = played("oracle_clairvoyant", kind).reward.mean()
    for name in ("oracle_observed", "sequential", "pricing", "greedy", "random", "best_static"):
        assert clairvoyant >= played(name, kind).reward.mean() - 0.002


def test_best_static_never_changes_and_is_not_below_one_plan_for_all() -> None:
    world = World(SMALL, 3, 1)
    agent = BestStatic()
    agent.begin(world)
    chosen = agent.act(world, world.seen(), np.random.default_rng(0))
    best = replay(world, chosen).sum(axis=1)
    assert world.t == 0, "hindsight leaves the world as it was"
    for plan in range(world.hardware.allowed.shape[2]):
        everybody = np.full((3, 4), plan)
        total = np.where(world.hardware.allowed[:, 0, plan], replay(world, everybody).sum(axis=1), -np.inf)
        assert (best >= total - 0.02 * 10 * 4).all()
    assert played("best_static").switches == 0


def test_a_replay_is_what_the_world_then_brings() -> None:
    world = World(BATTERY, 2, 1)
    plans = np.stack([random_plans(world.seen().batch, np.random.default_rng(t)) for t in range(BATTERY.periods)])
    expected = replay(world, plans)
    got = sum(world.step(plan).reward.astype(float) for plan in plans)
    assert expected == pytest.approx(got)


def test_knowing_the_day_makes_batteries_last() -> None:
    day = {name: played(name, BATTERY, fleets=4) for name in ("oracle_battery", "oracle_clairvoyant", "pricing")}
    rewards = {name: float(episode.reward.mean()) for name, episode in day.items()}
    assert rewards["oracle_battery"] > max(rewards["oracle_clairvoyant"], rewards["pricing"])
    assert day["oracle_battery"].dead.mean() < 0.05


def test_a_bandit_learns_that_an_edge_is_busy() -> None:
    """On its own device nothing is learnt; on a swamped edge, that remote plans bring less than their costs say."""
    kind = scenario(periods=80, demand=(6.0, 8.0), uplink_mbps=(20.0,), uplink_switch=0.0)
    world, agent = World(kind, 4, 1), LinUCB()
    episode = play(world, agent, np.random.default_rng(0))
    assert episode.reward[40:].mean() > episode.reward[:10].mean()
    assert episode.remote[60:].mean() < episode.remote[:5].mean()
