"""A site's record laid out by device and period: what was observed, what was decided, what was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from policy import plausible
from policy.costs import NONE, CostModel
from policy.errors import PolicyError
from policy.interface import Weights
from policy.measured import EndedFrames, Yardsticks, heavy_mj, measure, with_idle
from policy.rules import SiteRules
from policy.site_record import Rows, SiteRecord
from policy.table import Array, DeviceRow, Index, Mask
from tflite_models.profile import DeviceProfile

MAX_CELLS = 5_000_000
"""Devices times periods; with all figures they fill a gigabyte."""
PLAUSIBLE_MS = (0.0, 600_000.0)
FIGURES: Mapping[str, str] = {
    "uplink_bps": "told by the device",
    "rtt_ms": "told by the device",
    "estimate_age_ms": "how long before its telemetry a device had last measured uplink and round trip",
    "fps": "frames captured per second",
    "battery_share": "0 to 1",
    "head_factor": "measured head time over the profile's",
    "deadline_ms": "in force",
    "edge_utilisation": "busy share of the interpreters of the device's site",
    "edge_backlog_ms": "time that the frames queued at the workers will take",
    "edge_calibration": "measured over predicted busy time of the workers",
    "decided_plan": "in force by the decisions told until the end of the period; -1: none",
    "plan": "that most frames captured in the period ran under; -1: none",
    "frames": "captured in the period",
    "reward": "measured: w_acc A + w_lat L + w_en E - 0.5 late - 1.0 dropped",
    "accuracy": "the catalog's, of what answered",
    "right": "share of right answers among frames with known label",
    "latency_ms": "mean of answered frames",
    "energy_mj": "mean of answered frames, idle power included",
    "late": "share of frames that fell back or were answered past the deadline",
    "dropped": "share of frames dropped",
    "latency_factor": "measured latency over the profiles' for the same uplink, round trip and wait",
    "tail_factor": "measured time of tails over the profile's",
}
"""What is kept per device and period."""


@dataclass(frozen=True)
class Knowledge:
    """What the record does not hold: the catalog's costs, the profiles, and what the operator wants."""

    model: CostModel
    profile_of: Callable[[str, float], DeviceProfile | None]
    rules: SiteRules


@dataclass(frozen=True)
class SitePeriods:
    """Figures [devices, periods] by the names of ``FIGURES``; NaN (−1 for plans) where the record tells nothing.

    The observation that follows column ``t`` is column ``t + 1``.
    """

    start_ms: int
    period_ms: int
    devices: tuple[str, ...]
    """``site/device``."""
    plans: tuple[str, ...]
    """What plan numbers mean."""
    weights: Array
    """[devices, 3]: accuracy, latency, energy."""
    figures: Mapping[str, Array]

    @property
    def periods(self) -> int:
        """How many."""
        return int(self.figures["frames"].shape[1])


@dataclass(frozen=True)
class _Grid:
    """Where a row belongs."""

    start_ms: int
    period_ms: int
    periods: int
    devices: Mapping[str, int]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.devices), self.periods

    def cells(self, rows: Rows, of: str = "device") -> tuple[Index, Mask]:
        """Return the cell of each row, and which rows have one."""
        device = rows.places(of, self.devices)
        period = (rows.at_ms - self.start_ms) // self.period_ms
        there = (device >= 0) & (period >= 0) & (period < self.periods)
        return np.where(there, device * self.periods + period, 0), there

    def mean(self, cells: Index, values: Array) -> Array:
        """Return the mean [devices, periods] of the values that are not NaN."""
        known = np.isfinite(values)
        size = self.shape[0] * self.periods
        count = np.bincount(cells[known], minlength=size)
        total = np.bincount(cells[known], values[known], size)
        return np.divide(total, count, out=np.full(size, np.nan), where=count > 0).reshape(self.shape)


