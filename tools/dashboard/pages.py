"""The pages: their addresses, what they have in common, and the picture that all of them are given each second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from markupsafe import Markup
from nicegui import Event, ui

from tools.dashboard.device_page import DevicePage
from tools.dashboard.edge_page import EdgePage
from tools.dashboard.feed import Feed
from tools.dashboard.fleet_page import FleetPage
from tools.dashboard.markup import concern_list
from tools.dashboard.policy_page import PolicyPage
from tools.dashboard.snapshot import Snapshot

NAVIGATION = (("/", "Fleet"), ("/policy", "Policy"), ("/edge", "Edge"))


class Page(Protocol):
    """What stands below the head of a page."""

    def draw(self, snapshot: Snapshot) -> None:
        """Show the picture of this moment."""


class Pages:
    """Every page of one site."""

    def __init__(self, site: str, feed: Feed) -> None:
        self._site = site
        self._feed = feed
        self._pictures: Event[[Snapshot]] = Event()

    @property
    def watched(self) -> bool:
        """Whether anybody looks."""
        return bool(self._pictures.callbacks)

    def draw(self, snapshot: Snapshot) -> None:
        """Show every visitor the picture of this moment."""
        self._pictures.emit(snapshot)

    def register(self) -> None:
        """Give the pages their addresses."""
        head = Path(__file__).with_name("head.html").read_text(encoding="utf-8")
        ui.add_head_html(head, shared=True)
        ui.page("/", title=f"{self._site} · fleet")(lambda: self._show("/", FleetPage))
        ui.page("/policy", title=f"{self._site} · policy")(
            lambda: self._show("/policy", lambda: PolicyPage(self._feed))
        )
        ui.page("/edge", title=f"{self._site} · edge")(lambda: self._show("/edge", lambda: EdgePage(self._feed)))

        def device(name: str) -> None:
            ui.page_title(f"{self._site} · {name[:64]}")
            self._show("", lambda: DevicePage(self._feed, name[:64]))

        ui.page("/device/{name}")(device)

    def _show(self, here: str, page: Callable[[], Page]) -> None:
        ui.dark_mode(None)
        links = Markup("").join(
            Markup('<a href="{}"{}>{}</a>').format(path, Markup(' aria-current="page"') if path == here else "", name)
            for path, name in NAVIGATION
        )
        with ui.element("header").classes("sf-top"):
            ui.html(Markup("<b>splitfleet</b> · site {}").format(self._site), sanitize=False)
            ui.html(links, sanitize=False, tag="nav")
            health = ui.html("", sanitize=False).classes("sf-health").props('role="status"')
        with ui.element("main").classes("sf-body"):
            wrong = ui.html("", sanitize=False).props('aria-live="polite"')
            shown = page()

        def draw(snapshot: Snapshot) -> None:
            connected = snapshot.health.connected
            away_s = snapshot.now_s - snapshot.health.since_s
            health.content = (
                '<span class="sf-link">live</span>'
                if connected
                else Markup('<span class="sf-link away">broker away for {}</span>').format(_age(away_s))
            )
            wrong.content = concern_list(snapshot.concerns)
            shown.draw(snapshot)

        draw(self._feed.snapshot())
        self._pictures.subscribe(draw)


def _age(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
