"""Charts of an evaluation as SVG: the one module that draws."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from policy.evaluation.results import Difference, PolicyResult, Results
from policy.evaluation.verdicts import COLUMNS, COORDINATED, LEARNED, Verdict, best_reference, label, shown, verdict

WIDTH = 7.0
"""Inches of every chart: readable at the width of a page, and of a phone held sideways."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: found by search, small in the file
    "svg.hashsalt": "splitfleet",  # ids, and so files, are the same every time
    "font.family": "sans-serif",
    "font.size": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8.0,
    "legend.frameon": False,
}
INKS = {
    LEARNED: "#0072b2",
    "pricing": "#e69f00",
    "sequential": "#009e73",
    "greedy": "#d55e00",
    "best_static": "#8c6bb1",
    "oracle_observed": "#444444",
}
OTHER_INK = "#b0b0b0"
SHAPES = {LEARNED: "o", "pricing": "s", "sequential": "^", "greedy": "v", "best_static": "D", "oracle_observed": "|"}
VERDICT_INKS = {Verdict.ABOVE: "#0072b2", Verdict.LEVEL: "#888888", Verdict.BELOW: "#d55e00"}
KINDS = ("on the device", "split", "picture sent", "others")
KIND_INKS = ("#56b4e9", "#0072b2", "#e69f00", "#cccccc")
LEFT = -0.2
"""Scores below this are drawn at the edge."""
NEAR, RIGHT = 0.85, 1.02
"""Ends of the close-up of scores; the right one gives way to scores beyond."""
HEADROOM = 1.5
"""Regret is drawn up to so many times that of the coordinated policies, which the others would crush to a line."""
LEAST_REGRET = 0.01
WIDE = 100.0
"""Least ratio of an axis's ends at which only powers of ten are named."""
MIXED = (LEARNED, "pricing", "oracle_observed")
"""Policies whose plan mix is drawn."""


@dataclass(frozen=True)
class Chart:
    """A chart and how to read it."""

    name: str
    title: str
    reading: str
    """One sentence."""
    draw: Callable[[Results], Figure]


def score_dots(results: Results) -> Figure:
    """Draw a row per scenario, a dot with its interval per policy; on the right once more, the upper end close up."""
    scenarios = list(results["scenarios"])
    figure = Figure(figsize=(WIDTH, 1.1 + 0.42 * len(scenarios)), layout="constrained")
    whole, near = figure.subplots(1, 2, sharey=True, width_ratios=(2, 3))
    for y, scenario in enumerate(scenarios):
        policies = shown(results, scenario)
        for k, policy in enumerate(policies):
            at = y + 0.7 * ((k + 0.5) / len(policies) - 0.5)
            score = results["scenarios"][scenario][policy]["score"]
            for axes in (whole, near) if score >= NEAR else (whole,):
                low, high = (max(end, LEFT) for end in results["scenarios"][scenario][policy]["score_ci95"])
                axes.plot([low, high], [at, at], color=INKS[policy], linewidth=1)
                size = 40 if SHAPES[policy] == "|" else 14
                axes.scatter([max(score, LEFT)], [at], s=size, color=INKS[policy], marker=SHAPES[policy], zorder=3)
    _name_rows(whole, scenarios)
    # An oracle that plans for one period can be beaten by who looks further.
    scores = [here[policy]["score"] for here in results["scenarios"].values() for policy in COLUMNS if policy in here]
    right = max([RIGHT, *(score + 0.01 for score in scores)])
    whole.set_xlim(LEFT - 0.03, right)
    near.set_xlim(NEAR, right)
    whole.set_xlabel("score: 0 is random, 1 the oracle")
    near.set_xlabel(f"the same from {NEAR} on")
    near.tick_params(axis="y", length=0)
    for axes in (whole, near):
        axes.grid(axis="x", color="#e5e5e5", linewidth=0.6)
        for y in range(1, len(scenarios)):
            axes.axhline(y - 0.5, color="#e5e5e5", linewidth=0.6, zorder=0)
    _legend(figure, results)
    return figure