def collect(
    record: SiteRecord, known: Knowledge, since_ms: int, period_ms: int, until_ms: int | None = None
) -> SitePeriods:
    """Lay out the record of that time; raises ``PolicyError`` where it holds nothing, or too much to lay out."""
    telemetry, frames = (record.rows(table, since_ms, until_ms) for table in ("telemetry", "inference"))
    decisions = record.rows("decision", since_ms, until_ms, and_latest_before=True)
    stamps = np.concatenate([telemetry.at_ms, frames.at_ms])
    if not len(stamps):
        raise PolicyError("the record holds neither telemetry nor frames of that time: take a longer --since")
    names = sorted({*telemetry.texts["device"].words, *frames.texts["device"].words})
    start_ms = int(stamps.min()) // period_ms * period_ms
    periods = (int(stamps.max()) - start_ms) // period_ms + 1
    if len(names) * periods > MAX_CELLS:
        raise PolicyError(
            f"{len(names)} devices times {periods:,} periods are more than {MAX_CELLS:,}: "
            "take a longer --period or less time with --since"
        )
    grid = _Grid(start_ms, period_ms, periods, {name: i for i, name in enumerate(names)})
    told = record.devices()
    class_of = {name: (told[name].device_class, told[name].slowdown) for name in names if name in told}
    profiles = [known.profile_of(*class_of[name]) if name in class_of else None for name in names]
    rows = [known.model.row(profile) for profile in profiles]
    rules = [known.rules.of(name.rpartition("/")[2]) for name in names]
    weights = np.array([dataclasses.astuple(r.weights or Weights()) for r in rules])
    own_ms = [told[n].deadline_ms if n in told else plausible.USUAL_DEADLINE_MS for n in names]
    usual_ms = np.array([rule.deadline_ms or own for rule, own in zip(rules, own_ms, strict=True)])
    observed = _observed(grid, telemetry)
    figures = observed | _edge(grid, record, since_ms) | _decided(grid, decisions, known.model, usual_ms)
    figures |= _measured(grid, frames, known.model, rows, weights, figures)
    return SitePeriods(
        start_ms, period_ms, tuple(names), tuple(map(str, known.model.table.plans)), weights,
        {name: figures[name] for name in FIGURES},
    )  # fmt: skip


def filled_forward(values: Array) -> Array:
    """Return values [devices, periods] with every NaN replaced by the last one before it, if any."""
    place = np.where(np.isnan(values), 0, np.arange(values.shape[1]))
    np.maximum.accumulate(place, axis=1, out=place)
    return np.asarray(np.take_along_axis(values, place, axis=1))


def _observed(grid: _Grid, rows: Rows) -> dict[str, Array]:
    cells, there = grid.cells(rows)
    bounds = {
        "uplink_bps": plausible.UPLINK_BPS,
        "rtt_ms": plausible.RTT_MS,
        "estimate_age_ms": plausible.AGE_MS,
        "fps": plausible.FPS,
        "battery_share": plausible.SHARE,
        "head_ms_per_plan_ms": plausible.CALIBRATION,
    }
    out = {}
    for name, (low, high) in bounds.items():
        values = rows.numbers[name]
        possible = np.where(there & (values >= low) & (values <= high), values, np.nan)
        out["head_factor" if name == "head_ms_per_plan_ms" else name] = grid.mean(cells, possible)
    return out


def _edge(grid: _Grid, record: SiteRecord, since_ms: int) -> dict[str, Array]:
    """Return what the workers and the decision service of each device's site told, as means."""
    sites = sorted({name.partition("/")[0] for name in grid.devices})
    by_site = _Grid(grid.start_ms, grid.period_ms, grid.periods, {site: i for i, site in enumerate(sites)})
    place = [sites.index(name.partition("/")[0]) for name in grid.devices]
    workers = record.rows("worker", since_ms)
    cells, there = by_site.cells(workers, "site")
    number = workers.numbers
    utilisation = np.where(there & (number["utilisation"] >= 0), number["utilisation"], np.nan)
    per_frame_ms = utilisation * number["period_ms"] / np.maximum(number["served"], 1)
    out = {
        "edge_utilisation": by_site.mean(cells, utilisation)[place],
        "edge_backlog_ms": by_site.mean(cells, number["queued"] * per_frame_ms)[place],
        "edge_calibration": np.full(grid.shape, np.nan),
    }
    if record.has("policy"):
        services = record.rows("policy", since_ms)
        cells, there = by_site.cells(services, "site")
        factor = np.where(there, services.numbers["edge_calibration"], np.nan)
        out["edge_calibration"] = by_site.mean(cells, factor)[place]
    return out


