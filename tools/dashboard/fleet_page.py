"""The fleet at a glance: one row per device, totals above."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup
from nicegui import ui

from tools.dashboard.markup import figure, outcome_bar, percent
from tools.dashboard.snapshot import Row, Snapshot, Totals

ROW_PX = 31
HEAD_PX = 54
"""Head, scroll bar and frame of the table."""
FILTER = "(event) => getElement(GRID).api.setGridOption('quickFilterText', event.target.value)"


def _column(field: str, title: str, width: int, **more: Any) -> dict[str, Any]:
    return {"field": field, "headerName": title, "width": width, **more}


def _number(field: str, title: str, width: int, about: str, unit: str = "") -> dict[str, Any]:
    return _column(
        field, title, width, cellClass="num", headerClass="ag-right-aligned-header", headerTooltip=about,
        **{":valueFormatter": f"p => p.value === null ? '–' : p.value + '{unit}'"},
    )  # fmt: skip


def _secondary(column: dict[str, Any]) -> dict[str, Any]:
    """Leave a column out where there is no room for it."""
    return {**column, ":hide": "window.innerWidth < 1350"}


COLUMNS = [
    _column("name", "device", 100, pinned="left", **{":cellRenderer": "window.splitfleet.name"}),
    _column("state", "state", 66, **{":cellClass": "p => 'sf-state-' + p.value"}),
    _column("trouble", "what is wrong", 130, sort="desc", sortingOrder=["desc", "asc", None], **{
        ":cellClass": "p => 'sf-trouble' + p.data.rank",
        ":comparator": "(a, b, p, q) => p.data.rank - q.data.rank || a.localeCompare(b)",
    }),
    _column("plan", "plan", 204, minWidth=204, flex=1, tooltipField="plan"),
    _column("mix", "outcomes", 116, sortable=False, cellDataType=False, headerTooltip="of the last minute", **{
        ":cellRenderer": "window.splitfleet.mix", ":equals": "(a, b) => a && b && a.every((n, i) => n === b[i])",
    }),
    _number("fallback", "fallback", 70, "share of the frames of the last minute", " %"),
    _number("dropped", "dropped", 72, "frames of the last minute"),
    _number("p50", "p50 ms", 68, "capture to answer, the last answered frames of the last minute"),
    _number("p95", "p95 ms", 68, "capture to answer, the last answered frames of the last minute"),
    _secondary(_number("fps", "frames/s", 74, "captured")),
    _number("uplink", "Mbit/s", 68, "uplink as the device measures it"),
    _secondary(_number("rtt", "rtt ms", 62, "round trip of a small message")),
    _number("battery", "battery", 66, "charge", " %"),
    _number("energy", "mJ/frame", 84, "mean of the last minute"),
    _column("source", "energy is", 80, headerTooltip="measured by a meter, or modelled"),
    _column("seen", "heard", 58, headerTooltip="when the device last said something"),
]  # fmt: skip


class FleetPage:
    """The table sends only rows that look different from before."""

    def __init__(self) -> None:
        self._number = 0
        self._shown: set[str] = set()
        self._totals = ui.html("", sanitize=False)
        tools = ui.element("div").classes("sf-tools")
        self._frame = ui.element("div")  # any change to the grid's own element would make it anew, without its rows
        with self._frame:
            self._grid = ui.aggrid(
                {
                    "columnDefs": COLUMNS,
                    "rowData": [],
                    ":getRowId": "p => p.data.name",
                    "defaultColDef": {"sortable": True, "resizable": True, "filter": False},
                    "rowHeight": ROW_PX,
                    "headerHeight": 34,
                    "animateRows": False,
                    "ensureDomOrder": True,
                    "suppressCellFocus": False,
                    "overlayNoRowsTemplate": "no device has been heard of yet",
                    ":onCellKeyDown": "window.splitfleet.open",
                    ":onRowDoubleClicked": "window.splitfleet.open",
                },
                theme="balham",
                auto_size_columns=False,
            ).classes("sf-grid")
        with tools:
            ui.element("input").props(
                'type="search" placeholder="Filter by name, state, plan or trouble" aria-label="Filter devices"'
            ).on("input", js_handler=FILTER.replace("GRID", str(self._grid.id)))
            ui.label("A column's head sorts it; a device's name opens it.")

    def draw(self, snapshot: Snapshot) -> None:
        """Show the picture of this moment."""
        self._totals.content = totals_markup(snapshot.totals)
        change = changes(snapshot, self._number, self._shown)
        if self._number == 0:
            self._grid.options["rowData"] = list(snapshot.rows.values())
        elif any(change.values()):
            self._grid.run_grid_method("applyTransaction", change)
        if self._number == 0 or change["add"] or change["remove"]:
            self._frame.style(f"--sf-rows: {HEAD_PX + ROW_PX * len(snapshot.rows)}px")
        self._number, self._shown = snapshot.number, set(snapshot.rows)


def changes(snapshot: Snapshot, number: int, shown: set[str]) -> dict[str, list[Row]]:
    """Return what a table that showed the rows ``shown`` of snapshot ``number`` must add, update and remove."""
    fresh = [row for name, row in snapshot.rows.items() if snapshot.changed[name] > number]
    return {
        "add": [row for row in fresh if row["name"] not in shown],
        "update": [row for row in fresh if row["name"] in shown],
        "remove": [{"name": name} for name in sorted(shown - snapshot.rows.keys())],
    }


def totals_markup(totals: Totals) -> Markup:
    """Return the fleet in six figures."""
    others = ", ".join(f"{n} {state}" for state, n in sorted(totals.states.items()) if state != "ready")
    energies = [
        (f"{figure(value)} mJ", kind)
        for kind, value in (("measured", totals.measured_mj), ("modelled", totals.modelled_mj))
        if value is not None
    ]
    cards = (
        ("devices ready", f"{totals.states.get('ready', 0)} of {totals.devices}", others or "all of them"),
        ("frames per second", figure(totals.frames_per_s), f"{totals.sent_bps / 1e6:.2g} Mbit/s to the edge"),
        (
            "p50 / p95, ms",
            f"{_whole(totals.latency_ms_p50)} / {_whole(totals.latency_ms_p95)}",
            "capture to answer",
        ),
        (
            "fallback",
            percent(totals.outcomes["fallback"], sum(totals.outcomes.values())),
            f"{totals.outcomes['dropped']:,} dropped in the last minute",
        ),
        ("energy per frame", *(energies[0] if energies else ("–", "not known"))),
        *(("energy per frame", *more) for more in energies[1:]),
    )
    items = [
        Markup("<div><span>{}</span><strong>{}</strong><br><small>{}</small></div>").format(*card) for card in cards
    ]
    mix = Markup('<div class="wide"><span>outcomes, last minute</span>{}</div>').format(outcome_bar(totals.outcomes))
    return Markup('<div class="sf-totals">{}{}</div>').format(mix, Markup("").join(items))


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"
