"""Every frame that a subscriber hears of, and the moment it was captured on the pilot's own clock. Pure.

No two clocks are synchronised. A device stamps its frames and its telemetry by the same clock, and telemetry is sent
at once: the least of (arrival − stamp) over some seconds of telemetry is the difference of the two clocks and the least
delay of the link. A frame placed by it never seems captured too early (but for a millisecond or two, by rounding and
drift), and too late by that delay at most, which is far less than a wash-out: it can fall into the next wash-out, but
never into another arm's measured stretch.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policy.table import Array, Index
from tools.pilot.schedule import Stretch
from wire.errors import PayloadError
from wire.messages import EnergySource, Outcome, Outcomes, Telemetry
from wire.plan import Plan

REACH_MS = 10_000.0
"""Telemetry so near a frame tells the difference of the clocks; near, since a device's clock may be set meanwhile."""
MOST_FRAMES = 2_000_000
"""About 200 MB; later ones are counted and left out."""
COLUMNS = (
    "device", "session", "frame", "captured_ms", "outcome", "plan", "latency_ms", "energy_mj", "metered", "labelled",
    "right", "sent_bytes",
)  # fmt: skip
OUTCOMES = tuple(Outcome)
BEFORE, WASH_OUT, AFTER, UNPLACED = -1, -2, -3, -4
"""Where a frame is that no block has."""


@dataclass(frozen=True)
class Frames:
    """Frames with their places; every array is [frames], each frame once."""

    columns: Mapping[str, Array]
    place: Index
    """Number of the block in whose measured stretch it was captured, or one of the four above."""
    devices: tuple[str, ...]
    plans: tuple[Plan, ...]
    missing: Index
    """Places of frames that never came, known by the gaps in their numbers."""
    tail: int
    """Frames that were captured after the last that came of their device, nobody knows in which block."""
    beyond: int
    """Lines left out beyond ``MOST_FRAMES``."""


