"""The pilot's report as one JSON document: what was heard, how the arms did, what adopting brings. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from policy.interface import Weights
from tflite_models.profile import DeviceProfile as Profile
from tflite_models.profile import ProfileError
from tools.pilot.estimates import CONFIDENCE, LEAST_ROUNDS, METRICS, Figures, compare, figures
from tools.pilot.frames import AFTER, BEFORE, OUTCOMES, UNPLACED, WASH_OUT, Frames
from tools.pilot.hearing import Record
from tools.pilot.kpi import KpiSheet, PilotError, weights, weights_toml
from tools.pilot.profile import DeviceProfile
from tools.pilot.protocol import Protocol
from tools.pilot.returns import accuracy_key, frames_per_second, returns
from tools.pilot.schedule import ARMS, CURRENT
from wire.messages import Outcome
from wire.plan import OUTPUT, Plan


@dataclass(frozen=True)
class Knowledge:
    """What this machine knows beside what was heard."""

    accuracy_of: Mapping[Plan, float]
    """The catalog's, of plans it has measured."""
    profiles: Mapping[str, Profile]
    """By device."""


def document(
    record: Record, protocol: Protocol, known: Knowledge, sheet: KpiSheet | None, site: str, rng: np.random.Generator
) -> dict[str, Any]:
    """Return the whole report."""
    present = record.profile.present
    frames = record.book.placed(record.stretches)
    fixed = sheet.deadline_ms if sheet else None
    own = {name: fixed or device.deadline_ms for name, device in present.items()}
    deadlines = {name: deadline_ms for name, deadline_ms in own.items() if deadline_ms is not None}
    told = figures(frames, record.stretches, deadlines, known.accuracy_of)
    others = [arm for arm in ARMS if arm != CURRENT]
    compared = [one for arm in others for metric in METRICS if (one := compare(told, arm, metric.key, rng))]
    notes, silent = list(record.notes), sorted(record.profile.devices.keys() - present.keys())
    if silent:
        some = ", ".join(silent[:5]) + (" …" if len(silent) > 5 else "")
        notes.append(f"{len(silent)} devices that the broker knows sent no telemetry: {some}")
    out: dict[str, Any] = {
        "site": site,
        "complete": not record.interrupted,
        "interrupted": record.interrupted,
        "notes": notes,
        "policy": record.policy,
        "protocol": asdict(protocol) | {"arms": list(ARMS), "confidence": CONFIDENCE, "least_rounds": LEAST_ROUNDS},
        "devices": [_device(device) for device in present.values()],
        "frames": _accounts(frames, told) | {"unreadable_messages": record.unreadable},
        "blocks": _blocks(told),
        "arms": {arm: _arm(told, arm) for arm in ARMS},
        "compared": [asdict(one) | {"verdict": one.verdict} for one in compared],
        "kpi": None,
    }
    if sheet is not None:
        out["kpi"] = _money(sheet, told, frames, present, deadlines, known, rng)
    return out


def heaviest_mj(profile: Profile, versions: Sequence[str]) -> float | None:
    """Return the energy of the heaviest local plan by a profile, as the policy's cost model has it."""
    costs = []
    for version in versions:
        try:
            head = profile.head(version, OUTPUT)
        except ProfileError:
            continue
        costs.append(head.energy_mj + profile.idle_power_mw * head.head_ms_p50 / 1000)
    return max(costs, default=None)


def heaviest_seen_mj(frames: Frames, device: str) -> float | None:
    """Return the largest mean energy, by version, of the frames that a device planned to compute alone."""
    column = frames.columns
    mine = column["device"] == (frames.devices.index(device) if device in frames.devices else -1)
    mine &= column["outcome"] == OUTCOMES.index(Outcome.DEVICE)
    means = [
        float(column["energy_mj"][mine & (column["plan"] == place)].mean()) for place in np.unique(column["plan"][mine])
    ]
    return max(means, default=None)


# -- the parts ---------------------------------------------------------------------------------------------------------


def _device(device: DeviceProfile) -> dict[str, Any]:
    facts = device.capabilities
    spreads = {name: device.spread(name) for name in ("fps", "uplink_bps", "rtt_ms", "head_over_profile")}
    return {
        "name": device.name,
        "board": facts and facts.board,
        "device_class": facts and facts.device_class,
        "slowdown": facts and facts.slowdown,
        "runtime": facts and facts.runtime,
        "cores": facts and facts.cores,
        "versions": [version.name for version in facts.versions] if facts else [],
        "may_ship_input": facts and facts.may_ship_input,
        "energy_source": facts and str(facts.energy_source),
        "fps_set": facts and facts.fps,
        "deadline_ms": device.deadline_ms,
        "telemetry": device.telemetry,
        **{name: asdict(spread) if spread else None for name, spread in spreads.items()},
    }


