"""The page: self-contained, safe whatever devices say, and readable on a phone, in a real browser."""

from __future__ import annotations

import dataclasses
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edge_broker_side.reporting.figures import Ledger, Report
from tools.reports.page import page

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Reading(HTMLParser):
    """Every element with its attributes, the text, and whether each element was closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def html(told: Report) -> str:
    return page(told)


def test_nothing_is_fetched_and_nothing_runs(html: str) -> None:
    reading = Reading(html)
    assert not {"script", "link", "iframe", "img", "object", "b"} & {tag for tag, _ in reading.elements}
    for _, attributes in reading.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"https?://|@import|url\((?!#)", html)


def test_texts_of_devices_are_shown_as_they_are(html: str) -> None:
    assert "<script>alert(1)</script>" in Reading(html).text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "=resnet_<b>$heavy$" in Reading(html).text


def test_every_chart_has_a_title_and_says_what_is_measured(html: str) -> None:
    reading = Reading(html)
    charts = reading.all("svg")
    assert [chart["aria-label"] for chart in charts] == [
        "Where the time goes",
        "Where results were computed",
        "Latency over time",
        "Energy per frame",
        "Accuracy against latency",
    ]
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", html, re.DOTALL)
    assert len(captions) == len(charts)
    assert all("measured" in caption for caption in captions)
    assert "millijoules per frame (measured and modelled)" in reading.text
    ids = [str(attributes["id"]) for _, attributes in reading.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for used in re.findall(r"url\(#([^)]*)\)", html):
        assert used in ids


def test_energy_of_two_sources_is_never_one_figure(told: Report, html: str) -> None:
    measured, modelled = told.fleet.figures.energy
    assert (measured.source, modelled.source) == ("measured", "modelled")
    assert html.count("<dt>Energy per frame</dt>") == 2
    assert f"{measured.mean_mj:.1f} mJ<small>measured" in html
    assert f"{modelled.mean_mj:.1f} mJ<small>modelled" in html


@pytest.mark.parametrize(
    ("ledger", "kind", "words"),
    [
        (Ledger(10, 10, 0, {}), "good", "every one of 10 captured frames"),
        (Ledger(10, 8, 2, {}), "bad", "2 of 10 captured frames have no outcome yet"),
        (None, "warn", "unknown"),
    ],
)
def test_what_is_unaccounted_is_in_plain_sight(told: Report, ledger: Ledger | None, kind: str, words: str) -> None:
    fleet = dataclasses.replace(told.fleet, ledger=ledger)
    html = page(dataclasses.replace(told, fleet=fleet, devices=(), plans=()))
    found = re.search(r'<p class="verdict (\w+)">(.*?)</p>', html)
    assert found is not None
    assert found[1] == kind
    assert words in found[2]


def test_a_report_of_nothing_is_a_page_that_says_so(told: Report) -> None:
    none = dataclasses.replace(
        told.fleet.figures, frames=0, outcomes=dict.fromkeys(told.fleet.figures.outcomes, 0), energy=(), judged=0,
        accuracy=None, bytes_mean=None, times=dict.fromkeys(told.fleet.figures.times), reasons={},
    )  # fmt: skip
    fleet = dataclasses.replace(told.fleet, figures=none)
    html = page(dataclasses.replace(told, fleet=fleet, devices=(), plans=(), workers=(), first_ms=None, last_ms=None))
    assert "No frame in this window: try --since all." in Reading(html).text
    assert "<svg" not in html


def test_a_large_fleet_gives_a_page_of_bounded_charts(told: Report) -> None:
    devices = tuple(dataclasses.replace(told.devices[0], device=f"cam-{n:03}") for n in range(300))
    plans = tuple(dataclasses.replace(told.plans[0], device=f"cam-{n:03}") for n in range(300))
    html = page(dataclasses.replace(told, devices=devices, plans=plans))
    assert html.count("<details") == 40
    assert sum(len(part) for part in re.findall(r"<svg.*?</svg>", html, re.DOTALL)) < 300_000
    assert "cam-299" in html


def test_it_fits_a_phone_without_scripts_and_prints(html: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    assert chromium, "install Debian's chromium"
    path = tmp_path / "report.html"
    path.write_text(html, encoding="utf-8")
    asked: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 390, "height": 844})
        sheet = context.new_page()
        sheet.on("request", lambda request: asked.append(request.url))
        sheet.goto(path.as_uri())
        assert sheet.evaluate("document.documentElement.scrollWidth") == 390
        least = sheet.evaluate(
            "Math.min(...[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height))"
        )
        assert least >= 8, "letters of charts are too small for a phone"
        inks = []
        for scheme in ("light", "dark"):
            sheet.emulate_media(color_scheme=scheme)
            inks.append(sheet.evaluate("getComputedStyle(document.querySelector('svg text')).fill"))
        assert inks[0] != inks[1], "letters of charts follow the page"
        assert len(sheet.pdf(format="A4")) > 10_000
        browser.close()
    assert asked == [path.as_uri()]
