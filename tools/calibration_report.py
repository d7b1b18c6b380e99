"""Predicted beside measured: the figures of each plan, how far they are apart, and how they are printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from policy.interface import Prediction
from tflite_models.profile import DeviceProfile, EdgeProfile
from tools.calibration_site import PlanRun
from wire.messages import Outcome

PARTS = ("own", "head", "encode", "network", "wait", "tail")
"""A frame's latency in the order it happens: the client's own work, head, codec, way there and back, queue, tail."""


@dataclass(frozen=True, slots=True)
class PlanFigures:
    """One plan; times in ms, energy in mJ. ``None``: no frame ended as planned."""

    plan: str
    predicted_ms: float
    predicted_p95_ms: float
    predicted_energy_mj: float
    calibration: float
    """Head time over the profile's, as the device last reported it under the plan before: in the prediction."""
    predicted_parts: Mapping[str, float]
    measured_ms: float | None
    """Median of the frames that ended as planned; the parts are medians of their own, so they need not add up."""
    measured_p95_ms: float | None
    measured_energy_mj: float | None
    measured_parts: Mapping[str, float]
    outcomes: Mapping[str, int]
    """Every frame counted by how it ended; those that fell back or were dropped are in no time."""

    @property
    def error(self) -> float | None:
        """Predicted over measured, less 1; negative: the model promised less than it took."""
        return None if self.measured_ms is None else self.predicted_ms / self.measured_ms - 1


def figures(run: PlanRun, predicted: Prediction, board: DeviceProfile, edge: EdgeProfile) -> PlanFigures:
    """Lay a plan's frames beside its prediction, whose parts include what the profiles say of client and worker."""
    remote = not run.plan.is_local
    planned = [line for line in run.lines if line.outcome is (Outcome.EDGE if remote else Outcome.DEVICE)]
    outcomes = Counter({outcome.value: 0 for outcome in Outcome})
    outcomes.update(line.outcome.value for line in run.lines)
    rows = [
        {
            "own": line.latency_ms - line.head_ms - line.encode_ms - line.network_ms - line.wait_ms - line.tail_ms,
            **{part: float(getattr(line, f"{part}_ms")) for part in PARTS[1:]},
        }
        for line in planned
    ]
    latencies = [line.latency_ms for line in planned]
    return PlanFigures(
        plan=str(run.plan),
        predicted_ms=predicted.latency_ms,
        predicted_p95_ms=predicted.latency_p95_ms,
        predicted_energy_mj=predicted.energy_mj,
        calibration=run.before.head_ms_per_plan_ms or 1.0,
        predicted_parts={
            "own": board.frame_overhead_ms,
            "head": predicted.head_ms,
            "encode": predicted.encode_ms,
            "network": predicted.tx_ms + predicted.rtt_ms + edge.overhead_ms if remote else 0.0,
            "wait": predicted.wait_ms,
            "tail": predicted.tail_ms,
        },
        measured_ms=_percentile(latencies, 50),
        measured_p95_ms=_percentile(latencies, 95),
        measured_energy_mj=float(np.mean([line.energy_mj for line in planned])) if planned else None,
        measured_parts={part: float(np.median([row[part] for row in rows])) for part in PARTS} if rows else {},
        outcomes=dict(outcomes),
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """How far predictions are from what was measured, over all plans with a measured time."""

    plans: int
    error_median: float | None
    """Of the relative errors without their sign; so is the next."""
    error_p90: float | None
    bias_median: float | None
    """With the sign: above 0 the model promises too much time, below 0 too little."""
    rank_correlation: float | None
    """Spearman's; 1: the model puts the plans in the order of their measured times. Needs two plans."""
    energy_error_median: float | None


def summarise_plans(rows: Sequence[PlanFigures]) -> Summary:
    """Return the summary; figures that no plan gives are ``None``."""
    errors = [row.error for row in rows if row.error is not None]
    pairs = [(row.predicted_ms, row.measured_ms) for row in rows if row.measured_ms is not None]
    energies = [abs(r.predicted_energy_mj / r.measured_energy_mj - 1) for r in rows if r.measured_energy_mj]
    sizes = [abs(error) for error in errors]
    return Summary(
        plans=len(errors),
        error_median=_percentile(sizes, 50),
        error_p90=_percentile(sizes, 90),
        bias_median=_percentile(errors, 50),
        rank_correlation=rank_correlation(pairs) if len(pairs) > 1 else None,
        energy_error_median=_percentile(energies, 50),
    )


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return Spearman's coefficient, equal values sharing their mean rank; ``None`` where one side is all equal."""
    ranks = [_ranks([pair[side] for pair in pairs]) for side in (0, 1)]
    if min(float(np.ptp(rank)) for rank in ranks) == 0:
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], np.float64)


