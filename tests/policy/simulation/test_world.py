"""The simulated world: what carries over, what is seen late, and that decisions change nothing from outside."""

from __future__ import annotations

import numpy as np
import pytest

from policy.references.fixed import LocalHeavy, Random, Remote
from policy.simulation.stacking import STATE, stacked
from policy.simulation.world import World
from tests.policy.worlds import SMALL, scenario

REMOTE = Remote("remote_raw", ("raw8",))


def step(world: World, agent: Random | LocalHeavy | Remote, rng: np.random.Generator) -> None:
    agent.begin(world)
    world.step(agent.act(world, world.seen(), rng))


def test_the_same_seed_is_the_same_world_whatever_the_policy() -> None:
    worlds = [World(SMALL, 3, 7), World(SMALL, 3, 7)]
    other = World(SMALL, 3, 8)
    rng = np.random.default_rng(0)
    while not worlds[0].over:
        step(worlds[0], Random(), rng)
        step(worlds[1], LocalHeavy(), rng)
    one, two = worlds
    for name in ("uplink_bps", "rtt_ms", "fps", "delay", "noise"):
        assert np.array_equal(getattr(one.traces, name), getattr(two.traces, name))
    for name in ("compute_ms", "tail_ms", "weights", "deadline_ms", "edge_truth"):
        assert np.array_equal(getattr(one.hardware, name), getattr(two.hardware, name))
    assert not np.array_equal(one.traces.uplink_bps, other.traces.uplink_bps)


def test_the_same_plans_bring_the_same() -> None:
    def rewards() -> list[float]:
        world, rng = World(SMALL, 2, 3), np.random.default_rng(1)
        return [float(world.step(Random().act(world, world.seen(), rng)).reward.sum()) for _ in range(5)]

    assert rewards() == rewards()


def test_what_the_edge_cannot_do_now_waits_for_the_next_period() -> None:
    world = World(scenario(demand=(6.0, 8.0), uplink_mbps=(100.0,), uplink_switch=0.0), 2, 1)
    rng = np.random.default_rng(0)
    fresh = world.truth()
    step(world, REMOTE, rng)
    assert (world.edge_backlog_ms > 0).all()
    assert (world.edge_backlog_ms <= world.hardware.deadline_ms.max(axis=1)).all()
    behind = world.truth()
    nothing = np.zeros((2, 1 + len(behind.batches)), np.float32)
    assert (behind.delay(nothing)[0] == world.edge_backlog_ms).all()
    assert (fresh.delay(nothing)[0] < 1).all()
    while not world.over and world.edge_backlog_ms.any():
        step(world, LocalHeavy(), rng)
    assert not world.edge_backlog_ms.any(), "an edge with nothing to do catches up"


def test_what_the_link_cannot_send_now_delays_remote_frames_of_the_next_period() -> None:
    world = World(scenario(uplink_mbps=(0.1,), uplink_switch=0.0, uplink_jitter=0.0), 1, 1)
    step(world, REMOTE, np.random.default_rng(0))
    assert (world.link_backlog_ms > 0).all()
    now, remote = world.truth(), ~world.hardware.local
    plain = world.hardware.costs(
        world.traces.uplink_bps[1], world.traces.rtt_ms, world.traces.fps[1],
        world.edge_backlog_ms.astype(np.float64), world.hardware.edge_truth.astype(np.float64),
    )  # fmt: skip
    waits = np.broadcast_to(world.link_backlog_ms[..., None], remote.shape)
    assert (now.own_ms - plain.own_ms)[remote] == pytest.approx(waits[remote], rel=1e-3)
    assert (now.own_ms == plain.own_ms)[~remote].all()


def test_a_battery_is_used_up_and_then_the_device_is_dead() -> None:
    world = World(scenario(battery=(0.05, 0.1), periods=60), 2, 1)
    charge = world.battery_mj.copy()
    heavy = LocalHeavy().act(world, world.seen(), np.random.default_rng(0))
    first = world.step(heavy)
    spent = first.energy_mj * world.traces.fps[0] * world.scenario.period_s
    assert world.battery_mj == pytest.approx(np.maximum(charge - spent, 0))
    while not world.over:
        last = world.step(heavy)
    assert last.dead.all()
    assert (last.reward == -1).all()
    assert (last.energy_mj == 0).all()
    assert (last.dropped == 1).all()


def test_devices_on_mains_do_not_die() -> None:
    world = World(SMALL, 2, 1)
    while not world.over:
        outcome = world.step(LocalHeavy().act(world, world.seen(), np.random.default_rng(0)))
        assert not outcome.dead.any()


def test_late_news_is_late() -> None:
    late = scenario(telemetry_delay=(3, 3), uplink_noise=0.0, uplink_jitter=0.5, periods=20)
    world = World(late, 2, 1)
    rng = np.random.default_rng(0)
    for _ in range(10):
        step(world, Random(), rng)
    seen = world.seen().now
    assert (seen.age_periods == 3).all()
    assert np.array_equal(seen.uplink_bps, world.traces.uplink_bps[world.t - 1 - 3])
    assert np.array_equal(seen.fps, world.traces.fps[world.t - 1 - 3])


def test_fresh_news_is_of_the_period_before_and_off_by_noise() -> None:
    world = World(scenario(uplink_noise=0.1), 2, 1)
    step(world, Random(), np.random.default_rng(0))
    step(world, Random(), np.random.default_rng(0))
    seen = world.seen().now.uplink_bps
    assert np.array_equal(seen, world.traces.uplink_bps[1] * world.traces.noise[1])


def test_a_slow_edge_is_seen_as_the_profile_says_until_it_is_calibrated() -> None:
    rng = np.random.default_rng(0)
    for calibrated in (False, True):
        world = World(scenario(edge_truth=(3.0, 3.0), periods=40, calibrated=calibrated), 2, 1)
        assert world.truth().tail_ms.max() == pytest.approx(3 * world.seen().batch.tail_ms.max(), rel=1e-5)
        while not world.over:
            step(world, REMOTE, rng)
        assert world.calibration == pytest.approx([3.0, 3.0] if calibrated else [1.0, 1.0], rel=0.1)


@pytest.mark.parametrize("changes", [{}, {"battery": (0.3, 0.6), "families": ("resnet", "densenet", "vgg")}])
def test_stacked_worlds_live_as_they_would_alone(changes: dict[str, object]) -> None:
    kind = scenario(**changes)
    alone = [World(kind, 2, seed) for seed in (1, 2, 3)]
    whole = stacked([World(kind, 2, seed) for seed in (1, 2, 3)])
    rng = np.random.default_rng(0)
    while not whole.over:
        plans = np.concatenate([Random().act(world, world.seen(), rng) for world in alone])
        together = whole.step(plans)
        apart = [world.step(plans[2 * i : 2 * i + 2]) for i, world in enumerate(alone)]
        assert together.reward == pytest.approx(np.concatenate([o.reward for o in apart]), abs=1e-5)
        assert together.latency_ms == pytest.approx(np.concatenate([o.latency_ms for o in apart]), rel=1e-4)
    for name in STATE:
        expected = np.concatenate([getattr(world, name) for world in alone])
        assert getattr(whole, name) == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert whole.hardware.allowed.sum() == sum(world.hardware.allowed.sum() for world in alone)
