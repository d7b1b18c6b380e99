"""Charts of a report as inline SVG: the one module of the reports that draws."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from edge_broker_side.reporting.figures import STAGES, Bucket, DeviceFigures, PlanFigures, Report
from tools.reports.captions import CAPTIONS, LEAST_FRAMES
from tools.reports.svg import INK, LINE, inline
from wire.messages import EnergySource, Outcome

WIDTH = 4.8
"""Inches of every chart: its letters are readable on a phone, and two stand side by side on a desk."""
SMALL = 8.5
"""Points of names and figures beside bars."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: found by search, read aloud, small in the file
    "svg.hashsalt": "splitfleet",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LINE,
    "axes.titlesize": 9.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "hatch.linewidth": 1.2,
}
OUTCOME_INKS = {
    Outcome.EDGE: "#2f7fc1",
    Outcome.DEVICE: "#1b9e77",
    Outcome.FALLBACK: "#e6a100",
    Outcome.DROPPED: "#d1495b",
}
STAGE_INKS = dict(zip(STAGES, ("#1b9e77", "#8fcfb6", "#2f7fc1", "#e6a100", "#8a6fb8"), strict=True))
KIND_INKS = {"whole on the device": "#1b9e77", "split": "#2f7fc1", "picture sent": "#e6a100"}
BAR = 0.4
"""Height of a bar; the rest of its row is its name."""
MOST_ROWS = 16
"""Bars that one chart has room for; the tables have every row."""
LONGEST_BREAK = 3
"""Empty stretches of time that a line is drawn across, less one."""
MOST_PANELS = 6
MAX_MS = 253_402_300_799_000
"""The end of the year 9999: a device's clock may say anything."""
MOST_MARKS = 20
"""Plan changes that a panel has room for."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture and how to read it."""

    name: str
    title: str
    reading: str
    svg: str


def draw(told: Report) -> list[Chart]:
    """Return the charts for which there are figures."""
    found = []
    for name, make in CHARTS.items():
        title, reading = CAPTIONS[name]
        with matplotlib.rc_context(STYLE):
            figure = make(told)
            if figure is not None:
                file = io.StringIO()
                figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
                found.append(Chart(name, title, reading, inline(file.getvalue(), name, title)))
    return found


def stages(told: Report) -> Figure | None:
    """Draw the medians of the stages of every plan, one bar each."""
    plans = _most([one for one in told.plans if one.figures.times["latency_ms"]])
    if not plans:
        return None
    figure, axes = _rows([f"{one.device} · {one.plan}" for one in plans], legend_rows=1)
    for place, one in enumerate(plans):
        left = 0.0
        for name in STAGES:
            if (quantiles := one.figures.times[name]) is not None and quantiles.p50 > 0:
                axes.barh(place, quantiles.p50, left=left, height=BAR, color=STAGE_INKS[name])
                left += quantiles.p50
        whole = one.figures.times["latency_ms"]
        assert whole is not None
        axes.plot([whole.p50] * 2, [place - 0.62 * BAR, place + 0.62 * BAR], color=INK, linewidth=1.6)
    axes.set_xlabel("milliseconds")
    axes.set_xlim(0)
    _legend(figure, {name[:-3]: ink for name, ink in STAGE_INKS.items()})
    return figure


def outcomes(told: Report) -> Figure | None:
    """Draw where the results of each device were computed, as shares."""
    devices = _busiest(told, MOST_ROWS)
    if not devices:
        return None
    figure, axes = _rows([f"{one.device} ({one.figures.frames:,})" for one in devices], legend_rows=1)
    for place, one in enumerate(devices):
        left = 0.0
        for outcome, ink in OUTCOME_INKS.items():
            share = 100 * one.figures.outcomes.get(outcome, 0) / one.figures.frames
            axes.barh(place, share, left=left, height=BAR, color=ink)
            if share >= 9:
                on = "#1b2430" if outcome is Outcome.FALLBACK else "white"  # white on amber cannot be read
                axes.text(left + share / 2, place, f"{share:.0f}", ha="center", va="center", color=on, fontsize=SMALL)
            left += share
    axes.set_xlabel("percent of the device's frames")
    axes.set_xlim(0, 100)
    _legend(figure, {str(outcome): ink for outcome, ink in OUTCOME_INKS.items()})
    return figure


