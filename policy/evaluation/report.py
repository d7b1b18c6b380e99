"""The report of an evaluation: one HTML file that needs nothing else, and its charts as files of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from policy.evaluation import charts
from policy.evaluation.results import PolicyResult, Results
from policy.evaluation.verdicts import (
    COORDINATED,
    DETAILS,
    LEARNED,
    MARKS,
    OVERVIEW,
    Verdict,
    best_reference,
    details,
    label,
    overview,
    shown,
)  # fmt: skip

PLANS_NAMED = 5
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; } h3 { font-size: 1rem; margin: 1.4rem 0 .2rem; }
figure { margin: .5rem 0; } figcaption { color: #444; margin-bottom: .4rem; }
svg { width: 100%; height: auto; }
.chart, .table { overflow-x: auto; } .chart svg { min-width: 30rem; }
table { border-collapse: collapse; font-size: .85rem; white-space: nowrap; }
th, td { padding: .2rem .55rem; text-align: right; border-bottom: 1px solid #e3e3e3; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
tr.learned td { font-weight: 600; background: #eef5fb; }
nav a { margin-right: .8rem; display: inline-block; } a { color: #0b5c94; } code { font-size: .85em; }
@media print {
  body { font-size: 11px; max-width: none; padding: 0; } nav { display: none; }
  figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } .chart svg { min-width: 0; }
}
"""
MARKS_TOLD = (
    f"{MARKS[Verdict.ABOVE]} clearly above, {MARKS[Verdict.BELOW]} clearly below, {MARKS[Verdict.LEVEL]} no difference "
    "that the seeds could tell: by the 95 % interval of the difference in reward, seed by seed."
)


def write_report(results: Results, path: Path) -> None:
    """Write the report; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(html(results), encoding="utf-8")
    fresh.replace(path)


def figures(results: Results, folder: Path) -> list[Path]:
    """Write every chart as ``<name>.svg`` into a folder and return the paths; the same results give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for chart in _drawable(results):
        paths.append(folder / f"{chart.name}.svg")
        paths[-1].write_text(charts.svg(chart, results), encoding="utf-8")
    return paths


def html(results: Results) -> str:
    """Return the report of results as one HTML document without anything from outside."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>splitfleet: evaluation of {escape(results['suite'])}</title><style>{STYLE}</style></head><body>",
        *_head(results),
        *_summary(results),
    ]
    for chart in _drawable(results):
        parts += [f'<h2 id="{chart.name}">{escape(chart.title)}</h2>', *_figure(chart, results)]
        if chart.name == "plans":
            parts += _plans(results)
    parts += ['<h2 id="figures">All figures</h2>', *_everything(results), "</body></html>"]
    return "\n".join(parts) + "\n"


def _drawable(results: Results) -> list[charts.Chart]:
    compared = any(best_reference(results, scenario) for scenario in results["scenarios"])
    return [chart for chart in charts.CHARTS if compared or chart.name != "learning"]


def _head(results: Results) -> Iterable[str]:
    count, seeds = len(results["scenarios"]), results["seeds"]
    fewer = ", ".join(f"{name} {sites}" for name, sites in results["fleets_of"].items() if sites != results["fleets"])
    yield f"<h1>How the policies do: {escape(results['suite'])}</h1>"
    yield (
        f"<p>{count} scenario{'s' if count != 1 else ''}, {len(seeds)} seeds ({', '.join(map(str, seeds))}) that no "
        f"training has seen, {results['fleets']} sites each{escape(f' ({fewer})') if fewer else ''}. "
        f"{'All figures are modelled: simulated sites on measured costs.' if results['modelled'] else ''} "
        f"Made by <code>{escape(results['command'])}</code> in {results['seconds']:,.0f} s.</p>"
    )
    links = [(chart.name, chart.title) for chart in _drawable(results)]
    links = [("summary", "Summary"), *links, ("figures", "All figures")]
    anchors = "".join(f'<a href="#{name}">{escape(title)}</a>' for name, title in links)
    yield f"<nav>{anchors}</nav>"


def _summary(results: Results) -> Iterable[str]:
    yield '<h2 id="summary">Summary</h2>'
    yield (
        "<p>Score: 0 is what random plans earn, 1 what the oracle of the scenario earns. The two columns on the right "
        f"compare {escape(LEARNED)} with {escape(' and '.join(label(policy) for policy in COORDINATED))}: "
        f"{escape(MARKS_TOLD)}</p>"
    )
    yield _table(OVERVIEW, overview(results))


def _figure(chart: charts.Chart, results: Results) -> Iterable[str]:
    drawn = charts.inline(chart, results).replace("<svg", f'<svg aria-label="{escape(chart.title)}"', 1)
    yield f'<figure><figcaption>{escape(chart.reading)}</figcaption><div class="chart">{drawn}</div></figure>'


def _plans(results: Results) -> Iterable[str]:
    policy = LEARNED if any(LEARNED in here for here in results["scenarios"].values()) else None
    rows: list[list[str | None]] = []
    for scenario, here in results["scenarios"].items():
        policies = [policy] if policy in here else shown(results, scenario)[:1]
        rows += [[scenario, label(one), _named(here[one])] for one in policies if one is not None]
    yield _table(("scenario", "policy", "plans used most"), rows)


def _named(result: PolicyResult) -> str:
    named = [entry for entry in result["plan_mix"] if entry["plan"] != "others"][:PLANS_NAMED]
    return ", ".join(f"{entry['plan']} {100 * entry['share']:.0f} %" for entry in named)


def _everything(results: Results) -> Iterable[str]:
    for scenario in results["scenarios"]:
        title = results["titles"].get(scenario, "")
        oracle = label(results["oracle"].get(scenario, "oracle"))
        yield f"<h3>{escape(scenario)}</h3><p>{escape(title)}. Score 1: {escape(oracle)}.</p>"
        yield _table(DETAILS, details(results, scenario))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str | None]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = []
    for row in rows:
        mark = ' class="learned"' if row[0] == label(LEARNED) else ""
        cells = "".join(f"<td>{'–' if cell is None else escape(cell)}</td>" for cell in row)
        body.append(f"<tr{mark}>{cells}</tr>")
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
