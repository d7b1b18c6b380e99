"""The command ``splitfleet bench dashboard``: what the live page costs, watched in a browser, under a large fleet."""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.request import urlopen

import typer

from tools.bench.browser import BrowserError, headless_chromium

if TYPE_CHECKING:
    from tools.bench.made_fleet import MadeFleet

SITE = "bench"
ROUND_S = 1.0
SETTLE_S = 5.0
PROBES = 7
"""Changes of one device's figure, each timed from publishing to the cell of the table."""
PATIENCE_S = 60.0
_UNREAD = re.compile(r"([\d,]+) messages? (?:could|not)")


@dataclass(frozen=True, slots=True)
class Run:
    """What was measured; CPU shares are of one core, of the dashboard's process alone."""

    devices: int
    messages_per_s: float
    """That the broker took from the fleet."""
    start_s: float
    """From the start of the process to its first answer."""
    paint_s: float
    """From asking for the page to a row in the table, by a browser that has nothing cached."""
    paint_cached_s: float
    cpu_alone: float
    """Nobody watches."""
    cpu_fleet: float
    """One visitor on the page of the fleet."""
    cpu_device: float
    """One visitor on the page of one device."""
    sent_kbps: float
    """To one visitor on the page of the fleet, before compression."""
    lag_ms: tuple[float, ...]
    """From publishing a figure to reading it in the table."""
    memory_mb: tuple[float, ...]
    """Resident, at even times from the first message on."""
    minutes: float
    unread: int
    """Messages that the dashboard could not take in or read."""


def dashboard(
    devices: Annotated[int, typer.Option(min=1, max=2000, help="Simulated devices.")] = 500,
    seconds: Annotated[float, typer.Option(min=2, help="How long each of three loads is measured.")] = 60.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure to this file.")] = None,
) -> None:
    """Measure the live page: CPU, time to the first row, lag and memory, with a real broker and a real Chromium.

    Every simulated device says one telemetry and two batches of outcomes per second. Needs the extra `dev` and
    Chromium. Keep the machine idle: broker, fleet and browser share its cores with the dashboard.

    Example: splitfleet bench dashboard --devices 500 --json dashboard.json
    """
    from tools.output import check_writable, console, print_table

    check_writable(json_file)
    run = measure(devices, seconds)
    lag = f"{statistics.median(run.lag_ms):.0f} [{min(run.lag_ms):.0f}–{max(run.lag_ms):.0f}] ms"
    print_table(
        f"the dashboard under {run.devices:,} devices (measured)",
        ["what", "figure"],
        [
            ["messages taken in per second", f"{run.messages_per_s:,.0f}"],
            ["messages not taken in", f"{run.unread:,}"],
            ["start of the process to the first answer", f"{run.start_s:.1f} s"],
            ["asking for the page to its first row, nothing cached", f"{run.paint_s:.1f} s"],
            ["the same with the browser's cache", f"{run.paint_cached_s:.1f} s"],
            ["share of one core, nobody watching", f"{100 * run.cpu_alone:.0f} %"],
            ["share of one core, one visitor on the fleet", f"{100 * run.cpu_fleet:.0f} %"],
            ["share of one core, one visitor on a device", f"{100 * run.cpu_device:.0f} %"],
            ["sent to that visitor on the fleet", f"{run.sent_kbps:,.0f} kbit/s"],
            ["publishing to reading it in the table", lag],
            [f"memory over {run.minutes:.1f} min", " → ".join(f"{mb:.0f}" for mb in run.memory_mb) + " MB"],
        ],
    )
    if json_file is not None:
        json_file.write_text(json.dumps({"measured": True, **dataclasses.asdict(run)}, indent=2) + "\n", "utf-8")
        console().print(f"written to {json_file}")


def measure(devices: int, seconds: float) -> Run:
    """Run broker, fleet, dashboard and browser; raises ``BrowserError`` where there is no Chromium."""
    import psutil

    from edge_broker_side.broker import BrokerSettings, start_broker
    from tools.bench.made_fleet import MadeFleet
    from tools.output import progress_bar
    from tools.supervisor import Supervisor

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        browser = stack.enter_context(headless_chromium())
        show = stack.enter_context(progress_bar())
        broker = stack.enter_context(
            start_broker(BrokerSettings(folder=str(folder / "broker"), port=0, log_file=str(folder / "broker.log")))
        )
        fleet = MadeFleet(SITE, broker.port, devices)
        stack.callback(fleet.close)
        supervisor = stack.enter_context(Supervisor(folder))
        begun_s = time.monotonic()
        options = ("--site", SITE, "--port", "0", "--broker-port", str(broker.port))
        supervisor.start("dashboard", "tools.cli", "dashboard", *options)
        address = wait_address(folder / "dashboard.log", supervisor)
        with urlopen(address, timeout=PATIENCE_S):  # answers when the server does
            start_s = time.monotonic() - begun_s
        process = next(one for one in psutil.Process().children() if "tools.lifeline" in one.cmdline())
        page = browser.new_page(viewport={"width": 1400, "height": 860})
        stack.enter_context(_speaking(fleet))
        return observe(page, address, process, fleet, start_s, seconds, PROBES, show)