def learning_gain(results: Results) -> Figure:
    """Draw the learned policy's score less that of the best reference, the greatest gain first."""
    rows: list[tuple[Difference, str, str]] = []
    for scenario in results["scenarios"]:
        best = best_reference(results, scenario)
        if best is not None:
            rows.append((results["differences"][scenario][f"{LEARNED}-{best}"], scenario, best))
    rows.sort(key=lambda row: -row[0]["score"])
    figure, axes = _rows(max(len(rows), 1), 0.26)
    for y, (difference, scenario, best) in enumerate(rows):
        ink = VERDICT_INKS[verdict(results, scenario, best) or Verdict.LEVEL]
        axes.plot(difference["score_ci95"], [y, y], color=ink, linewidth=1.4)
        axes.scatter([difference["score"]], [y], s=18, color=ink, zorder=3)
    axes.axvline(0, color="#222222", linewidth=0.8)
    _name_rows(axes, [f"{scenario}, against {label(best)}" for _, scenario, best in rows])
    axes.set_xlabel(f"{LEARNED} less the best reference, in score")
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.6)
    return figure


def regret(results: Results) -> Figure:
    """Draw what each policy lost against the clairvoyant oracle as time passes, a panel per scenario."""
    figure, panels = _panels(results)
    for axes, scenario in zip(panels, results["scenarios"], strict=True):
        most, least = 0.0, 0.0
        for policy in shown(results, scenario):
            line = results["scenarios"][scenario][policy]["regret"]
            width = 1.6 if policy == LEARNED else 1.0
            axes.plot(line["period"], line["cumulated"], color=INKS[policy], linewidth=width)
            if policy in (LEARNED, *COORDINATED):
                most, least = max(most, *line["cumulated"]), min(least, *line["cumulated"])
        axes.set_title(_plain(scenario), loc="left")
        axes.axhline(0, color="#cccccc", linewidth=0.6, zorder=0)
        top = HEADROOM * max(most, LEAST_REGRET)
        axes.set_ylim(least - 0.05 * top, top)
    figure.supxlabel("period", fontsize=8)
    figure.supylabel("reward per device lost so far", fontsize=8)
    _legend(figure, results, lines=True)
    return figure


def plan_mix(results: Results) -> Figure:
    """Draw where the work is done: a bar per scenario and policy, stacked by kind of plan."""
    groups = [(scenario, [p for p in MIXED if p in here]) for scenario, here in results["scenarios"].items()]
    figure, axes = _rows(sum(len(policies) + 1 for _, policies in groups), 0.14)
    names: list[str] = []
    places: list[float] = []
    for scenario, policies in groups:
        for policy in policies:
            # A gap before each scenario.
            places.append(places[-1] + (1.7 if policy == policies[0] else 1.0) if places else 0.0)
            names.append(f"{scenario}   {label(policy)}" if policy == policies[0] else label(policy))
            start = 0.0
            for share, ink in zip(kinds(results["scenarios"][scenario][policy]), KIND_INKS, strict=True):
                axes.barh(places[-1], share, left=start, height=0.85, color=ink)
                start += share
    axes.set_yticks(places, [_plain(name) for name in names])
    axes.set_ylim(max(places, default=0) + 0.6, -0.6)
    axes.tick_params(axis="y", labelsize=7, length=0)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of device-periods")
    handles = [Line2D([], [], color=ink, linewidth=5, label=kind) for kind, ink in zip(KINDS, KIND_INKS, strict=True)]
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    return figure


def kinds(result: PolicyResult) -> list[float]:
    """Return the shares of ``KINDS`` in a plan mix."""
    shares = dict.fromkeys(KINDS, 0.0)
    for entry in result["plan_mix"]:
        parts = entry["plan"].split("/")
        cut = parts[1] if len(parts) == 3 else ""
        kind = {"output": KINDS[0], "input": KINDS[2], "": KINDS[3]}.get(cut, KINDS[1])
        shares[kind] += entry["share"]
    return list(shares.values())