def _percentile(values: Sequence[float], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if values else None


def document(
    conditions: Mapping[str, Any], rows: Sequence[PlanFigures], summary: Summary, account: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything as one JSON document."""
    plans = [{**asdict(row), "error": row.error} for row in rows]
    frames = {key: account[key] for key in ("frames_captured", "outcomes", "reasons", "unaccounted")}
    return {"conditions": dict(conditions), "summary": asdict(summary), "plans": plans, "frames": frames}


def show(told: Mapping[str, Any], rows: Sequence[PlanFigures]) -> None:
    """Print conditions, both tables and the summary."""
    from tools.output import console, print_table

    paper = console()
    paper.print(_words(told["conditions"]), soft_wrap=True)
    print_table(
        "latency of a frame: predicted by the cost model, measured through the broker",
        [
            "plan", "factor", "predicted ms", "measured", "error", "p95 pred.", "p95 meas.", "mJ pred.", "mJ meas.",
            "planned", "fallback", "dropped",
        ],
        [
            [
                row.plan, round(row.calibration, 2), row.predicted_ms, row.measured_ms, _share(row.error),
                row.predicted_p95_ms, row.measured_p95_ms, row.predicted_energy_mj, row.measured_energy_mj,
                row.outcomes["edge"] + row.outcomes["device"], row.outcomes["fallback"], row.outcomes["dropped"],
            ]
            for row in rows
        ],
    )  # fmt: skip
    print_table(
        "where the time goes, ms: predicted | measured (medians)",
        ["plan", *PARTS],
        [
            [row.plan, *(f"{row.predicted_parts[p]:.2f} | {_ms(row.measured_parts.get(p))}" for p in PARTS)]
            for row in rows
        ],
    )
    summary, frames = told["summary"], told["frames"]
    correlation = summary["rank_correlation"]
    paper.print(
        f"relative error over {summary['plans']} plans: median {_share(summary['error_median'], sign='')}, "
        f"90th percentile {_share(summary['error_p90'], sign='')}, bias {_share(summary['bias_median'])}; "
        f"rank correlation {'–' if correlation is None else f'{correlation:.3f}'}; "
        f"energy: median {_share(summary['energy_error_median'], sign='')}",
        soft_wrap=True,
    )
    counts = ", ".join(f"{count} {name}" for name, count in (frames["outcomes"] | frames["reasons"]).items())
    paper.print(
        f"all {frames['frames_captured']} frames: {counts}, {frames['unaccounted']} unaccounted", soft_wrap=True
    )


def _share(value: float | None, sign: str = "+") -> str:
    return "–" if value is None else f"{100 * value:{sign}.1f} %"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _words(now: Mapping[str, Any]) -> str:
    board = f"a board emulated by slowing this machine {now['slowdown']:g}x" if now["slowdown"] > 1 else "this machine"
    link = "loopback as it is"
    if now["emulated_uplink_bps"] is not None:
        link = f"an emulated {now['emulated_uplink_bps'] / 1e6:g} Mbit/s with {now['emulated_delay_ms']:g} ms each way"
    return (
        f"{board}, {now['fps']:g} frames/s, over {link}, through {now['broker']}; the device believed in "
        f"{now['believed_uplink_bps'] / 1e6:.3g} Mbit/s and {now['believed_rtt_ms']:.2f} ms of round trip; "
        f"energy {now['energy_source']}"
    )
