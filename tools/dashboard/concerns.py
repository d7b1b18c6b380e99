"""What is wrong with a site, in words, worst first: pure rules over the dashboard's memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tools.dashboard.device_memory import MINUTE_S, DeviceMemory
from tools.dashboard.memory import M, ServerMemory, SiteMemory
from wire.messages import DeviceState

SILENT_S = 20.0
"""A member that is up says something every few seconds."""
FALLBACK_SHARE = 0.1
"""Of the frames of the last minute."""
DROPPED_SHARE = 0.02
LEAST_FRAMES = 10
"""In the last minute, before shares mean anything."""
OPEN_BEYOND = 5
"""Frames that may stay open beyond those a device says are under way, before they count as missing."""
BATTERY_LOW = 0.15
BACKLOG_S = 60.0
"""A metrics server that takes what it is given keeps the oldest waiting point younger than this."""
BEHIND_S = 3.0
FULL = 0.95
"""Utilisation of a worker above which waits grow without bound."""
NAMED = 3
"""Devices that a sentence names; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Concern:
    """One thing that is wrong."""

    grave: bool
    """True: results are lost or nobody decides; False: worth a look."""
    text: str
    link: str = ""
    """The page that tells more."""


@dataclass(frozen=True, slots=True)
class LinkHealth:
    """Our own connection to the broker."""

    connected: bool
    since_s: float
    """When that began."""
    reason: str = ""


def device_trouble(device: DeviceMemory, health: LinkHealth, now_s: float) -> tuple[bool, str]:
    """Return (grave, words) of what is wrong with one device; empty words: nothing."""
    state = device.state
    if state is DeviceState.LOST:
        return True, "lost"
    if state in (DeviceState.STOPPED, DeviceState.SLEEPING):
        return False, ""
    heard_s = max(device.known_s, health.since_s, device.seen_s or 0.0)
    if health.connected and now_s - heard_s > SILENT_S:
        return True, "silent"
    counts = device.series.last(now_s, MINUTE_S).sum(axis=0)
    fallback, dropped, answered = (
        float(counts[device.series.columns[name]]) for name in ("fallback", "dropped", "answered")
    )
    frames = answered + dropped
    if frames >= LEAST_FRAMES and dropped > DROPPED_SHARE * frames:
        return True, f"{100 * dropped / frames:.0f} % dropped"
    if frames >= LEAST_FRAMES and fallback > FALLBACK_SHARE * frames:
        return False, f"{100 * fallback / frames:.0f} % fallback"
    if missing := missing_frames(device, now_s):
        return False, f"{missing} frames untold"
    battery = device.telemetry.battery_share if device.telemetry else None
    if battery is not None and battery < BATTERY_LOW:
        return False, f"battery {100 * battery:.0f} %"
    return False, ""


def missing_frames(device: DeviceMemory, now_s: float) -> int:
    """Return the frames that stayed without an outcome for a minute: lost, or waiting in the device's ledger."""
    table = device.series.last(now_s, MINUTE_S + 1)
    open_least = device.series.column(table, "open_least")
    known = open_least[~np.isnan(open_least)]
    if len(known) < len(open_least) // 2:
        return 0
    under_way = device.telemetry.in_flight + device.telemetry.queued if device.telemetry else 0
    least = int(known.min())
    return least if least > under_way + OPEN_BEYOND else 0


def concerns(memory: SiteMemory, health: LinkHealth, now_s: float) -> list[Concern]:
    """Return everything that is wrong, grave things first."""
    if not health.connected and not memory.devices:
        return [Concern(True, f"no connection to the broker: {health.reason}")]
    found: list[Concern] = []
    if not health.connected:
        found.append(Concern(True, f"the broker is away ({health.reason}): everything below is of before"))
    found += _devices(memory, health, now_s)
    found += _workers(memory, health, now_s)
    found += _policies(memory, health, now_s)
    found += _recorders(memory, health, now_s)
    found += _ourselves(memory)
    return sorted(found, key=lambda concern: not concern.grave)


def _devices(memory: SiteMemory, health: LinkHealth, now_s: float) -> Iterator[Concern]:
    kinds: dict[tuple[bool, str], list[str]] = {}
    for device in memory.devices.values():
        grave, words = device_trouble(device, health, now_s)
        if words:
            kinds.setdefault((grave, _kind(words)), []).append(device.name)
    for (grave, kind), names in kinds.items():
        link = f"/device/{names[0]}" if len(names) == 1 else "/"
        yield Concern(grave, f"{_count(len(names), 'device')} {kind}: {_listed(names)}", link)


