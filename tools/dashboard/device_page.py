"""One device in depth: its plan against its bandwidth, where time and energy go, and what it was told."""

from __future__ import annotations

import time
from datetime import datetime

from markupsafe import Markup
from nicegui import ui

from tools.dashboard import charts
from tools.dashboard.charts import Clock
from tools.dashboard.concerns import device_trouble
from tools.dashboard.device_memory import DeviceMemory
from tools.dashboard.drawing import CHARTS_EVERY, card, chart, redraw
from tools.dashboard.feed import Feed
from tools.dashboard.markup import counters, facts, table, unit
from tools.dashboard.snapshot import Snapshot, seen_words
from wire.messages import Capabilities


class DevicePage:
    """A device need not be known yet: it appears when it speaks."""

    def __init__(self, feed: Feed, name: str) -> None:
        self._feed = feed
        self._name = name
        self._head = ui.html("", sanitize=False)
        self._body = ui.element("div")
        with self._body:
            with ui.element("div").classes("sf-two"):
                with card("Plan against bandwidth", "uplink as the device measures it, Mbit/s"):
                    self._plan = chart(tall=True)
                with card("Where a frame's time goes", "means per answered frame, ms"):
                    self._latency = chart(tall=True)
            with ui.element("div").classes("sf-two"):
                with card("How frames ended", "frames per second, by when they were captured"):
                    self._outcomes = chart()
                with card("Energy", "mJ per frame; battery in % where there is one"):
                    self._energy = chart()
            with card("Last decisions", "newest first"):
                self._decisions = ui.html("", sanitize=False)
            with ui.element("div").classes("sf-two"):
                with card("Now"):
                    self._now = ui.html("", sanitize=False)
                with card("The board"):
                    self._board = ui.html("", sanitize=False)
            with ui.element("div").classes("sf-two"):
                with card("Why frames fell back or were dropped", "since this dashboard began to listen"):
                    self._reasons = ui.html("", sanitize=False)
                with card("Counters", "of the device's present session"):
                    self._counters = ui.html("", sanitize=False)

    def draw(self, snapshot: Snapshot) -> None:
        """Show the picture of this moment."""
        with self._feed.reading() as memory:
            device = memory.devices.get(self._name)
            self._body.set_visibility(device is not None)
            if device is None:
                self._head.content = Markup("<h1>{}</h1><p>No device of this name has been heard of yet.</p>").format(
                    self._name
                )
                return
            clock = Clock(snapshot.now_s, time.time(), self._feed.begun_s)
            self._texts(device, snapshot, clock)
            if snapshot.number % CHARTS_EVERY == 0 or not self._plan.options.get("series"):
                redraw(self._plan, charts.bandwidth_and_plan(device, clock))
                redraw(self._latency, charts.latency(device, clock))
                redraw(self._outcomes, charts.outcomes(device, clock))
                redraw(self._energy, charts.energy(device, clock))

    def _texts(self, device: DeviceMemory, snapshot: Snapshot, clock: Clock) -> None:
        _, trouble = device_trouble(device, snapshot.health, snapshot.now_s)
        state = device.state.value if device.state else "unknown"
        self._head.content = Markup(
            '<h1>{} <span class="sf-state-{}">{}</span> <span class="bad">{}</span></h1>'
        ).format(device.name, state, state, trouble if trouble != state else "")
        self._decisions.content = table(
            ("time", "rev", "plan", "by", "reason"),
            (
                (_clock_words(clock.ms(told.at_s)), told.rev, told.plan, told.policy, told.reason)
                for told in reversed(device.decisions)
            ),
            "No decision has been heard of.",
        )
        self._now.content = _now(device, snapshot)
        self._board.content = _board(device.capabilities)
        self._reasons.content = counters(device.reasons, "None did.")
        told = device.telemetry
        self._counters.content = counters(told.counters if told else {}, "All of them are 0.")


def _now(device: DeviceMemory, snapshot: Snapshot) -> Markup:
    told, row = device.telemetry, snapshot.rows.get(device.name, {})
    counted = ", ".join(f"{n:,} {outcome}" for outcome, n in device.outcomes.items())
    rows: list[tuple[str, object]] = [
        ("last heard", seen_words(device, snapshot.now_s)),
        ("said with its state", device.state_reason or None),
        ("outcomes told since this dashboard began", counted or "none"),
        ("frames still open", f"{device.open_frames:,}"),
        ("told too late for the charts", f"{device.old_frames:,} frames" if device.old_frames else None),
    ]
    if told is not None:
        decided = device.decisions[-1] if device.decisions else None
        behind = decided is not None and decided.rev != told.decision_rev
        rows += [
            ("plan in force", str(told.plan)[:200]),
            ("decided, not yet followed", decided.plan if decided and behind else None),
            ("uplink", unit(told.uplink_bps / 1e6, "Mbit/s") if told.uplink_bps is not None else "not known"),
            ("round trip", unit(told.rtt_ms, "ms")),
            ("captured", unit(told.fps, "frames/s")),
            ("under way, queued", f"{told.in_flight}, {told.queued}"),
            ("latency p50 / p95", f"{_dash(row.get('p50'))} / {_dash(row.get('p95'))} ms"),
            ("head against its profile", unit(told.head_ms_per_plan_ms, "times")),
            ("processor", None if told.cpu_share is None else f"{told.cpu_share:.0%}"),
            ("memory", unit(told.memory_mb, "MB")),
            ("temperature", unit(told.temperature_c, "°C")),
            ("battery", None if told.battery_share is None else f"{told.battery_share:.0%}"),
            ("power", None if told.power_mw is None else f"{told.power_mw:,.0f} mW ({told.energy_source})"),
        ]
    return facts(rows)


def _board(told: Capabilities | None) -> Markup:
    if told is None:
        return Markup("<p>It has not introduced itself.</p>")
    about = facts(
        [
            ("board", told.board),
            ("device class", told.device_class),
            ("emulated", f"every head takes {told.slowdown:g} times its real time" if told.slowdown > 1 else None),
            ("runtime", told.runtime),
            ("client", told.client_version),
            ("cores, memory", f"{told.cores}, {told.memory_mb:,} MB"),
            ("camera", f"{told.fps:g} frames/s" if told.fps else "as fast as possible"),
            ("deadline", f"{told.deadline_ms:g} ms"),
            ("picture may leave it", "yes" if told.may_ship_input else "no"),
            ("energy is", told.energy_source.value),
            ("codecs", ", ".join(told.codecs[:40])),
            ("tags", ", ".join(told.tags[:40]) or None),
        ]
    )
    hashed = Markup('<span class="mono" title="{0}">{1}</span>')
    versions = table(
        ("version", "sha256"), ((one.name, hashed.format(one.sha256, one.sha256[:16])) for one in told.versions[:40])
    )
    return about + Markup("<br>") + versions


def _dash(value: object) -> str:
    return "–" if value is None else f"{value:g}"


def _clock_words(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%H:%M:%S")
