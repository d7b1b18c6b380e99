"""Coordination without learning: devices take turns, or answer to a price of the edge's time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from policy.batch import NOTHING, Batch, Index, Reals
from policy.queueing import edge_delay
from policy.table import Array

GRID = 14
"""Waits at which the rewards of all devices are worked out; between them, straight lines."""
TARGETS = (0.97, 0.9, 0.8, 0.65, 0.5, 0.3, 0.0)
"""Utilisations of the edge that pricing aims at; the best for the site wins, of equal ones the first."""
BISECTIONS = 14
HEADROOM = 1.5
"""By how much the power of a plan may exceed a battery's budget: other periods are cheaper than the mean."""
HIGHEST_PRICE = 8.0
"""Reward per share of the edge's time; at this price nobody uses it."""
STEPS = np.linspace(0, 1, GRID, dtype=np.float32)
TURNS = 16
"""Turns in a round: sites with more devices let several decide at once."""


@dataclass(frozen=True)
class Turn:
    """The devices [S, C] that decide now, and what each of their plans would do, arrays [S, C, P]."""

    chosen: Index
    batch: Batch
    """Of these devices alone."""
    own: tuple[Reals, ...]
    """Own reward, under each hypothesis of how much longer tails take than modelled."""
    others: tuple[Reals, ...]
    """The same of what the sum of everybody else's rewards would be, less what it is with this device on no plan."""
    wait_ms: Reals
    """Under the model as it is."""
    tail_index: Index


Score = Callable[[Turn], Reals]
"""Gives the score [S, C, P] by which the devices of a turn choose."""


def for_the_site(turn: Turn) -> Reals:
    """Own reward plus what the plan does to the others: the site's sum."""
    return turn.own[0] + turn.others[0]


