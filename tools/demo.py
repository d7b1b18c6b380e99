"""``splitfleet demo``: a whole site on this machine, its links and boards emulated, every frame accounted for."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from edge_broker_side.totals import Totals, totals
from policy.registry import DEFAULT, policy_names
from tools.demo_fleet import DemoFleet, alone
from tools.demo_scenario import DemoDevice, cast
from tools.demo_site import SITE, SiteFiles, measured_profiles, prepare_store
from tools.demo_view import decided_by_words, live, summary_table
from tools.fleet_view import FleetView, summarise
from tools.home import site_folder
from tools.output import check_writable
from tools.shaping import LinkShape
from tools.supervisor import SupervisorError
from wire import channels, codec
from wire.errors import WireError
from wire.inbox import Inbox
from wire.link import LinkSettings, Received, Subscription
from wire.mqtt import Link
from wire.signals import stop_on_signals

REFRESH_S = 0.25
PAPER_WIDTH = 150
"""Columns where there is no terminal to ask."""
SETTLE_S = 3.0
"""How long the subscriber waits for messages under way once every device has ended."""


def demo(
    seconds: Annotated[float, typer.Option(min=5, help="How long the devices run.")] = 60.0,
    devices: Annotated[int, typer.Option(min=1, max=64, help="How many devices; four follow the script.")] = 4,
    policy: Annotated[str, typer.Option(help=f"Who decides: {', '.join(policy_names())}.")] = DEFAULT,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the summary as JSON to this file.")] = None,
    svg_file: Annotated[Path | None, typer.Option("--svg", help="Write the live picture at half-time as SVG.")] = None,
    headless: Annotated[bool, typer.Option(help="No live table; a line every few seconds.")] = False,
    embedded: Annotated[bool, typer.Option(help="Use the embedded broker even where mosquitto is installed.")] = False,
    profile_again: Annotated[
        bool, typer.Option(help="Measure this machine again instead of using the kept profile.")
    ] = False,
    influx: Annotated[
        str | None, typer.Option("--influx", help="Address of an InfluxDB to forward every point to.")
    ] = None,
    database: Annotated[str, typer.Option(help="Its database, made where it is missing; a bucket of 2.x.")] = "demo",
) -> None:
    """Watch a small fleet classify real images over emulated links, and account for every frame.

    Boards and links are emulated on this machine: each head takes a stated multiple of its real time, and each
    device reaches the broker through a relay with a rate, a delay and outages of its own.

    Example: splitfleet demo --seconds 45 --headless --json out.json
    """
    if policy not in policy_names():
        raise typer.BadParameter(f"'{policy}' is none of {', '.join(policy_names())}", param_hint="--policy")
    for path in (json_file, svg_file):
        check_writable(path)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PAPER_WIDTH)
    server = {"url": influx, "database": database, "create_database": True} if influx else None
    run = DemoRun(console, cast(devices), seconds, policy, headless=headless, influx=server)
    try:
        report = run.play(stop_on_signals(), embedded=embedded, profile_again=profile_again)
    except SupervisorError as error:
        console.print(f"[bold red]demo failed:[/] {error}", soft_wrap=True)
        raise typer.Exit(1) from error
    console.print(summary_table("what the subscriber saw", {**report["devices"], "fleet": report}))
    console.print(summary_table("what the recorder's store holds", report["store"]))
    console.print(decided_by_words(report), soft_wrap=True)
    if svg_file is not None:
        run.save_picture(svg_file)
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    console.print(f"logs and the recorder's store: {run.files.folder}", soft_wrap=True)
    console.print(
        f"what became of every frame, as a page: splitfleet report --site {SITE} --format html", soft_wrap=True
    )
    if report["unaccounted"] or report["store_differs"]:
        console.print("[bold red]not every frame is accounted for[/]")
        raise typer.Exit(1)


class DemoRun:
    """One run of the demo, from cutting models to the summary."""

    def __init__(
        self,
        console: Console,
        devices: tuple[DemoDevice, ...],
        seconds: float,
        policy: str,
        *,
        headless: bool,
        influx: Mapping[str, Any] | None = None,
    ) -> None:
        self.files = SiteFiles(site_folder(SITE))
        self._console = console
        self._devices = devices
        self._seconds = seconds
        self._policy = policy
        self._headless = headless or not console.is_terminal
        self._view = FleetView()
        self._inbox = Inbox()
        self._fleet = DemoFleet(self.files, devices, influx)
        self._news: list[str] = []
        self._picture: Any = None

    def play(self, stop: threading.Event, *, embedded: bool, profile_again: bool) -> dict[str, Any]:
        """Run the site for its time, or until ``stop``; return the report. Raises ``SupervisorError``."""
        with alone(self.files.folder, "demo"):
            return self._play(stop, embedded=embedded, profile_again=profile_again)

    def _play(self, stop: threading.Event, *, embedded: bool, profile_again: bool) -> dict[str, Any]:
        shutil.rmtree(self.files.folder, ignore_errors=True)
        self.files.logs.mkdir(parents=True)
        with self._progress() as progress:
            catalog = prepare_store(progress)
            profiles = measured_profiles(catalog, progress, again=profile_again)
        with ExitStack() as stack:
            fleet = stack.enter_context(self._fleet)
            broker = fleet.open(embedded=embedded)
            self._say(f"broker: {broker.kind} {broker.version} on port {broker.port}")
            for lack in broker.lacks:
                self._say(f"  the {broker.kind} broker: {lack}")
            self._say(f"live page meanwhile: splitfleet dashboard --site {SITE} --broker-port {broker.port}")
            link = self._subscribe(broker.port)
            stack.callback(link.stop)
            fleet.start(self._policy, profiles, self._seconds)
            self._watch(stop)
            codes = fleet.stop_devices()
            self._settle()
            codes |= fleet.stop_edge()
        for name, code in codes.items():
            if code:
                self._say(f"{name} ended with code {code}: see {self.files.logs / (name + '.log')}")
        return self._report()

    # -- while it runs ---------------------------------------------------------------------------------------------

    def _watch(self, stop: threading.Event) -> None:
        began = time.monotonic()
        for device in self._devices:
            plan = [(event.at * self._seconds, event.change) for event in device.events]
            self._fleet.relays[device.name].schedule(plan)
        pending = sorted(
            ((e.at * self._seconds, f"{d.name}: {e.words}") for d in self._devices for e in d.events), reverse=True
        )
        with ExitStack() as stack:
            screen = None if self._headless else stack.enter_context(Live(console=self._console, refresh_per_second=4))
            next_line_s = 0.0
            while not stop.is_set() and (elapsed_s := time.monotonic() - began) < self._seconds:
                self._fleet.check()
                while pending and pending[-1][0] <= elapsed_s:
                    at_s, words = pending.pop()
                    self._tell(f"{at_s:5.1f} s  {words}")
                self._take(REFRESH_S)
                picture = live(
                    elapsed_s, self._seconds, self._policy, self._devices, self._view, self._links(), self._news
                )
                if elapsed_s <= self._seconds / 2 or self._picture is None:
                    self._picture = picture
                if screen is not None:
                    screen.update(picture)
                elif elapsed_s >= next_line_s:
                    next_line_s = elapsed_s + 5
                    self._say(self._line(elapsed_s))

    def _links(self) -> dict[str, LinkShape | None]:
        return {name: None if relay.down else relay.link for name, relay in self._fleet.relays.items()}

    def _line(self, elapsed_s: float) -> str:
        facts = summarise(list(self._view.devices.values()))
        counts = ", ".join(f"{count} {outcome}" for outcome, count in facts["outcomes"].items())
        return f"{elapsed_s:5.1f} s  {len(self._view.devices)} devices, {counts}, {facts['decisions']} decisions"

    def _tell(self, words: str) -> None:
        self._news.append(words)
        if self._headless:
            self._say(words)

    def _say(self, words: str) -> None:
        self._console.print(words, soft_wrap=True)

    def _subscribe(self, port: int) -> Link:
        followed = (
            channels.STATE,
            channels.TELEMETRY,
            channels.OUTCOMES,
            channels.DECISION,
            channels.WORKER_LOAD,
            channels.POLICY_STATE,
        )
        link = Link(
            LinkSettings(port=port),
            client_id=f"splitfleet-{SITE}-demo",
            inbox=self._inbox,
            subscriptions=[Subscription(channels.topic_filter(SITE, channel), channel.qos) for channel in followed],
        )
        link.start()
        return link

    def _take(self, timeout_s: float) -> bool:
        events = self._inbox.take(timeout_s)
        for event in events:
            if isinstance(event, Received) and event.payload:
                try:
                    address = channels.parse_topic(event.topic)
                    self._view.take(address.name, codec.decode(address.channel, event.payload))
                except WireError as error:
                    self._tell(f"unreadable message: {error}")
        return bool(events)

    def _settle(self) -> None:
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline and self._take(0.5):
            pass

    @contextmanager
    def _progress(self) -> Iterator[Callable[[str, int, int], None]]:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        with Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True) as bar:
            task = bar.add_task("preparing", total=None)
            yield lambda words, done, total: bar.update(task, description=words, completed=done, total=total)

    # -- at its end ------------------------------------------------------------------------------------------------

    def _report(self) -> dict[str, Any]:
        views = [self._view.devices[d.name] for d in self._devices if d.name in self._view.devices]
        report = summarise(views)
        report["devices"] = {view.name: summarise([view]) for view in views}
        left = {device.name: _left_behind(self.files.ledger(device.name)) for device in self._devices}
        for name, count in left.items():
            facts = report["devices"].setdefault(name, summarise([]))
            # A line still on the board was captured but never told: neither side of the sum above has it.
            facts["frames_captured"] += count
            facts["unaccounted"] += count
        report["frames_captured"] += sum(left.values())
        report["unaccounted"] += sum(left.values())
        report["policy"] = self._policy
        report["decided_by"] = dict(sum((view.decided_by for view in views), Counter[str]()))
        report["fallback"] = dict(self._view.fallback)
        report["decide_ms_max"] = max(self._view.decide_ms, default=None)
        report["seconds"] = self._seconds
        report["store"] = _store_summary(self.files.points)
        report["store_differs"] = any(
            report["store"].get(name, {}).get(key) != facts[key]
            for name, facts in report["devices"].items()
            for key in ("frames_captured", "outcomes")
        )
        return report

    def save_picture(self, path: Path) -> None:
        """Write the live picture at half-time, when most is going on, as SVG."""
        paper = Console(record=True, width=PAPER_WIDTH, file=path.open("w", encoding="utf-8"), force_terminal=True)
        paper.print(self._picture)
        paper.save_svg(str(path), title="splitfleet demo")


def _left_behind(ledger: Path) -> int:
    """Return how many frame lines a device still keeps because nobody recorded them."""
    if not ledger.is_file():
        return 0
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as db:
        count: int = db.execute("SELECT count(*) FROM frames").fetchone()[0]
        return count


def _store_summary(path: Path) -> dict[str, Any]:
    """Return the same figures from the recorder's store."""
    found = totals(path, SITE)
    return {name: _as_summary(told) for name, told in (*found.devices.items(), ("fleet", found.fleet))}


def _as_summary(told: Totals) -> dict[str, Any]:
    facts = dataclasses.asdict(told)
    return {**facts, "frames_captured": facts.pop("captured"), "unaccounted": facts.pop("gap")}