def _accounts(frames: Frames, told: Figures) -> dict[str, Any]:
    """Say where every frame is; ``came`` is the sum of the five after it."""
    count = Counter(frames.place.tolist())
    whole = {stretch.block.number for stretch in told.stretches if stretch.is_whole}
    measured = {arm: int(told.frames[told.of(arm)].sum()) for arm in ARMS}
    return {
        "came": len(frames.place),
        "measured": sum(measured.values()),
        "wash_out": count[WASH_OUT],
        "interrupted_block": sum(frames_ for place, frames_ in count.items() if place >= 0 and place not in whole),
        "before_and_after": count[BEFORE] + count[AFTER],
        "without_a_clock": count[UNPLACED],
        "by_arm": measured,
        "never_came": int((~np.isin(frames.missing, (BEFORE, AFTER))).sum()) + frames.tail,
        "beyond_the_bound": frames.beyond,
    }


def _blocks(told: Figures) -> list[dict[str, Any]]:
    return [
        {
            "round": stretch.block.round,
            "arm": stretch.block.arm,
            "is_whole": stretch.is_whole,
            "seconds": stretch.until_s - stretch.from_s,
            "frames": int(told.frames[i]),
            **{metric.key: told.mean(metric.key, np.array([i])) for metric in METRICS},
        }
        for i, stretch in enumerate(told.stretches)
    ]


def _arm(told: Figures, arm: str) -> dict[str, Any]:
    blocks = told.of(arm)
    return {
        "blocks": len(blocks),
        "frames": int(told.frames[blocks].sum()),
        "outcomes": {str(outcome): int(told.outcomes[outcome][blocks].sum()) for outcome in Outcome},
        **{metric.key: told.mean(metric.key, blocks) for metric in METRICS},
    }


def _money(
    sheet: KpiSheet,
    told: Figures,
    frames: Frames,
    present: Mapping[str, DeviceProfile],
    deadlines: Mapping[str, float],
    known: Knowledge,
    rng: np.random.Generator,
) -> dict[str, Any]:
    assumed: list[str] = []
    chosen = _weights(sheet, frames, present, deadlines, known, assumed)
    devices = len({int(one) for one in frames.columns["device"][frames.place >= 0]})
    fps = frames_per_second(told, devices)
    per_device = sheet.operation.frames_per_device_month
    if per_device is None:
        hours = sheet.operation.hours_per_month
        per_device = 3600 * fps * hours
        assumed.append(f"{per_device:,.0f} frames per device and month: {fps:.3g}/s as measured, {hours:g} h")
    else:
        assumed.append(f"{per_device:,.0f} frames per device and month, by the sheet")
    assumed.append(f"{sheet.operation.devices:,} devices like the {devices} that were measured")
    key = accuracy_key(sheet, told)
    assumed.append(
        {
            None: "wrong answers are left out: neither labels nor the catalog tell them",
            "accuracy": "wrong answers as counted on the frames whose true label is known",
            "accuracy_catalog": "wrong answers by the catalog's accuracies of the plans that answered",
        }[key]
    )
    metered = [name for name, total in (("measured", "energy_measured_mj"), ("modelled", "energy_modelled_mj"))
               if told.count[total].sum() > 0]  # fmt: skip
    assumed.append(f"energy of the devices alone, {' and '.join(metered) or 'unknown'}; the edge's is in the sheet")
    assumed.append("the month is like the pilot: same load, links and scenes; nothing is discounted")
    worth = [returns(sheet, told, arm, sheet.operation.devices * per_device, rng) for arm in ARMS if arm != CURRENT]
    return {
        "sheet": asdict(sheet),
        "weights": {name: asdict(one) for name, one in chosen.items()},
        "weights_toml": weights_toml(chosen) if chosen else "",
        "frames_per_device_month": per_device,
        "assumptions": assumed,
        "returns": [asdict(one) for one in worth if one is not None],
    }


def _weights(
    sheet: KpiSheet,
    frames: Frames,
    present: Mapping[str, DeviceProfile],
    deadlines: Mapping[str, float],
    known: Knowledge,
    assumed: list[str],
) -> dict[str, Weights]:
    """Return each device's weights; what they rest on goes to ``assumed``."""
    accuracies = list(known.accuracy_of.values())
    span = max(accuracies) - min(accuracies) if accuracies else 0.0
    assumed.append(f"accuracies of the catalog's plans span {100 * span:.1f} points")
    out: dict[str, Weights] = {}
    seen, without = [], []
    for name, device in present.items():
        profile, facts = known.profiles.get(name), device.capabilities
        heavy = heaviest_mj(profile, [v.name for v in facts.versions]) if profile and facts else None
        if heavy is None:
            heavy = heaviest_seen_mj(frames, name)
            seen += [name] if heavy is not None else []
        if heavy is None or name not in deadlines:
            without.append(name)
            continue
        try:
            out[name] = weights(sheet.worth, span, deadlines[name], heavy)
        except PilotError as error:
            assumed.append(f"no weights: {error}")
            return {}
    if seen:
        assumed.append(f"no profile of {', '.join(seen[:5])}: energy of the heaviest version is the largest seen there")
    if without:
        assumed.append(f"no weights for {', '.join(without[:5])}: neither a profile nor a frame of its own is known")
    return out