def latency_energy(results: Results) -> Figure:
    """Draw each policy's typical latency against its energy, a panel per scenario."""
    figure, panels = _panels(results)
    for axes, scenario in zip(panels, results["scenarios"], strict=True):
        here = results["scenarios"][scenario]
        for policy in sorted(here, key=lambda name: name in INKS):
            ink, shape = INKS.get(policy, OTHER_INK), SHAPES.get(policy, ".")
            at = here[policy]
            axes.scatter([at["latency_ms_p50"]], [at["energy_mj"]], s=22, color=ink, marker=shape)
        axes.set_title(_plain(scenario), loc="left")
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis, figures in ((axes.xaxis, "latency_ms_p50"), (axes.yaxis, "energy_mj")):
            values = [result[figures] for result in here.values()]  # type: ignore[literal-required]
            few = max(values) > WIDE * min(values)
            axis.set_major_locator(LogLocator(10, (1.0,) if few else (1.0, 2.0, 5.0), numticks=6))
            axis.set_major_formatter("{x:,g}")
            axis.set_minor_formatter(NullFormatter())
    figure.supxlabel("median latency, ms", fontsize=8)
    figure.supylabel("energy per frame, mJ", fontsize=8)
    _legend(figure, results, others=True)
    return figure


CHARTS: Sequence[Chart] = (
    Chart(
        "score",
        "Score by scenario",
        "Each dot is a policy's score with its 95 % interval over seeds: the farther right the better, and dots whose "
        "lines lie apart are told apart by the seeds; scores below −0.2 are drawn at the left edge.",
        score_dots,
    ),
    Chart(
        "learning",
        "Where learning helps, and where it does not",
        "Each dot is the learned policy's score less that of the best other policy, seed by seed: blue is clearly "
        "better, orange clearly worse, and grey lines that cross zero are ties.",
        learning_gain,
    ),
    Chart(
        "regret",
        "Regret over time",
        "Each line adds up what a policy earned less than the clairvoyant oracle: a flat line has caught up, a steep "
        "one is losing now; lines far above those of a2c, pricing and sequential leave the panel.",
        regret,
    ),
    Chart(
        "plans",
        "Where the work is done",
        "Each bar is how a policy used its plans: all on the device, split between device and edge, or the picture "
        "sent whole; plans used rarely are counted as others.",
        plan_mix,
    ),
    Chart(
        "latency_energy",
        "Latency against energy",
        "Each mark is a policy: left is faster, low is thriftier; both axes are logarithmic, and accuracy, which is "
        "paid for by both, stands in the tables.",
        latency_energy,
    ),
)


def svg(chart: Chart, results: Results) -> str:
    """Return a chart as a whole SVG file, the same for the same results."""
    file = io.StringIO()
    with matplotlib.rc_context(STYLE):
        chart.draw(results).savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def inline(chart: Chart, results: Results) -> str:
    """Return a chart to be put into HTML: no prologue, ids of its own, as wide as there is room."""
    text = svg(chart, results)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'^<svg width="[^"]*" height="[^"]*"', '<svg role="img"', text)
    for reference in ('id="', 'href="#', "url(#"):
        text = text.replace(reference, f"{reference}{chart.name}-")
    return text


def _rows(count: int, inches: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 1.1 + inches * count), layout="constrained")
    return figure, figure.add_subplot()


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [_plain(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)


def _panels(results: Results) -> tuple[Figure, list[Axes]]:
    count = len(results["scenarios"])
    columns = min(3, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, 0.9 + 1.6 * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, k + 1) for k in range(count)]


def _legend(figure: Figure, results: Results, *, lines: bool = False, others: bool = False) -> None:
    there = [policy for policy in INKS if any(policy in here for here in results["scenarios"].values())]
    handles = [
        Line2D([], [], color=INKS[policy], label=label(policy), linestyle="-" if lines else "none",
               marker="" if lines else SHAPES[policy], markersize=7 if SHAPES[policy] == "|" else 4)
        for policy in there
    ]  # fmt: skip
    if others:
        handles.append(Line2D([], [], color=OTHER_INK, label="others", linestyle="none", marker=".", markersize=4))
    figure.legend(handles=handles, loc="outside upper center", ncols=4)


def _plain(text: str) -> str:
    """Return text that is not taken for a formula."""
    return text.replace("$", r"\$")
