"""From an observed fleet to a batch: the few plans of each device that are worth a look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policy.baselines import Scene
from policy.batch import Batch, Index, of_fleet
from policy.costs import NONE, CostModel
from policy.mask import Refusal
from policy.pareto import undominated
from policy.table import Mask
from tflite_models.profile import DeviceProfile

MAX_KINDS = 2000
"""Kinds of devices whose plans are remembered; a fleet has a handful."""
BY_CIRCUMSTANCES = (Refusal.ALLOWED, Refusal.MISSES_DEADLINE, Refusal.BATTERY)
"""Whatever passes on latency or energy, a plan that beats it passes too: these refusals change nothing about which plan
beats which, and are left to the moment."""


@dataclass(frozen=True)
class Candidates:
    """A site as a batch of one, and which plans of the catalog its columns are."""

    batch: Batch
    columns: Index
    """[N, K]: index of the plan in the catalog's table."""
    current: Index
    """[1, N]: column of the plan a device follows; −1 where it has none that it may keep."""

    def plans(self, assignment: Index) -> Index:
        """Return indices of the catalog's plans [N] for an assignment [1, N] of columns."""
        return np.asarray(np.take_along_axis(self.columns, assignment[0][:, None], axis=1)[:, 0])


class Sieve:
    """Finds candidates; remembers, per board and what it can do, the plans that no other beats in everything."""

    def __init__(self, model: CostModel) -> None:
        self._model = model
        self._kinds: dict[tuple[int, bytes], tuple[DeviceProfile | None, Mask]] = {}

    def candidates(self, scene: Scene) -> Candidates:
        """Return the batch of a fleet that has at least one device.

        The plan a device follows is always among its candidates if the mask allows it.
        """
        allowed, everybody = scene.masked.allowed, np.arange(len(scene.fleet.devices))
        wanted = allowed & self._unbeaten(scene)
        wanted = np.where(wanted.any(axis=1)[:, None], wanted, allowed)
        followed = np.maximum(scene.current, 0)
        keeps = (scene.current != NONE) & allowed[everybody, followed]
        wanted[everybody[keeps], followed[keeps]] = True

        count = wanted.sum(axis=1)
        columns = np.argsort(~wanted, axis=1, kind="stable")[:, : count.max()]
        there = np.arange(columns.shape[1])[None] < count[:, None]
        # What fills up is a plan that is there: its figures can be computed with like any other.
        columns = np.where(there, columns, columns[:, :1])
        hit = (columns == scene.current[:, None]) & there
        current = np.where(hit.any(axis=1), hit.argmax(axis=1), NONE)
        fps = np.array([device.fps for device in scene.fleet.devices], np.float64)
        return Candidates(of_fleet(scene.costs, columns, there, fps), columns, current[None])

    def _unbeaten(self, scene: Scene) -> Mask:
        """Return [N, plans] which plans no other beats of those the device can do."""
        able = np.isin(scene.masked.refusal, BY_CIRCUMSTANCES)
        packed = np.packbits(able, axis=1)
        rows: dict[tuple[int, bytes], int] = {}
        masks: list[Mask] = []
        of = np.zeros(len(able), np.int64)
        for i, device in enumerate(scene.fleet.devices):
            # How fast a board is changes nothing about which plan beats which: the key is its profile alone.
            key = id(device.profile), packed[i].tobytes()
            row = rows.get(key)
            if row is None:
                row = rows[key] = len(masks)
                masks.append(self._kind(key, device.profile, able[i]))
            of[i] = row
        return np.stack(masks)[of]

    def _kind(self, key: tuple[int, bytes], profile: DeviceProfile | None, able: Mask) -> Mask:
        held = self._kinds.get(key)
        if held is None:
            if len(self._kinds) >= MAX_KINDS:
                self._kinds.clear()
            # The profile is kept with its mask, so that its id stays its own.
            held = self._kinds[key] = profile, self._beaten_by_none(profile, able)
        return held[1]

    def _beaten_by_none(self, profile: DeviceProfile | None, able: Mask) -> Mask:
        table, row = self._model.table, self._model.row(profile)
        index = np.flatnonzero(able)
        own = [
            row.head_ms + row.encode_ms, row.head_p95_ms + row.encode_ms, row.compute_mj,
            table.bytes_mean, table.bytes_p95, -table.accuracy,
        ]  # fmt: skip
        traits = np.concatenate([np.stack(own, axis=1), self._model.edge.tail_ms], axis=1)[index]
        found = np.zeros(len(table), bool)
        found[index[undominated(traits)]] = True
        return found