def _kind(words: str) -> str:
    """Return what is common to a kind of trouble, without its figure."""
    for ending, kind in (
        ("dropped", "dropping frames"),
        ("fallback", "falling back"),
        ("untold", "with frames whose outcome nobody told"),
    ):
        if words.endswith(ending):
            return kind
    return "low on battery" if words.startswith("battery") else words


def _workers(memory: SiteMemory, health: LinkHealth, now_s: float) -> Iterator[Concern]:
    alive = 0
    for worker in memory.workers.values():
        state = worker.state.state if worker.state else DeviceState.READY
        load = worker.last
        if state is DeviceState.LOST:
            yield Concern(True, f"worker {worker.name} is lost", "/edge")
        elif state is not DeviceState.STOPPED and _silent(worker, health, now_s):
            yield Concern(True, f"worker {worker.name} is silent", "/edge")
        elif state is DeviceState.READY:
            alive += 1
            if load is not None and load.busy:
                yield Concern(
                    True, f"worker {worker.name} turned away {load.busy:,} frames: its queue is full", "/edge"
                )
            elif load is not None and load.utilisation > FULL:
                yield Concern(False, f"worker {worker.name} is {100 * load.utilisation:.0f} % busy", "/edge")
    if memory.devices and not alive and health.connected and now_s - health.since_s > SILENT_S:
        yield Concern(True, "no edge worker is running", "/edge")


def _policies(memory: SiteMemory, health: LinkHealth, now_s: float) -> Iterator[Concern]:
    silent, speaking = _parted(memory.policies.values(), health, now_s)
    if not memory.policies and memory.devices and health.connected and now_s - health.since_s > SILENT_S:
        yield Concern(False, "no decision service is heard: devices keep their last plans", "/policy")
    for name in silent:
        yield Concern(True, f"decision service {name} is silent: devices keep their last plans", "/policy")
    for told in speaking:
        rounds = sum(told.fallback.values())
        if rounds:
            why = max(told.fallback, key=lambda reason: told.fallback[reason])
            yield Concern(False, f"{_count(rounds, 'device round')} decided by the fallback: {why[:120]}", "/policy")
        if told.collapsed:
            yield Concern(False, told.collapse[:200] or "nearly all devices follow one plan", "/policy")
        for problem in told.problems[:NAMED]:
            yield Concern(False, f"policy: {problem[:200]}", "/policy")


def _recorders(memory: SiteMemory, health: LinkHealth, now_s: float) -> Iterator[Concern]:
    silent, speaking = _parted(memory.recorders.values(), health, now_s)
    if not memory.recorders and memory.devices and health.connected and now_s - health.since_s > SILENT_S:
        yield Concern(True, "no recorder is heard: outcomes pile up on the devices", "/edge")
    for name in silent:
        yield Concern(True, f"recorder {name} is silent: outcomes pile up on the devices", "/edge")
    for told in speaking:
        if told.server and not told.reachable:
            why = told.problem[:200] or "no reason given"
            yield Concern(True, f"metrics server not reached, {told.waiting:,} points wait: {why}", "/edge")
        elif told.oldest_s > BACKLOG_S:
            yield Concern(False, f"{told.waiting:,} points wait for the metrics server", "/edge")
        if told.dead:
            yield Concern(False, f"{_count(told.dead, 'point')} refused for good by the metrics server", "/edge")


def _parted(servers: Iterable[ServerMemory[M]], health: LinkHealth, now_s: float) -> tuple[list[str], list[M]]:
    """Return the name of the one that fell silent last, if all have, and the last messages of those that speak.

    One that is silent beside another that speaks was replaced by it.
    """
    everyone = list(servers)
    speaking = [one.last for one in everyone if one.last is not None and not _silent(one, health, now_s)]
    if speaking or not everyone or not health.connected:
        return [], speaking
    return [max(everyone, key=lambda one: one.seen_s or 0.0).name], []


def _ourselves(memory: SiteMemory) -> Iterator[Concern]:
    counters = memory.counters
    if memory.behind_s > BEHIND_S:
        yield Concern(False, f"this page is {memory.behind_s:.0f} s behind: this machine is too slow for it")
    if unreadable := counters["unreadable"]:
        yield Concern(False, f"{_count(unreadable, 'message')} could not be read: does somebody publish rubbish?")
    if refused := counters["inbox_refused"]:
        yield Concern(False, f"{_count(refused, 'message')} not taken in: this machine is too slow for the page")
    if beyond := counters["devices_beyond_bound"] + counters["servers_beyond_bound"]:
        yield Concern(False, f"{_count(beyond, 'message')} of more members than the page shows")


def _silent(server: ServerMemory[Any], health: LinkHealth, now_s: float) -> bool:
    return health.connected and now_s - max(health.since_s, server.seen_s or 0.0) > SILENT_S


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(sorted(names)[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
