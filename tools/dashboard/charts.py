"""The charts of the pages as ECharts options: what a series holds, drawn over the last quarter of an hour. Pure.

Texts of devices appear as values only: NiceGUI runs the value of a key that begins with a colon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tools.dashboard.device_memory import DeviceMemory
from tools.dashboard.series import BUCKET_S, BUCKETS, Series, Table, times_s
from wire.messages import Outcome, PolicyState

Options = dict[str, Any]
Line = tuple[str, str, Sequence[float | None]]
"""Name, colour, values."""

OUTCOME_COLOUR = {
    Outcome.EDGE: "#1599b3",
    Outcome.DEVICE: "#3a9a52",
    Outcome.FALLBACK: "#d99a16",
    Outcome.DROPPED: "#d6453d",
}
"""As in the demo's table: cyan, green, yellow, red."""
PARTS = (
    ("head", "head_ms", "#3a9a52"),
    ("encode", "encode_ms", "#93b83c"),
    ("network", "network_ms", "#1599b3"),
    ("wait", "wait_ms", "#8b6fc9"),
    ("tail", "tail_ms", "#4f6fd0"),
)
"""Of a frame's latency, in the order they happen."""
COLOURS = ("#1599b3", "#8b6fc9", "#d97a4a", "#3a9a52", "#4f6fd0", "#c0559b", "#93b83c", "#7b8794")
MOST_LINES = len(COLOURS)
PLAN_PX = 30
"""Height of a plan's line in the timeline."""
MUTED = "#7b8794"
GRID = "rgba(128,138,148,0.18)"
SPAN_S = BUCKET_S * BUCKETS
LEAST_SPAN_S = 120.0


class Clock:
    """Turns our moments into what an axis of time wants."""

    def __init__(self, now_s: float, wall_s: float, begun_s: float) -> None:
        """``now_s`` and ``wall_s`` are the same moment; charts begin at ``begun_s``, or where the memory does."""
        self.now_s = now_s
        self.begun_s = max(min(begun_s, now_s - LEAST_SPAN_S), now_s - SPAN_S)
        self._ahead_s = wall_s - now_s

    def ms(self, at_s: float) -> int:
        """Return Unix milliseconds."""
        return round(1000 * (at_s + self._ahead_s))

    def axis(self) -> list[int]:
        """Return when each bucket of the last quarter of an hour began."""
        return [self.ms(at_s) for at_s in times_s(self.now_s, BUCKETS)]


def bandwidth_and_plan(device: DeviceMemory, clock: Clock) -> Options:
    """Draw the uplink that a device measured above the plan it followed."""
    table, axis = device.series.last(clock.now_s, SPAN_S), clock.axis()
    uplink = _values(device.series, table, "uplink_bps", 1e-6)
    numbers = _values(device.series, table, "plan")
    names = [device.plans[int(number)] if number is not None else None for number in numbers]
    known = [plan for plan in device.plans if plan in names]
    options = _options(clock)
    below = min(PLAN_PX * max(len(known), 1), 6 * PLAN_PX)
    options["grid"] = [
        {"left": 46, "right": 18, "top": 14, "bottom": below + 46},
        {"left": 46, "right": 18, "height": below, "bottom": 26},
    ]
    options["xAxis"] = [{**_time_axis(clock), "axisLabel": {"show": False}}, {**_time_axis(clock), "gridIndex": 1}]
    options["yAxis"] = [
        {**_value_axis(), "type": "log", "min": _decade_below(uplink)},
        {
            "type": "category",
            "gridIndex": 1,
            "data": known,
            "inverse": True,
            "splitLine": {"show": False},
            "axisLine": {"show": False},
            "axisTick": {"show": False},
            "z": 3,
            "axisLabel": {
                "inside": True,
                "margin": 2,
                "color": MUTED,
                "fontSize": 11,
                "verticalAlign": "bottom",
                "padding": [0, 0, 4, 0],
                "width": 400,
                "overflow": "truncate",
            },
        },
    ]
    options["series"] = [
        _line("uplink", COLOURS[0], axis, uplink),
        {
            **_line("plan", COLOURS[1], axis, names),
            "xAxisIndex": 1,
            "yAxisIndex": 1,
            "step": "end",
            "lineStyle": {"width": 4, "color": COLOURS[1]},
        },
    ]
    options["legend"] = {"show": False}
    options["axisPointer"] = {"link": [{"xAxisIndex": "all"}]}
    return options  # fmt: skip