def observe(
    page: Any,
    address: str,
    process: Any,
    fleet: MadeFleet,
    start_s: float,
    seconds: float,
    probes: int,
    show: Callable[[str, int, int], None],
) -> Run:
    """Measure a dashboard that runs as ``process`` under a fleet that speaks."""
    received = _count_received(page)
    memory_mb = [process.memory_info().rss / 1e6]
    first_s = time.monotonic()

    def load(words: str, number: int) -> float:
        show(words, number, 3)
        used_s, at_s = sum(process.cpu_times()[:2]), time.monotonic()
        page.wait_for_timeout(1000 * seconds)
        memory_mb.append(process.memory_info().rss / 1e6)
        return float((sum(process.cpu_times()[:2]) - used_s) / (time.monotonic() - at_s))

    page.wait_for_timeout(1000 * min(seconds, SETTLE_S))
    said, at_s = fleet.said, time.monotonic()
    cpu_alone = load("nobody watches", 0)
    messages_per_s = (fleet.said - said) / (time.monotonic() - at_s)
    paint_s, paint_cached_s = _paint(page, address), _paint(page, address)
    before = received[0]
    cpu_fleet = load("one visitor on the fleet", 1)
    sent_kbps = 8 * (received[0] - before) / seconds / 1000
    lag_ms = tuple(_lag_ms(page, fleet, number) for number in range(probes))
    unread = sum(int(text.replace(",", "")) for text in _UNREAD.findall(page.inner_text("main")))
    page.goto(f"{address}/device/{fleet.names[0]}")
    cpu_device = load("one visitor on a device", 2)
    return Run(
        devices=len(fleet.names),
        messages_per_s=messages_per_s,
        start_s=start_s,
        paint_s=paint_s,
        paint_cached_s=paint_cached_s,
        cpu_alone=cpu_alone,
        cpu_fleet=cpu_fleet,
        cpu_device=cpu_device,
        sent_kbps=sent_kbps,
        lag_ms=lag_ms,
        memory_mb=tuple(memory_mb),
        minutes=(time.monotonic() - first_s) / 60,
        unread=unread,
    )


@contextmanager
def _speaking(fleet: MadeFleet) -> Iterator[None]:
    stop = threading.Event()

    def speak() -> None:
        while not stop.is_set():
            fleet.round(ROUND_S)

    thread = threading.Thread(target=speak, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _count_received(page: Any) -> list[int]:
    """Return a count of the bytes that websockets bring, kept up to date while the browser is asked something."""
    total = [0]

    def count(payload: str | bytes) -> None:
        total[0] += len(payload)

    page.on("websocket", lambda opened: opened.on("framereceived", count))
    return total


def _paint(page: Any, address: str) -> float:
    begun_s = time.monotonic()
    page.goto(address)
    page.wait_for_selector(".ag-row", timeout=1000 * PATIENCE_S)
    return time.monotonic() - begun_s


def _lag_ms(page: Any, fleet: MadeFleet, number: int) -> float:
    """Have the first device tell a charge it never had, and wait for it to be in the table."""
    page.get_by_label("Filter devices").fill(fleet.names[0])
    charge = 50 + number
    begun_s = time.monotonic()
    fleet.charge = charge / 100
    fleet.telemetry(0)
    page.wait_for_function(
        "text => document.querySelector('.ag-row [col-id=battery]')?.textContent === text",
        arg=f"{charge} %", polling=20, timeout=1000 * PATIENCE_S,
    )  # fmt: skip
    return 1000 * (time.monotonic() - begun_s)


def wait_address(log: Path, supervisor: Any) -> str:
    """Return where a dashboard says it is shown; raises ``SupervisorError`` when it ends instead."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        supervisor.check()
        found = re.search(r"https?://\S+", log.read_text(encoding="utf-8"))
        if found:
            return found[0]
        time.sleep(0.05)
    raise BrowserError(f"the dashboard did not start within {PATIENCE_S:g} s")
