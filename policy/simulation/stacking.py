"""Several worlds of one scenario as one, so that a policy decides for all of their fleets in the same arrays."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.simulation.hardware import Hardware
from policy.simulation.traces import Traces
from policy.simulation.world import World

STATE = (
    "current", "edge_backlog_ms", "link_backlog_ms", "late", "utilisation", "expected", "calibration", "capacity_mj",
    "battery_mj",
)  # fmt: skip


def stacked(worlds: Sequence[World]) -> World:
    """Return one world with the fleets of all, in order; each lives as it would by itself. ``reset`` is not for it."""
    whole = copy.copy(worlds[0])
    whole.fleets = sum(world.fleets for world in worlds)
    whole.traces = _traces([world.traces for world in worlds])
    whole.hardware = _hardware([world.hardware for world in worlds])
    for name in STATE:
        setattr(whole, name, np.concatenate([getattr(world, name) for world in worlds]))
    whole._utilisation_noise = np.concatenate([world._utilisation_noise for world in worlds], axis=1)
    return whole


def _traces(parts: list[Traces]) -> Traces:
    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts], axis=0 if name == "rtt_ms" else 1)

    return Traces(**{field.name: joined(field.name) for field in fields(Traces)})


def _hardware(parts: list[Hardware]) -> Hardware:
    """Join along the fleets; short lists of plans are filled up with plans that are not allowed."""
    most = max(part.allowed.shape[2] for part in parts)

    def joined(name: str) -> NDArray[Any]:
        arrays = [getattr(part, name) for part in parts]
        if arrays[0].ndim < 3 or name == "weights" or arrays[0].shape[2] == 1:
            return np.concatenate(arrays)
        rest = {"local": True, "twin": -1}.get(name, 0)
        room = [[(0, 0), (0, 0), (0, most - a.shape[2]), *[(0, 0)] * (a.ndim - 3)] for a in arrays]
        return np.concatenate([np.pad(a, r, constant_values=rest) for a, r in zip(arrays, room, strict=True)])

    names = [field.name for field in fields(Hardware) if field.name not in ("sets", "batches")]
    sets = tuple(plans for part in parts for plans in part.sets)
    return replace(parts[0], sets=sets, **{name: joined(name) for name in names})