def latency(device: DeviceMemory, clock: Clock) -> Options:
    """Draw what a frame's time went into, as means over the answered frames of each bucket."""
    table, axis = device.series.last(clock.now_s, SPAN_S), clock.axis()
    answered = device.series.column(table, "answered")
    options = _options(clock)
    options["series"] = [
        {
            **_line(name, colour, axis, _ratio(device.series.column(table, column), answered)),
            "stack": "parts", "areaStyle": {"opacity": 0.75}, "lineStyle": {"width": 0},
        }
        for name, column, colour in PARTS
    ]  # fmt: skip
    whole = _ratio(device.series.column(table, "latency_ms"), answered)
    options["series"].append(
        {**_line("capture to answer", MUTED, axis, whole), "lineStyle": {"type": "dashed", "width": 1}}
    )
    return options


def outcomes(device: DeviceMemory, clock: Clock) -> Options:
    """Draw how frames ended, by when they were captured."""
    table, axis = device.series.last(clock.now_s, SPAN_S), clock.axis()
    options = _options(clock)
    options["series"] = [
        {
            "name": outcome.value, "type": "bar", "stack": "outcomes", "barWidth": "96%", "barCategoryGap": 0,
            "itemStyle": {"color": colour},
            "data": _pairs(axis, [float(n) / BUCKET_S or None for n in device.series.column(table, outcome.value)]),
        }
        for outcome, colour in OUTCOME_COLOUR.items()
    ]  # fmt: skip
    return options


def energy(device: DeviceMemory, clock: Clock) -> Options:
    """Draw energy per frame; what a meter measured and what was modelled are never one line."""
    series = device.series
    table, axis = series.last(clock.now_s, SPAN_S), clock.axis()
    options = _options(clock)
    lines: list[Line] = [
        (source, colour, _ratio(series.column(table, f"{source}_mj"), series.column(table, source)))
        for source, colour in (("measured", COLOURS[3]), ("modelled", COLOURS[1]))
    ]
    options["series"] = [
        _line(name, colour, axis, values) for name, colour, values in lines if any(v is not None for v in values)
    ]
    battery = _values(series, table, "battery_share", 100.0)
    if any(value is not None for value in battery):
        options["yAxis"] = [
            options["yAxis"],
            {**_value_axis(), "min": 0, "max": 100, "interval": 25, "splitLine": {"show": False}},
        ]
        options["series"].append({**_line("battery", COLOURS[2], axis, battery), "yAxisIndex": 1})
    return options


def gauges(members: Mapping[str, Series], column: str, clock: Clock, scale: float = 1.0) -> Options:
    """Draw one gauge of several members, the first ``MOST_LINES`` by name."""
    axis = clock.axis()
    options = _options(clock)
    options["series"] = [
        _line(name, colour, axis, _values(series, series.last(clock.now_s, SPAN_S), column, scale))
        for (name, series), colour in zip(sorted(members.items()), COLOURS, strict=False)
    ]
    return options


def columns(series: Series, chosen: Mapping[str, str], clock: Clock) -> Options:
    """Draw several gauges of one member; ``chosen``: the name that is shown by column."""
    axis, table = clock.axis(), series.last(clock.now_s, SPAN_S)
    options = _options(clock)
    options["series"] = [
        _line(name, colour, axis, _values(series, table, column))
        for (column, name), colour in zip(chosen.items(), COLOURS, strict=False)
    ]
    return options


def varied(series: Series, clock: Clock) -> Options:
    """Draw how varied the plans of a policy are and how often devices switch between them."""
    options = columns(series, {"entropy_share": "entropy over its maximum", "switches_per_minute": "switches"}, clock)
    entropy, switches = options["series"]
    entropy["data"] = [[at, None if value is None else 100 * value] for at, value in entropy["data"]]
    switches["yAxisIndex"] = 1
    right = {**_value_axis(), "min": 0, "splitLine": {"show": False}}
    options["yAxis"] = [{**options["yAxis"], "min": 0, "max": 100, "interval": 25}, right]
    options["grid"]["right"] = 40
    return options


