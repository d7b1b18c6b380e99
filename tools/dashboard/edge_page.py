"""The edge: what waits at each worker, and what the recorder has stored and still owes the metrics server."""

from __future__ import annotations

import time
from typing import Any

from markupsafe import Markup
from nicegui import ui

from tools.dashboard import charts
from tools.dashboard.charts import MOST_LINES, Clock
from tools.dashboard.drawing import CHARTS_EVERY, card, chart, redraw
from tools.dashboard.feed import Feed
from tools.dashboard.markup import counters, facts, size, table
from tools.dashboard.memory import ServerMemory, SiteMemory, per_second
from tools.dashboard.snapshot import Snapshot
from wire.messages import RecorderState, WorkerLoad

WORKER_CHARTS = (
    ("Queue", "activations waiting", "queued", 1.0),
    ("Batch size", "mean frames per batch", "batch_mean", 1.0),
    ("Utilisation", "busy over available time, %", "utilisation", 100.0),
    ("Wait", "arrival to the start of the batch, ms", "wait_ms_mean", 1.0),
)


class EdgePage:
    """Workers above, recorders below."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        ui.html("Edge", sanitize=False, tag="h1")
        with card("Workers"):
            self._workers = ui.html("", sanitize=False)
        with ui.element("div").classes("sf-four"):
            self._charts = []
            for title, about, column, scale in WORKER_CHARTS:
                with card(title, about):
                    self._charts.append((chart(), column, scale))
        with ui.element("div").classes("sf-two"):
            with card("Time per frame", "by version and cut, ms"):
                self._service = ui.html("", sanitize=False)
            with card("Workers' counters", "refusals, drops and errors since each began"):
                self._counters = ui.html("", sanitize=False)
        with card("Recorder and metrics server"):
            self._recorders = ui.html("", sanitize=False)
        self._stored = ui.element("div").classes("sf-two")
        with self._stored:
            with card("Backlog", "points not yet on the metrics server"):
                self._backlog = chart()
            with card("Points", "stored per second"):
                self._points = chart()

    def draw(self, snapshot: Snapshot) -> None:
        """Show the picture of this moment."""
        with self._feed.reading() as memory:
            self._texts(memory)
            if snapshot.number % CHARTS_EVERY == 0 or not self._backlog.options:
                clock = Clock(snapshot.now_s, time.time(), self._feed.begun_s)
                workers = {name: one.series for name, one in memory.workers.items()}
                for shown, column, scale in self._charts:
                    redraw(shown, charts.gauges(workers, column, clock, scale))
                recorders = {name: one.series for name, one in memory.recorders.items()}
                redraw(self._backlog, charts.gauges(recorders, "waiting", clock))
                redraw(self._points, charts.gauges(recorders, "points_per_s", clock))

    def _texts(self, memory: SiteMemory) -> None:
        workers = sorted(memory.workers.values(), key=lambda one: one.name)
        self._workers.content = table(
            (
                "worker",
                "state",
                "runtime",
                "threads",
                "queue",
                "arrived/s",
                "served/s",
                "turned away",
                "busy %",
                "batch",
                "wait ms",
            ),
            (_worker_row(one) for one in workers),
            "No worker has been heard of yet.",
        )
        if len(workers) > MOST_LINES:
            self._workers.content += Markup("<p>The charts show the first {}.</p>").format(MOST_LINES)  # fmt: skip
        loads = {one.name: one.last for one in workers if one.last is not None}
        names = sorted({name for load in loads.values() for name in load.service_ms})[:40]
        self._service.content = table(
            ("version/cut", *list(loads)[:8]),
            ((name[:80], *(load.service_ms.get(name) for load in list(loads.values())[:8])) for name in names),
            "Nothing was served in the last period.",
        )
        self._counters.content = table(
            ("worker", "what", "count"),
            ((name, what, n) for name, load in loads.items() for what, n in sorted(load.counters.items())[:40] if n),
            "All of them are 0.",
        )
        recorders = [(one.name, one.last) for one in memory.recorders.values() if one.last is not None]
        self._stored.set_visibility(bool(recorders))
        self._recorders.content = (
            Markup("").join(_recorder(name, told) for name, told in recorders)
            if recorders
            else "<p>No recorder has been heard of yet.</p>"
        )


def _worker_row(worker: ServerMemory[WorkerLoad]) -> tuple[Any, ...]:
    state, load = worker.state, worker.last
    shown = (
        Markup('<span class="sf-state-{0}">{0}</span>').format(state.state.value) if state else "unknown",
        state.runtime[:60] if state else None,
        state.threads if state else None,
    )
    if load is None:
        return worker.name, *shown, None, None, None, None, None, None, None
    return (
        worker.name,
        *shown,
        load.queued,
        per_second(load.arrived, load.period_ms),
        per_second(load.served, load.period_ms),
        Markup('<span class="bad">{:,}</span>').format(load.busy) if load.busy else 0,
        100 * load.utilisation,
        load.batch_mean,
        load.wait_ms_mean,
    )


def _recorder(name: str, told: RecorderState) -> Markup:
    if not told.server:
        server: object = "none is configured: points stay in the recorder's store"
    elif told.reachable:
        server = Markup('{} <span class="sf-state-ready">reachable</span>').format(told.server)
    else:
        server = Markup('{} <span class="bad">not reached: {}</span>').format(
            told.server, told.problem[:300] or "no reason given"
        )
    backlog = [
        ("backlog", f"{told.waiting:,} points, the oldest {told.oldest_s:,.0f} s old"),
        ("forwarded", f"{per_second(told.forwarded, told.period_ms):,.0f} points/s"),
        ("refused for good", Markup('<span class="bad">{:,} points</span>').format(told.dead) if told.dead else "none"),
    ]
    about = facts(
        [
            ("recorder", name),
            ("stored", f"{per_second(told.points, told.period_ms):,.0f} points/s"),
            ("store", size(told.store_bytes)),
            ("metrics server", server),
            *(backlog if told.server else []),
        ]
    )  # fmt: skip
    return Markup('<div class="sf-two"><div>{}</div><div>{}</div></div>').format(
        about, counters(told.counters, "No counter yet.")
    )
