"""The report: whole, self-contained, the same every time, and every dot where it should be."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.patches import Rectangle

from policy.evaluation import charts
from policy.evaluation.charts import CHARTS
from policy.evaluation.report import figures, html, write_report
from tests.policy.evaluation.results_made import POLICIES, made

GAINS = {"calm": -0.03, "bursts": 0.04, "outage": 0.002}
OUTSIDE = ("src", "data", "srcset", "poster", "action", "xlink:href")
VOID = {"meta", "br", "img", "link", "hr"}


class Page(HTMLParser):
    """Reads a page: text, ids, references, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.outside: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self._open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.references.append(value or "")
            if name in OUTSIDE:
                self.outside.append(f"{tag} {name}")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _dots(axes: Axes) -> int:
    return sum(len(np.asarray(one.get_offsets())) for one in axes.collections if isinstance(one, PathCollection))


def test_the_page_is_whole_and_holds_every_scenario_policy_and_chart() -> None:
    page = Page(html(made(GAINS)))
    text = " ".join(page.text)
    assert all(name in text for name in (*GAINS, *(f"About {name}" for name in GAINS)))
    assert all(name in text for name in ("a2c", "pricing + sweep", "clairvoyant oracle"))
    assert all(chart.title in text and chart.reading in text for chart in CHARTS)


def test_the_page_needs_nothing_from_outside() -> None:
    text = html(made(GAINS))
    page = Page(text)
    assert "http" not in text
    assert "@import" not in text
    assert page.outside == []
    assert all(reference.startswith("#") for reference in page.references)
    assert {reference[1:] for reference in page.references} <= set(page.ids)


def test_ids_are_unique() -> None:
    ids = Page(html(made(GAINS))).ids
    assert len(ids) == len(set(ids))


def test_names_are_escaped_in_tables_and_charts() -> None:
    results = made({"<b>bad</b> & $worse$": 0.1})
    results["titles"] = dict.fromkeys(results["scenarios"], "<script>alert(1)</script>")
    text = html(results)
    assert "<b>" not in text
    assert "<script" not in text
    assert "&lt;b&gt;bad&lt;/b&gt; &amp; $worse$" in text
    assert "--suite &#x27;a &amp; b&#x27;" in text


def test_marks_tell_where_learning_is_clearly_above_and_below() -> None:
    text = html(made(GAINS))
    assert text.count("<td>▲ above</td>") == 4  # bursts against both, the others against sequential
    assert text.count("<td>▼ below</td>") == 1
    assert text.count("<td>= level</td>") == 1


def test_scores_have_a_dot_per_scenario_and_policy_of_the_summary() -> None:
    axes, near = charts.score_dots(made(GAINS)).axes
    assert _dots(axes) == len(GAINS) * 5
    assert _dots(near) == len(GAINS) * 4  # greedy is far below
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(GAINS)


def test_gains_are_sorted_and_name_the_best_reference() -> None:
    axes = charts.learning_gain(made(GAINS)).axes[0]
    places = [np.asarray(one.get_offsets())[0] for one in axes.collections]
    assert [place[0] for place in places] == pytest.approx([0.04, 0.002, -0.03])
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == [f"{name}, against pricing + sweep" for name in ("bursts", "outage", "calm")]


def test_panels_have_a_line_or_a_dot_per_policy() -> None:
    results = made(GAINS)
    regret, scatter = charts.regret(results), charts.latency_energy(results)
    assert [len(axes.lines) - 1 for axes in regret.axes] == [5] * len(GAINS)  # and the line at zero
    assert [_dots(axes) for axes in scatter.axes] == [len(POLICIES)] * len(GAINS)


def test_bars_of_the_plan_mix_add_up() -> None:
    results = made(GAINS)
    assert charts.kinds(results["scenarios"]["calm"]["a2c"]) == pytest.approx([0.4, 0.3, 0.2, 0.1])
    axes = charts.plan_mix(results).axes[0]
    assert sum(bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)) == pytest.approx(len(GAINS) * 3)


def test_results_without_the_learned_policy_are_reported_without_its_chart() -> None:
    text = html(made(GAINS, tuple(policy for policy in POLICIES if policy != "a2c")))
    assert 'id="learning"' not in text
    assert 'id="score"' in text


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    results = made(GAINS)
    write_report(results, tmp_path / "one.html")
    write_report(results, tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_figures_are_files_of_svg_with_text(tmp_path: Path) -> None:
    paths = figures(made(GAINS), tmp_path / "charts")
    assert [path.name for path in paths] == [f"{chart.name}.svg" for chart in CHARTS]
    for path in paths:
        root = ElementTree.parse(path).getroot()
        assert root.tag.endswith("svg")
        assert any(node.tag.endswith("text") for node in root.iter())