def take_turns(
    batch: Batch,
    start: Index,
    score: Score,
    rng: np.random.Generator,
    *,
    factors: tuple[float, ...] = (1.0,),
    turns: int = TURNS,
    on_turn: Callable[[Turn, Reals, Index], None] | None = None,
    pick: Callable[[Reals], Index] | None = None,
) -> Index:
    """Let every device choose once, in random order, seeing the load of what the others have; return plans [S, N].

    ``on_turn`` sees each turn with its scores and choices [S, C]; ``pick`` chooses from scores (the best by default).
    """
    sites, devices, _ = batch.shape
    per_turn = -(-devices // turns)
    order = rng.permuted(np.tile(np.arange(devices), (sites, 1)), axis=1)
    assignment = start.copy()
    site = np.arange(sites)[:, None]
    for first in range(0, devices, per_turn):
        turn = look_at(batch, assignment, order[:, first : first + per_turn], factors)
        scores = np.where(turn.batch.allowed, score(turn), np.float32(NOTHING))
        plans = np.argmax(scores, axis=-1) if pick is None else pick(scores)
        if on_turn is not None:
            on_turn(turn, scores, plans)
        assignment[site, turn.chosen] = plans
    return assignment


def look_at(batch: Batch, assignment: Index, chosen: Index, factors: tuple[float, ...] = (1.0,)) -> Turn:
    """Work out what every plan of the devices chosen [S, C] would bring them and the others, as they stand."""
    some = batch.devices(chosen)
    site = np.arange(len(chosen))[:, None]
    without = batch.total_load(assignment)[:, None] - some.pick(some.load, assignment[site, chosen])
    # The last column is the site with the device on no plan.
    loads = np.concatenate([without[:, :, None] + some.load, without[:, :, None]], axis=2)
    longer = np.array(factors, np.float32)
    wait, index = _delays(some, loads, longer)
    own = some.rewards_under(wait[..., :-1], index[..., :-1], longer[:, None, None, None])
    others = _others(batch, assignment, chosen, wait, index, longer)
    return Turn(chosen, some, tuple(own), tuple(others), wait[0, ..., :-1], index[0, ..., :-1])


def _delays(some: Batch, loads: Reals, longer: Reals) -> tuple[Reals, Index]:
    """Return waits and indices of batch sizes [F, S, C, K] under loads [S, C, K, 1 + G], tails so much longer [F]."""
    stretch = np.ones((len(longer), 1, 1, 1, loads.shape[-1]), np.float32)
    stretch[..., 1:] = longer[:, None, None, None, None]
    interpreters, backlog = some.interpreters[:, None, None], some.backlog_ms[:, None, None]
    wait, index = edge_delay(loads * stretch, some.batches, interpreters, backlog * longer[:, None, None, None])
    return wait.astype(np.float32, copy=False), index


def _others(batch: Batch, assignment: Index, chosen: Index, wait: Reals, index: Index, longer: Reals) -> Reals:
    """Return the change [F, S, C, P] in the sum of the other devices' rewards.

    For each batch size that any choice leads to, rewards are worked out at ``GRID`` waits from the least to the
    greatest and read off between them, so that the effort does not grow with the plans. Only devices on the edge feel
    a wait, so only those are looked at.
    """
    sites = np.arange(len(chosen))[:, None]
    remote = ~batch.pick(batch.local, assignment)
    change = np.zeros_like(wait)
    most = int(remote.sum(axis=1).max(initial=0))
    if most == 0:
        return change[..., :-1]
    felt = np.argsort(~remote, axis=1, kind="stable")[:, :most]
    there = remote[sites, felt]
    seen = batch.devices(felt)
    one, tails = seen.at(assignment[sites, felt]), seen.pick(seen.tail_ms, assignment[sites, felt])
    place_of = np.full(remote.shape, most, np.int64)
    place_of[sites, felt] = np.where(there, np.arange(most), most)
    mine = place_of[sites, chosen]
    # Beyond every deadline rewards do not change any more.
    wait = np.minimum(wait, batch.deadline_ms.max(axis=1)[:, None, None])
    for size in np.unique(index):
        hits = index == size
        has = np.flatnonzero(hits.any(axis=(1, 2, 3)))
        hit, waits = hits[has], wait[has]
        low = np.where(hit, waits, np.inf).min(axis=(2, 3))
        span = np.where(hit, waits, -np.inf).max(axis=(2, 3)) - low
        span = np.where(np.isfinite(low), np.maximum(span, 1e-3), 1.0)
        low = np.where(np.isfinite(low), low, 0)
        # Close together where waits are short: that is where rewards bend.
        grid = (low[..., None] + span[..., None] * (STEPS**2)).astype(np.float32)
        tail = tails[:, None, :, size] * longer[has][:, None, None, None]
        worth = one.rewards(grid[..., None], tail) * there[:, None]
        # A device does not count among its own others; the last column stands for one that is not on the edge.
        padded = np.concatenate([worth, np.zeros((*worth.shape[:-1], 1), np.float32)], axis=-1)
        others = worth.sum(axis=-1)[:, :, None] - padded[:, sites, :, mine].transpose(2, 0, 1, 3)
        place = np.sqrt(np.clip((waits - low[..., None, None]) / span[..., None, None], 0, 1)) * (GRID - 1)
        left = np.minimum(place.astype(np.int64), GRID - 2)
        # Straight between two points of the grid, which lie as the squares of STEPS.
        begin, end = (left / (GRID - 1)) ** 2, ((left + 1) / (GRID - 1)) ** 2
        share = ((place / (GRID - 1)) ** 2 - begin) / (end - begin)
        flat = others.reshape(-1)
        at = np.arange(0, flat.size, GRID).reshape(others.shape[:-1])[..., None] + left
        change[has] = np.where(hit, flat[at] + share * (flat[at + 1] - flat[at]), change[has])
    return np.asarray(change[..., :-1] - change[..., -1:], np.float32)


@dataclass(frozen=True)
class Priced:
    """What pricing finds for S sites."""

    assignment: Index
    """[S, N]"""
    price: Reals
    """[S]: reward per share of the edge's time at which the site's demand meets the target that is best."""
    battery_price: Reals
    """[S, N]: reward per mJ at which a device's battery lasts; 0 where it lasts anyway."""


def price(batch: Batch, budget_mj_per_s: Reals | None = None) -> Priced:
    """Find, per site, the price of the edge's time at which devices that each look after themselves do best together.

    For each target utilisation the price is bisected until the load of everybody's best response meets it, at the delay
    that the target implies; the target with the greatest sum of rewards wins. ``budget_mj_per_s`` [S, N] paces
    batteries: each device's energy has a price of its own, bisected until its best plan stays within the budget
    (infinite: none).
    """
    sites, devices, _ = batch.shape
    energy_price = np.zeros((sites, devices), np.float32)
    if budget_mj_per_s is not None and np.isfinite(budget_mj_per_s).any():
        energy_price = pace(batch, budget_mj_per_s)
    penalty = energy_price[..., None] * batch.energy_mj
    capacity = np.maximum(batch.interpreters, 1) * 1000
    share = batch.load[..., 1:].min(axis=-1) / capacity[:, None, None]
    tail_ms = _typical_tail(batch)
    best = np.full(sites, -np.inf)
    found = np.zeros((sites, devices), np.int64)
    found_price = np.zeros(sites, np.float32)
    for target in TARGETS:
        assignment, level = _meet(batch, share, tail_ms, penalty, target)
        worth = (batch.together(assignment) - batch.pick(penalty, assignment)).sum(axis=1)
        better = worth > best
        best = np.where(better, worth, best)
        found[better], found_price[better] = assignment[better], level[better]
    return Priced(found, found_price, energy_price)


def affordable(batch: Batch, budget_mj_per_s: Reals) -> Batch:
    """Return the batch without plans that draw more power than a device's budget [S, N]; that of least power stays.

    A price of energy alone, found for an idle edge, keeps no device from a dear local plan when the edge is full.
    """
    power = np.where(batch.allowed, batch.energy_mj * batch.fps[..., None], np.inf)
    most = np.maximum(budget_mj_per_s, power.min(axis=-1))
    return replace(batch, allowed=batch.allowed & (power <= most[..., None]))


def spendable(budget_mj_per_s: Array, fps: Array, usual_fps: Array) -> Reals:
    """Return the power [S, N] that a battery affords now: more in busy hours than in calm ones, and some headroom."""
    return np.asarray(HEADROOM * budget_mj_per_s * fps / np.maximum(usual_fps, 1e-6), np.float32)


def pace(batch: Batch, budget_mj_per_s: Reals) -> Reals:
    """Return the price [S, N] per mJ at which each device's best plan, on an idle edge, keeps to its budget."""
    idle = np.where(batch.allowed, batch.rewards(np.zeros(1, np.float32), np.zeros(1, np.int64)), NOTHING)
    burn = batch.energy_mj * batch.fps[..., None]
    low = np.zeros(budget_mj_per_s.shape, np.float32)
    high = np.where(np.isfinite(budget_mj_per_s), 4.0 / np.maximum(batch.heavy_mj, 1e-6), 0).astype(np.float32) * 4
    free = batch.pick(burn, np.argmax(idle, axis=-1)) <= budget_mj_per_s
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        plans = np.argmax(idle - middle[..., None] * batch.energy_mj, axis=-1)
        over = batch.pick(burn, plans) > budget_mj_per_s
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    return np.asarray(np.where(free, 0, high), np.float32)


def _meet(batch: Batch, share: Reals, tail_ms: Reals, penalty: Reals, target: float) -> tuple[Index, Reals]:
    """Return best responses [S, N] that together keep to a target utilisation, and the price [S] they answer to."""
    per_frame = tail_ms / batch.batches
    busy = 1000 * np.maximum(batch.interpreters, 1)[:, None] * target
    arrivals = busy / np.maximum(per_frame.min(axis=1, keepdims=True), 1e-6)
    load = np.concatenate([arrivals, arrivals * per_frame], axis=1).astype(np.float32)
    wait, index = batch.delay(load)
    worth = batch.rewards(wait[:, None, None], index[:, None, None])
    worth = np.where(batch.allowed, worth - penalty, np.float32(NOTHING))
    low = np.zeros(len(wait), np.float32)
    high = np.full(len(wait), HIGHEST_PRICE, np.float32)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        over = _demand(batch, share, np.argmax(worth - middle[:, None, None] * share, axis=-1)) > target
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    free = _demand(batch, share, np.argmax(worth, axis=-1)) <= target
    level = np.where(free, 0, high).astype(np.float32)
    return np.asarray(np.argmax(worth - level[:, None, None] * share, axis=-1)), level


def _demand(batch: Batch, share: Reals, assignment: Index) -> Reals:
    return np.asarray(batch.pick(share, assignment).sum(axis=1))


def _typical_tail(batch: Batch) -> Reals:
    """Return the mean time [S, G] of a batch over the remote plans that are allowed."""
    there = (~batch.local & batch.allowed)[..., None]
    return np.asarray((batch.tail_ms * there).sum(axis=(1, 2)) / np.maximum(there.sum(axis=(1, 2)), 1))


def pricing_and_sweep(
    batch: Batch, rng: np.random.Generator, budget_mj_per_s: Reals | None = None, sweeps: int = 1
) -> Priced:
    """Price the edge, then let every device in turn correct its plan for the site's sum."""
    priced = price(batch, budget_mj_per_s)
    penalty = priced.battery_price[..., None] * batch.energy_mj

    def score(turn: Turn) -> Reals:
        site = np.arange(len(turn.chosen))[:, None]
        return np.asarray(for_the_site(turn) - penalty[site, turn.chosen])

    assignment = priced.assignment
    for _ in range(sweeps):
        assignment = take_turns(batch, assignment, score, rng)
    return Priced(assignment, priced.price, priced.battery_price)


def sequential(batch: Batch, start: Index, rng: np.random.Generator, passes: int = 2) -> Index:
    """Let devices settle, each taking what is best for the site, so many times round."""
    assignment = start
    for _ in range(passes):
        assignment = take_turns(batch, assignment, for_the_site, rng)
    return assignment