def plan_mix(state: PolicyState) -> Options:
    """Draw how many devices were told each plan, the commonest first."""
    shown = sorted(state.plans, key=lambda one: -one.devices)
    return {
        "animation": False,
        "grid": {"left": 190, "right": 40, "top": 8, "bottom": 24},
        "xAxis": {"type": "value", "minInterval": 1, "axisLabel": {"color": MUTED}, "splitLine": _split()},
        "yAxis": {
            "type": "category", "inverse": True, "data": [str(one.plan)[:80] for one in shown],
            "axisLine": {"show": False}, "axisTick": {"show": False},
            "axisLabel": {"color": MUTED, "width": 176, "overflow": "truncate", "fontSize": 11},
        },
        "series": [
            {
                "type": "bar", "barMaxWidth": 16, "itemStyle": {"color": COLOURS[1]},
                "label": {"show": True, "position": "right", "color": MUTED},
                "data": [one.devices for one in shown],
            }
        ],
    }  # fmt: skip


def _options(clock: Clock) -> Options:
    return {
        "animation": False,
        "grid": {"left": 46, "right": 18, "top": 32, "bottom": 26},
        "legend": {
            "top": 0, "left": 40, "icon": "roundRect", "itemWidth": 10, "itemHeight": 10, "type": "scroll",
            "textStyle": {"color": MUTED, "fontSize": 11},
        },
        "tooltip": {"trigger": "axis", "renderMode": "richText", "confine": True, "textStyle": {"fontSize": 11}},
        "xAxis": _time_axis(clock),
        "yAxis": _value_axis(),
        "series": [],
    }  # fmt: skip


def _time_axis(clock: Clock) -> Options:
    return {
        "type": "time", "min": clock.ms(clock.begun_s), "max": clock.ms(clock.now_s),
        "axisLine": {"lineStyle": {"color": GRID}}, "axisTick": {"show": False}, "splitLine": {"show": False},
        "axisLabel": {"color": MUTED, "hideOverlap": True, "fontSize": 11, "formatter": "{HH}:{mm}"},
        "minInterval": 60_000,
    }  # fmt: skip


def _value_axis() -> Options:
    return {
        "type": "value", "splitLine": _split(), "splitNumber": 3, "axisLabel": {"color": MUTED, "fontSize": 11},
    }  # fmt: skip


def _split() -> Options:
    return {"lineStyle": {"color": GRID}}


def _line(name: str, colour: str, axis: Sequence[int], values: Sequence[float | str | None]) -> Options:
    return {
        "name": name, "type": "line", "showSymbol": False, "color": colour, "itemStyle": {"color": colour},
        "lineStyle": {"width": 1.6, "color": colour}, "data": _pairs(axis, values),
    }  # fmt: skip


def _pairs(axis: Sequence[int], values: Sequence[float | str | None]) -> list[list[Any]]:
    return [[at, value] for at, value in zip(axis, values, strict=True)]


def _values(series: Series, table: Table, column: str, scale: float = 1.0) -> list[float | None]:
    """Return a gauge; where one bucket alone is empty, a report fell just beside it, and the one before still holds."""
    found = series.column(table, column)
    empty = np.isnan(found)
    alone = np.zeros(len(found), bool)
    alone[1:-1] = empty[1:-1] & ~empty[:-2] & ~empty[2:]
    filled = np.where(alone, np.roll(found, 1), found)
    return [None if np.isnan(value) else round(float(value) * scale, 3) for value in filled]


def _decade_below(values: Sequence[float | None]) -> float:
    """Return the power of ten at or below every value, for an axis that must not begin at 0."""
    known = [value for value in values if value is not None and value > 0]
    return float(10.0 ** np.floor(np.log10(min(known)))) if known else 0.1


def _ratio(sums: Table, counts: Table) -> list[float | None]:
    return [round(float(a) / float(n), 2) if n else None for a, n in zip(sums, counts, strict=True)]