class FrameBook:
    """Takes in outcomes and telemetry as they come, repeated or not."""

    def __init__(self) -> None:
        self.beyond = 0
        self._columns = {name: array("d") for name in COLUMNS}
        self._devices: dict[str, int] = {}
        self._plans: dict[Plan, int] = {}
        self._batches: set[tuple[str, int, int]] = set()
        self._captured: dict[tuple[int, int], int] = {}
        self._latest_ms: dict[str, float] = {}
        self._offset_ms: dict[str, float] = {}
        self._clocks: dict[tuple[int, int], tuple[array[float], array[float]]] = defaultdict(
            lambda: (array("d"), array("d"))
        )

    def outcomes(self, device: str, told: Outcomes) -> None:
        """Take in a batch of a ledger; one that is repeated changes nothing. Raises ``PayloadError``: it cannot be."""
        if any(not 0 <= row.plan < len(told.plans) for row in told.rows):
            raise PayloadError("outcomes", "a frame of a plan that is not in the list")
        number = self._devices.setdefault(device, len(self._devices))
        key = number, told.session
        self._captured[key] = max(self._captured.get(key, 0), told.captured)
        if (device, told.session, told.batch) in self._batches:
            return
        if len(self._columns["frame"]) + len(told.rows) > MOST_FRAMES:
            self.beyond += len(told.rows)
            return
        self._batches.add((device, told.session, told.batch))
        plans = [self._plans.setdefault(plan, len(self._plans)) for plan in told.plans]
        for row in told.rows:
            labelled = row.truth is not None and row.label is not None
            values = (
                number, told.session, row.frame, row.captured_ms, OUTCOMES.index(Outcome(row.outcome)),
                plans[row.plan], row.latency_ms, row.energy_mj, row.energy_source == EnergySource.MEASURED, labelled,
                labelled and row.truth == row.label, row.sent_bytes,
            )  # fmt: skip
            for column, value in zip(self._columns.values(), values, strict=True):
                column.append(float(value))
            self._latest_ms[device] = row.captured_ms

    def telemetry(self, device: str, told: Telemetry, arrived_s: float) -> None:
        """Take in telemetry that was sent when it was made; ``arrived_s`` by our monotonic clock."""
        if told.replayed:
            return
        number = self._devices.setdefault(device, len(self._devices))
        stamps, offsets = self._clocks[number, told.session]
        stamps.append(float(told.at_ms))
        offsets.append(1000 * arrived_s - told.at_ms)
        self._offset_ms[device] = offsets[-1]

    def is_told_until(self, device: str, moment_s: float) -> bool:
        """Whether a frame of that device has come that was captured after this moment, or nearly so."""
        latest_ms, offset_ms = self._latest_ms.get(device), self._offset_ms.get(device)
        return latest_ms is not None and offset_ms is not None and latest_ms + offset_ms >= 1000 * moment_s

    def placed(self, stretches: Sequence[Stretch]) -> Frames:
        """Return every frame with its place."""
        raw = {name: np.array(column, np.float64) for name, column in self._columns.items()}
        order = np.lexsort((raw["frame"], raw["session"], raw["device"]))
        keys = np.stack([raw[name][order] for name in ("device", "session", "frame")])
        first = np.ones(len(order), bool)
        first[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
        columns = {name: column[order][first] for name, column in raw.items()}
        at_ms = np.full(len(columns["frame"]), np.nan)
        gaps: list[Array] = []
        tail = 0
        for (device, session), captured in self._captured.items():
            mine = np.flatnonzero((columns["device"] == device) & (columns["session"] == session))
            if not len(mine):
                tail += captured
                continue
            stamps, offsets = self._clocks.get((device, session), (array("d"), array("d")))
            at_ms[mine] = captured_at(columns["captured_ms"][mine], np.array(stamps), np.array(offsets))
            gaps.append(_between(columns["frame"][mine], at_ms[mine]))
            if stretches and not at_ms[mine[-1]] >= 1000 * stretches[-1].until_s:
                tail += max(0, captured - int(columns["frame"][mine[-1]]))
        missing = np.concatenate(gaps) if gaps else np.zeros(0)
        names = tuple(self._devices)
        return Frames(
            columns, places(at_ms, stretches), names, tuple(self._plans), places(missing, stretches), tail, self.beyond
        )


def captured_at(captured_ms: Array, stamps_ms: Array, offsets_ms: Array) -> Array:
    """Return when frames were captured, in ms of our clock; NaN where no telemetry is near.

    ``stamps_ms`` are the telemetry's by the device's clock, ``offsets_ms`` arrivals by ours less stamps.
    """
    order = np.argsort(stamps_ms, kind="stable")
    stamps, offsets = stamps_ms[order], np.append(offsets_ms[order], np.inf)
    low = np.searchsorted(stamps, captured_ms - REACH_MS, "left")
    high = np.searchsorted(stamps, captured_ms + REACH_MS, "right")
    if not len(captured_ms):
        return np.zeros(0)
    least = np.minimum.reduceat(offsets, np.stack([low, high], axis=1).ravel())[::2]
    return np.where(high > low, captured_ms + least, np.nan)


def places(at_ms: Array, stretches: Sequence[Stretch]) -> Index:
    """Return where moments lie: in the measured stretch of a block, or before, after or between them."""
    place = np.full(len(at_ms), UNPLACED, np.int64)
    known = np.isfinite(at_ms)
    if not stretches:
        place[known] = BEFORE
        return place
    place[known] = WASH_OUT
    place[known & (at_ms < 1000 * stretches[0].began_s)] = BEFORE
    place[known & (at_ms >= 1000 * stretches[-1].until_s)] = AFTER
    for one in stretches:
        place[known & (at_ms >= 1000 * one.from_s) & (at_ms < 1000 * one.until_s)] = one.block.number
    return place


def _between(numbers: Array, at_ms: Array) -> Array:
    """Return the moments of frames whose numbers are missing, evenly spread between their neighbours."""
    gaps = np.diff(numbers).astype(np.int64) - 1
    out = [np.linspace(at_ms[i], at_ms[i + 1], int(gaps[i]) + 2)[1:-1] for i in np.flatnonzero(gaps > 0)]
    return np.concatenate(out) if out else np.zeros(0)
