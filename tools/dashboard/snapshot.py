"""One picture of the fleet per second for every visitor: rows as they are shown, totals, and what is wrong. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tools.dashboard.concerns import Concern, LinkHealth, concerns, device_trouble
from tools.dashboard.device_memory import MINUTE_S, DeviceMemory
from tools.dashboard.memory import SiteMemory
from tools.dashboard.series import sane
from wire.messages import Outcome

Row = dict[str, Any]
"""A device as the table shows it: rounded to what is read, so that a row that looks the same is not sent again."""
FRESH_S = 5.0


@dataclass(frozen=True, slots=True)
class Totals:
    """The fleet over the last minute; counts are of now. ``None``: no such frames."""

    devices: int
    states: Mapping[str, int]
    frames_per_s: float
    outcomes: Mapping[str, int]
    latency_ms_p50: float | None
    latency_ms_p95: float | None
    measured_mj: float | None
    """Energy per frame of devices with a meter."""
    modelled_mj: float | None
    sent_bps: float
    """Of activations, in bits per second."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What every page draws from."""

    number: int
    now_s: float
    health: LinkHealth
    rows: Mapping[str, Row]
    changed: Mapping[str, int]
    """Of each row: the number of the snapshot in which it last looked different."""
    totals: Totals
    concerns: tuple[Concern, ...]


@dataclass(slots=True)
class Photographer:
    """Makes snapshots, and knows what has changed since the one before."""

    _number: int = 0
    _rows: dict[str, Row] = field(default_factory=dict)
    _changed: dict[str, int] = field(default_factory=dict)

    def take(self, memory: SiteMemory, health: LinkHealth, now_s: float) -> Snapshot:
        """Return the picture of this moment."""
        self._number += 1
        rows = {name: device_row(device, health, now_s) for name, device in sorted(memory.devices.items())}
        for name, row in rows.items():
            if self._rows.get(name) != row:
                self._changed[name] = self._number
        for name in self._changed.keys() - rows.keys():
            del self._changed[name]
        self._rows = rows
        return Snapshot(
            number=self._number,
            now_s=now_s,
            health=health,
            rows=rows,
            changed=dict(self._changed),
            totals=fleet_totals(memory, now_s),
            concerns=tuple(concerns(memory, health, now_s)),
        )


def device_row(device: DeviceMemory, health: LinkHealth, now_s: float) -> Row:
    """Return a device as the table shows it; figures are over the last minute."""
    told, series = device.telemetry, device.series
    sums = series.last(now_s, MINUTE_S).sum(axis=0)
    total = {name: float(sums[series.columns[name]]) for name in ("measured_mj", "measured", "modelled_mj", "modelled")}
    mix = [int(sums[series.columns[outcome.value]]) for outcome in Outcome]
    latencies = [latency for at_s, latency in device.recent if at_s > now_s - MINUTE_S]
    grave, trouble = device_trouble(device, health, now_s)
    source = "measured" if total["measured"] else "modelled" if total["modelled"] else None
    return {
        "name": device.name,
        "state": device.state.value if device.state else "unknown",
        "trouble": trouble,
        "rank": 2 * grave + bool(trouble),
        "uplink": _rounded(told.uplink_bps / 1e6 if told and told.uplink_bps is not None else None),
        "rtt": _rounded(told.rtt_ms if told else None),
        "plan": str(told.plan)[:120] if told else (device.decisions[-1].plan[:120] if device.decisions else None),
        "mix": mix,
        "fallback": _share(mix[2], sum(mix)),
        "dropped": mix[3],
        "fps": _rounded(told.fps if told else None),
        "p50": _rounded(percentile(latencies, 0.50)),
        "p95": _rounded(percentile(latencies, 0.95)),
        "battery": None if told is None or told.battery_share is None else round(100 * sane(told.battery_share)),
        "energy": _rounded(total[f"{source}_mj"] / total[source] if source else None),
        "source": source,
        "seen": seen_words(device, now_s),
    }


def fleet_totals(memory: SiteMemory, now_s: float) -> Totals:
    """Return the figures of the fleet."""
    states: Counter[str] = Counter()
    sums: dict[str, float] = defaultdict(float)
    for device in memory.devices.values():
        states[device.state.value if device.state else "unknown"] += 1
        found = device.series.last(now_s, MINUTE_S).sum(axis=0)
        for name in (*Outcome, "sent_bytes", "measured_mj", "measured", "modelled_mj", "modelled"):
            sums[str(name)] += float(found[device.series.columns[str(name)]])
    latencies = [latency for at_s, latency in memory.recent if at_s > now_s - MINUTE_S]
    outcomes = {outcome.value: int(sums[outcome.value]) for outcome in Outcome}
    return Totals(
        devices=len(memory.devices),
        states=dict(states),
        frames_per_s=sum(outcomes.values()) / MINUTE_S,
        outcomes=outcomes,
        latency_ms_p50=percentile(latencies, 0.50),
        latency_ms_p95=percentile(latencies, 0.95),
        measured_mj=sums["measured_mj"] / sums["measured"] if sums["measured"] else None,
        modelled_mj=sums["modelled_mj"] / sums["modelled"] if sums["modelled"] else None,
        sent_bps=8 * sums["sent_bytes"] / MINUTE_S,
    )


def percentile(values: Iterable[float], share: float) -> float | None:
    """Return the nearest-rank percentile, as the recorder's store gives it."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * share // 1) - 1)] if ordered else None


def seen_words(device: DeviceMemory, now_s: float) -> str:
    """Say how long ago a device last spoke; coarse, so that it seldom changes."""
    if device.seen_s is None:
        return "–"
    age_s = now_s - device.seen_s
    if age_s < FRESH_S:
        return "now"
    return (
        f"{age_s // 5 * 5:.0f} s"
        if age_s < 90
        else f"{age_s / 60:.0f} min"
        if age_s < 5400
        else f"{age_s / 3600:.0f} h"
    )


def _rounded(value: float | None) -> float | None:
    """Round to two significant digits below 10, to whole numbers above."""
    if value is None:
        return None
    return float(f"{value:.2g}") if abs(value) < 10 else float(round(value))


def _share(part: int, whole: int) -> int | None:
    return round(100 * part / whole) if whole else None