def _decided(grid: _Grid, rows: Rows, model: CostModel, usual_ms: Array) -> dict[str, Array]:
    """Return plan and deadline in force; a decision holds until the next one."""
    device = rows.places("device", grid.devices)
    period = np.maximum((rows.at_ms - grid.start_ms) // grid.period_ms, 0)
    ok = (device >= 0) & (period < grid.periods)
    plan = rows.places("plan", {str(plan): i for i, plan in enumerate(model.table.plans)}, NONE)
    plans, deadlines = np.full(grid.shape, np.nan), np.full(grid.shape, np.nan)
    # Rows are oldest first, so of several in one period the last assignment stays.
    plans[device[ok], period[ok]] = plan[ok]
    deadlines[device[ok], period[ok]] = rows.numbers["deadline_ms"][ok]
    deadlines = filled_forward(np.where(deadlines >= 1, deadlines, np.nan))
    return {
        "decided_plan": np.nan_to_num(filled_forward(plans), nan=NONE),
        "deadline_ms": np.where(np.isnan(deadlines), usual_ms[:, None], deadlines),
    }


def _measured(
    grid: _Grid,
    rows: Rows,
    model: CostModel,
    costs: list[DeviceRow],
    weights: Array,
    observed: Mapping[str, Array],
) -> dict[str, Array]:
    table, number = model.table, rows.numbers
    cells, there = grid.cells(rows)
    cell = cells[there]
    device = cell // grid.periods
    plan = rows.places("plan", {str(plan): i for i, plan in enumerate(table.plans)}, NONE)[there]
    outcome = rows.places("outcome", {"edge": 0, "device": 1, "fallback": 2, "dropped": 3})[there]
    figure = {name: values[there] for name, values in number.items()}
    metered = np.asarray(rows.places("energy_source", {"measured": 1}, 0)[there] == 1)
    uplink = filled_forward(observed["uplink_bps"]).ravel()[cell]
    idle_mw = np.array([row.idle_power_mw for row in costs])
    calibration = np.nan_to_num(filled_forward(observed["head_factor"]), nan=1.0)
    heavy = np.array([float(heavy_mj(table, row)) for row in costs])[:, None] * calibration
    busy_ms = np.nan_to_num(figure["head_ms"] + figure["encode_ms"])
    sent_bytes = np.nan_to_num(figure["sent_bytes"])
    energy_mj = with_idle(np.nan_to_num(figure["energy_mj"]), metered, idle_mw[device], busy_ms, sent_bytes, uplink)
    labelled = ~np.isnan(figure["truth"]) & ~np.isnan(figure["label"])
    right = np.where(labelled, figure["truth"] == figure["label"], np.nan)
    latency_ms = np.clip(np.nan_to_num(figure["latency_ms"]), *PLAUSIBLE_MS)
    frames = EndedFrames(plan, outcome == 2, outcome == 3, latency_ms, energy_mj, right)
    periods = grid.periods
    yard = Yardsticks(np.repeat(weights, periods, axis=0), observed["deadline_ms"].ravel(), heavy.ravel())
    found = measure(table, frames, cell, yard)

    predicted, tail = _predicted(model, costs, device, plan, figure, uplink, _at(observed["rtt_ms"], cell))
    as_planned = (outcome <= 1) & (outcome >= 0)
    remote = as_planned & (outcome == 0) & (tail > 0)
    ratio = np.where(as_planned & (predicted > 0), latency_ms / np.maximum(predicted, 1e-9), np.nan)
    tails = np.where(remote, figure["tail_ms"] / np.maximum(tail, 1e-9), np.nan)
    out: dict[str, Array] = {
        name: np.asarray(getattr(found, name), np.float64).reshape(grid.shape)
        for name in ("frames", "reward", "accuracy", "right", "latency_ms", "energy_mj", "late", "dropped")
    }
    out["plan"] = _most(plan, cell, len(table), grid.shape)
    out["latency_factor"], out["tail_factor"] = grid.mean(cell, ratio), grid.mean(cell, tails)
    return out


def _predicted(
    model: CostModel,
    costs: list[DeviceRow],
    device: Index,
    plan: Index,
    figure: Mapping[str, Array],
    uplink_bps: Array,
    rtt_ms: Array,
) -> tuple[Array, Array]:
    """Return per frame the profiles' latency for the wait it really had, and the tail in it; NaN where unknown."""
    known = np.array([row.known for row in costs])[device, plan] & model.edge.known[plan] & (plan != NONE)
    busy = np.array([row.head_ms + row.encode_ms for row in costs])[device, plan]
    tail = np.zeros(len(plan))
    for i in np.unique(plan[known & ~model.table.local[plan]]):
        mine = plan == i
        tail[mine] = np.interp(np.nan_to_num(figure["batch"][mine], nan=1.0), model.edge.batches, model.edge.tail_ms[i])
    sent = 8000 * np.nan_to_num(figure["sent_bytes"]) / uplink_bps + rtt_ms + model.edge.overhead_ms
    remote = sent + np.nan_to_num(figure["wait_ms"]) + tail
    total = busy + np.where(model.table.local[plan], 0.0, remote)
    return np.where(known, total, np.nan), np.where(known, tail, np.nan)


def _at(values: Array, cell: Index) -> Array:
    return np.asarray(filled_forward(values).ravel()[cell])


def _most(plan: Index, cell: Index, plans: int, shape: tuple[int, int]) -> Array:
    """Return the plan most frames of each cell ran under; ``NONE`` where there are none."""
    pair, count = np.unique(cell * (plans + 1) + plan + 1, return_counts=True)
    out = np.full(shape[0] * shape[1], float(NONE))
    rising = np.argsort(count, kind="stable")  # the last assignment stays: the most frequent one
    out[pair[rising] // (plans + 1)] = pair[rising] % (plans + 1) - 1
    return out.reshape(shape)