def over_time(told: Report) -> Figure | None:
    """Draw the median latency of every stretch of time, a panel per device, and when its plan changed."""
    devices = [one for one in _busiest(told, MOST_PANELS) if len(one.buckets) > 1]
    if not devices:
        return None
    figure = Figure(figsize=(WIDTH, 0.5 + 0.95 * len(devices)), layout="constrained")
    panels: list[Axes] = list(figure.subplots(len(devices), 1, sharex=True, squeeze=False)[:, 0])
    for axes, one in zip(panels, devices, strict=True):
        for stretch in _stretches(one.buckets, told.bucket_ms):
            times = [_date(bucket.at_ms + told.bucket_ms // 2) for bucket in stretch]
            latencies = [bucket.latency_ms_p50 for bucket in stretch]
            axes.plot(
                times, latencies, color=OUTCOME_INKS[Outcome.EDGE], lw=1.4, marker="." if len(stretch) == 1 else ""
            )
        for at_ms in _changes_ms(one)[-MOST_MARKS:]:
            axes.axvline(_date(at_ms), color="#8a6fb8", linewidth=1.0, linestyle=(0, (3, 2)))
        axes.set_title(one.device)
        axes.set_ylim(0)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    panels[0].set_xlim(_date(told.first_ms or 0), _date((told.last_ms or 0) + 1))
    locator = AutoDateLocator(tz=UTC, maxticks=6)  # type: ignore[no-untyped-call]
    panels[-1].xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, tz=UTC)  # type: ignore[no-untyped-call]
    panels[-1].xaxis.set_major_formatter(formatter)
    figure.supylabel("milliseconds", fontsize=9)
    return figure


def energy(told: Report) -> Figure | None:
    """Draw the energy of a frame under every plan; modelled bars are hatched."""
    plans = _most([one for one in told.plans if one.figures.energy])
    if not plans:
        return None
    figure, axes = _rows([f"{one.device} · {one.plan}" for one in plans], legend_rows=0)
    for place, one in enumerate(plans):
        measured = one.energy_source == EnergySource.MEASURED
        (told_here,) = one.figures.energy
        axes.barh(
            place, told_here.mean_mj, height=BAR, facecolor="#2f7fc1" if measured else "none",
            edgecolor="#2f7fc1", hatch="" if measured else "////", linewidth=0.8,
        )  # fmt: skip
        axes.annotate(
            f"{told_here.mean_mj:.3g}", (told_here.mean_mj, place), (4, 0), textcoords="offset points", va="center",
            fontsize=SMALL,
        )  # fmt: skip
    kinds = sorted({one.energy_source for one in plans})
    axes.set_xlabel(f"millijoules per frame ({' and '.join(kinds)})")
    axes.set_xlim(0, 1.14 * max(one.figures.energy[0].mean_mj for one in plans) or 1)
    return figure


def accuracy(told: Report) -> Figure | None:
    """Draw each plan by its latency and its accuracy."""
    plans = [one for one in told.plans if one.figures.judged >= LEAST_FRAMES and one.figures.times["latency_ms"]]
    if len(plans) < 2:
        return None
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    axes = figure.add_subplot()
    for one in plans:
        latency = one.figures.times["latency_ms"]
        assert latency is not None and one.figures.accuracy is not None
        size = 18 + 180 * one.figures.judged / max(other.figures.judged for other in plans)
        axes.scatter(
            [latency.p50], [100 * one.figures.accuracy], s=size, color=KIND_INKS[_kind(one)], alpha=0.75, linewidths=0
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid()
    axes.set_axisbelow(True)
    axes.set_xlabel("median latency, milliseconds (logarithmic)")
    axes.set_ylabel("right answers, percent")
    axes.margins(0.12)
    _legend(figure, KIND_INKS)
    return figure


CHARTS: Mapping[str, Callable[[Report], Figure | None]] = {
    "stages": stages,
    "outcomes": outcomes,
    "over-time": over_time,
    "energy": energy,
    "accuracy": accuracy,
}
"""By their names in ``captions``."""


def _kind(one: PlanFigures) -> str:
    return {"output": "whole on the device", "input": "picture sent"}.get(one.cut, "split")


def _most(plans: Sequence[PlanFigures]) -> list[PlanFigures]:
    """Return the plans with the most frames, in the order they came; few frames are told where there are no others."""
    many = [one for one in plans if one.figures.frames >= LEAST_FRAMES] or plans
    kept = sorted(many, key=lambda one: -one.figures.frames)[:MOST_ROWS]
    return [one for one in plans if one in kept]


def _busiest(told: Report, most: int) -> list[DeviceFigures]:
    found = [one for one in told.devices if one.figures.frames]
    return sorted(sorted(found, key=lambda one: -one.figures.frames)[:most], key=lambda one: one.device)


def _stretches(buckets: Sequence[Bucket], width_ms: int) -> list[list[Bucket]]:
    """Return buckets without a longer break between them: no line is drawn over a time of which nothing is known."""
    found: list[list[Bucket]] = []
    for bucket in buckets:
        if not found or bucket.at_ms - found[-1][-1].at_ms > LONGEST_BREAK * width_ms:
            found.append([])
        found[-1].append(bucket)
    return found


def _changes_ms(one: DeviceFigures) -> list[int]:
    return [after.at_ms for before, after in itertools.pairwise(one.decisions.newest) if before.plan != after.plan]


def _date(at_ms: int) -> float:
    when = datetime.fromtimestamp(min(max(at_ms, 0), MAX_MS) / 1000, UTC)
    return float(date2num(when))  # type: ignore[no-untyped-call]


def _rows(names: Sequence[str], legend_rows: int) -> tuple[Figure, Axes]:
    """Return a chart of horizontal bars, each named above it, so that long names leave the bars their width."""
    figure = Figure(figsize=(WIDTH, 0.55 + 0.22 * legend_rows + 0.4 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_ylim(len(names) - 0.6, -0.85)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    for place, name in enumerate(names):
        axes.annotate(
            _plain(name),
            (0, place - 0.5 * BAR - 0.05),
            xycoords=("axes fraction", "data"),
            fontsize=SMALL,
            va="bottom",
            ha="left",
        )
    return figure, axes


def _legend(figure: Figure, inks: dict[str, str]) -> None:
    handles = [matplotlib.patches.Patch(color=ink, label=name) for name, ink in inks.items()]
    figure.legend(
        handles=handles, loc="outside upper left", ncols=len(handles), handlelength=0.9, handleheight=0.9,
        columnspacing=1.1, handletextpad=0.4, fontsize=SMALL,
    )  # fmt: skip


def _plain(text: str, most: int = 60) -> str:
    """Return a device's text as it is: no formula, no control characters, not endless."""
    clean = "".join(one if one.isprintable() else "?" for one in text)
    return (clean if len(clean) <= most else clean[: most - 1] + "…").replace("$", r"\$")
