"""The pages in a real Chromium, fed over a real broker: what is shown, what changes, and what stays outside."""

from __future__ import annotations

import http.client
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from playwright.sync_api import expect

from edge_broker_side.broker import Broker
from tests.brokers import launch
from tests.tools.dashboard.messages import (
    LOCAL,
    SHIP,
    capabilities,
    decision,
    line,
    load,
    outcomes,
    policy,
    recorder,
    telemetry,
)
from tools.bench.browser import headless_chromium
from tools.bench.dashboard import observe, wait_address
from tools.bench.made_fleet import MadeFleet
from tools.supervisor import Supervisor
from wire import channels
from wire.channels import Channel
from wire.codec import encode
from wire.inbox import Inbox
from wire.link import LinkSettings
from wire.messages import DeviceState, Outcome, Shadow, State, WorkerState
from wire.mqtt import Link
from wire.plan import Plan

SITE = "browsed"
PASSWORD = "correct horse"
PATIENCE_MS = 20_000
HOSTILE = (
    '<img src=x onerror="window.hacked=1"></script><script>window.hacked=2</script>'
    "`+(window.hacked=3)+`${window.hacked=4}"
)


class Site:
    """A broker, a voice for every member of the site, and two dashboards: of this machine, and behind a password."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker: Broker = launch("mosquitto", folder / "broker")
        self.port = self.broker.port
        password = folder / "password"
        password.write_text(PASSWORD)
        self.processes = Supervisor(folder)
        usual = ("dashboard", "--site", SITE, "--port", "0", "--broker-port", str(self.port))
        self.processes.start("open", "tools.cli", *usual)
        self.processes.start("locked", "tools.cli", *usual, "--host", "0.0.0.0", "--password-file", str(password))
        settings = LinkSettings(port=self.port, backoff_max_s=0.2)
        self._link = Link(settings, "voices", Inbox())
        self._link.start()

    @property
    def address(self) -> str:
        return wait_address(self.folder / "open.log", self.processes)

    @property
    def locked_address(self) -> str:
        told = wait_address(self.folder / "locked.log", self.processes)
        return f"http://127.0.0.1:{urlsplit(told).port}"

    def say(self, channel: Channel, message: object, name: str) -> None:
        self.raw(channel, encode(channel, message), name)

    def raw(self, channel: Channel, payload: bytes, name: str) -> None:
        topic = channels.topic(SITE, name, channel)
        assert self._link.publish(topic, payload, qos=1, retain=channel.retained) is not None

    def restart_broker(self) -> None:
        self.broker = launch("mosquitto", self.folder / "broker", self.port)

    def close(self) -> None:
        self.processes.stop(self.processes.names())
        self._link.stop(drain_s=0.0)
        self.broker.stop()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    running = Site(tmp_path_factory.mktemp("dashboard"))
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def strange() -> list[str]:
    """Everything that no page should have done."""
    return []


@pytest.fixture(scope="module")
def page(site: Site, strange: list[str]) -> Iterator[Any]:
    """One window for all tests."""
    with headless_chromium() as browser:
        window = browser.new_page(viewport={"width": 1400, "height": 900})
        window.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        window.on("console", lambda told: strange.append(f"{told.type}: {told.text}"))
        window.on("pageerror", lambda error: strange.append(f"error: {error}"))
        window.on("request", lambda asked: _foreign(asked.url, strange))
        window.on("websocket", lambda socket: _foreign(socket.url, strange))
        yield window


def _foreign(url: str, strange: list[str]) -> None:
    if urlsplit(url).scheme != "data" and urlsplit(url).hostname != "127.0.0.1":
        strange.append(f"asked {url}")


def cell(page: Any, device: str, column: str) -> Any:
    return page.locator(f"[row-id='{device}'] [col-id='{column}']")


def test_a_device_appears_and_its_row_follows_it(site: Site, page: Any) -> None:
    page.goto(site.address)
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    site.say(channels.STATE, State(DeviceState.READY, 1), "cam-1")
    site.say(channels.TELEMETRY, telemetry(SHIP, uplink_bps=7.25e6, battery_share=0.5), "cam-1")
    lines = [
        line(n, Outcome.EDGE if n > 2 else Outcome.FALLBACK, reason="" if n > 2 else "no-answer") for n in range(1, 21)
    ]
    site.say(channels.OUTCOMES, outcomes(1, 20, *lines), "cam-1")
    for column, text in (
        ("state", "ready"), ("plan", SHIP), ("fallback", "10 %"), ("uplink", "7.2"), ("battery", "50 %"),
        ("p50", "50"), ("energy", "40"), ("source", "modelled"),
    ):  # fmt: skip
        expect(cell(page, "cam-1", column)).to_have_text(text)
    expect(cell(page, "cam-1", "mix").get_by_role("img")).to_have_attribute(
        "aria-label", "edge 18, device 0, fallback 2, dropped 0"
    )
    site.say(channels.TELEMETRY, telemetry(LOCAL), "cam-1")
    expect(cell(page, "cam-1", "plan")).to_have_text(LOCAL)


def test_a_lost_device_is_in_plain_sight_and_the_table_can_be_filtered(site: Site, page: Any) -> None:
    site.say(channels.STATE, State(DeviceState.READY, 1), "cam-2")
    site.say(channels.STATE, State(DeviceState.LOST, 1), "cam-3")
    expect(page.get_by_text("1 device lost: cam-3")).to_be_visible()
    expect(cell(page, "cam-3", "state")).to_have_text("lost")
    expect(page.locator(".ag-center-cols-container .ag-row").first).to_contain_text(re.compile("lost|silent"))
    page.get_by_label("Filter devices").fill("cam-2")
    expect(cell(page, "cam-1", "state")).to_have_count(0)
    expect(cell(page, "cam-2", "state")).to_be_visible()
    site.raw(channels.STATE, b"", "cam-3")
    expect(page.get_by_text("1 device lost: cam-3")).to_have_count(0)


def test_a_device_in_depth(site: Site, page: Any) -> None:
    site.say(channels.CAPABILITIES, capabilities(sha256="5e" * 32), "cam-1")
    site.say(channels.DECISION, decision(3, LOCAL, "uplink fell to 0.2 Mbit/s"), "cam-1")
    site.say(channels.TELEMETRY, telemetry(LOCAL, counters={"link_not_sent_evicted": 17}), "cam-1")
    page.get_by_label("Filter devices").fill("")
    page.get_by_role("link", name="cam-1", exact=True).click()
    expect(page.get_by_role("heading", name="cam-1 ready")).to_be_visible()
    for text in (
        "uplink fell to 0.2 Mbit/s",
        "Raspberry Pi 4",
        "5e5e5e5e5e5e5e5e",
        "link_not_sent_evicted",
        "fallback: no-answer",
    ):
        expect(page.get_by_text(text).first).to_be_visible()
    expect(page.locator(".nicegui-echart canvas")).to_have_count(4)
    site.say(channels.DECISION, decision(4, SHIP, "the link recovered"), "cam-1")
    expect(page.get_by_role("cell", name="the link recovered")).to_be_visible()


def test_the_edge_and_the_backlog(site: Site, page: Any) -> None:
    site.say(channels.WORKER_STATE, WorkerState(DeviceState.READY, 1, "ai-edge-litert", 2), "edge-1")
    site.say(
        channels.WORKER_LOAD, load(queued=9, busy=4, utilisation=0.75, service_ms={"resnet-heavy/input": 3.5}), "edge-1"
    )
    down = recorder(reachable=False, waiting=12_345, oldest_s=90.0, dead=2, problem="wrong token: set it anew")
    site.say(channels.RECORDER_STATE, down, "recorder")
    page.get_by_role("link", name="Edge", exact=True).click()
    for text in (
        "metrics server not reached, 12,345 points wait: wrong token: set it anew", "2 points refused for good",
        "worker edge-1 turned away 4 frames", "12,345 points, the oldest 90 s old", "resnet-heavy/input",
    ):  # fmt: skip
        expect(page.get_by_text(text).first).to_be_visible()
    expect(page.get_by_role("row", name="edge-1 ready")).to_contain_text("75")
    expect(page.locator(".nicegui-echart canvas")).to_have_count(6)
    site.say(channels.RECORDER_STATE, recorder(), "recorder")
    expect(page.get_by_text("metrics server not reached")).to_have_count(0)


def test_the_policy(site: Site, page: Any) -> None:
    told = policy(
        fallback={"no fresh telemetry": 4}, collapsed=True, collapse="all follow one plan", problems=("rules: no",)
    )
    site.say(channels.POLICY_STATE, told, "policy")
    site.say(channels.SHADOW, Shadow(1, "a2c", "pricing"), "policy")
    page.get_by_role("link", name="Policy", exact=True).click()
    expect(page.get_by_role("heading", name="a2c decides")).to_be_visible()
    for text in ("no fresh telemetry", "all follow one plan", "rules: no", "0.50 nats, 25% of its maximum", "pricing"):
        expect(page.get_by_text(text).first).to_be_visible()
    expect(page.locator(".nicegui-echart canvas")).to_have_count(3)


def test_what_a_hostile_device_says_is_shown_and_never_run(site: Site, page: Any) -> None:
    plan = Plan(HOSTILE[:60], ":cut", HOSTILE)
    site.say(channels.STATE, State(DeviceState.READY, 1, HOSTILE), "evil")
    site.say(channels.CAPABILITIES, capabilities(HOSTILE, HOSTILE), "evil")
    site.say(channels.TELEMETRY, telemetry(plan, uplink_bps=1.0, counters={HOSTILE: 3, ":x": 4}), "evil")
    site.say(channels.OUTCOMES, outcomes(1, 1, line(1, Outcome.DROPPED, reason=HOSTILE)), "evil")
    site.say(channels.DECISION, decision(1, reason=HOSTILE), "evil")
    site.say(channels.WORKER_LOAD, load(service_ms={HOSTILE: 1.0}, counters={HOSTILE: 1}), "edge-1")
    site.say(channels.POLICY_STATE, policy(deciding=HOSTILE, problems=(HOSTILE,), fallback={HOSTILE: 1}), "policy")
    site.say(channels.RECORDER_STATE, recorder(reachable=False, problem=HOSTILE, counters={HOSTILE: 1}), "recorder")
    site.raw(channels.TELEMETRY, b"\xc1rubbish", "evil")
    for path in ("/", "/device/evil", "/policy", "/edge"):
        page.goto(site.address + path)
        expect(page.get_by_text("could not be read").first).to_be_visible()
        expect(page.get_by_text("<img src=x").first).to_be_visible()
        assert page.evaluate("window.hacked") is None
        assert page.locator("img[src=x]").count() == 0
    page.goto(f"{site.address}/device/{'%3Cimg%20src=x%20onerror=window.hacked=5%3E'}")
    expect(page.get_by_text("No device of this name")).to_be_visible()
    assert page.evaluate("window.hacked") is None


def test_a_broker_that_goes_is_told_at_once_and_its_return_too(site: Site, page: Any) -> None:
    page.goto(site.address)
    expect(cell(page, "cam-1", "plan")).to_have_text(LOCAL)
    site.broker.kill()
    expect(page.get_by_text("broker away for")).to_be_visible()
    expect(page.get_by_text("everything below is of before")).to_be_visible()
    expect(cell(page, "cam-1", "plan")).to_have_text(LOCAL)
    site.restart_broker()
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    site.say(channels.TELEMETRY, telemetry(SHIP), "cam-1")
    expect(cell(page, "cam-1", "plan")).to_have_text(SHIP)


def test_beyond_this_machine_everything_wants_the_password(site: Site, page: Any) -> None:
    page.goto(f"{site.locked_address}/device/cam-1")
    expect(page.get_by_role("heading", name="splitfleet · site browsed")).to_be_visible()
    page.get_by_label("Password of the dashboard").fill("wrong horse")
    with page.expect_response("**/login") as answered:
        page.get_by_role("button", name="Sign in").click()
    assert answered.value.status == 403
    expect(page.get_by_text("That is not the password.")).to_be_visible()
    where = urlsplit(site.locked_address)
    for path in ("/", "/_nicegui_ws/socket.io/?EIO=4&transport=polling"):
        assert _status(where.port, path) == 401
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
               "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}  # fmt: skip
    assert _status(where.port, "/_nicegui_ws/socket.io/?EIO=4&transport=websocket", upgrade) == 403
    page.get_by_label("Password of the dashboard").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(cell(page, "cam-1", "state")).to_have_text("ready")
    assert "unencrypted" in (site.folder / "locked.log").read_text()


def test_a_foreign_name_for_this_machine_is_refused(site: Site) -> None:
    port = urlsplit(site.address).port
    assert _status(port, "/", {"Host": "evil.example"}) == 421
    assert _status(port, "/", {"Host": f"localhost:{port}"}) == 200


def test_the_bench_measures_every_figure(site: Site, page: Any) -> None:
    fleet = MadeFleet(SITE, site.port, 2)
    fleet.round(0.1)
    process = psutil.Process(os.getpid())
    run = observe(page, site.address, process, fleet, 1.0, 0.2, 1, lambda _words, _done, _total: None)
    fleet.close()
    assert run.devices == 2 and run.unread == 1, "the rubbish of the hostile device"
    assert len(run.lag_ms) == 1 and len(run.memory_mb) == 4
    assert min(run.paint_s, run.paint_cached_s, *run.lag_ms, *run.memory_mb) > 0


def test_no_page_asked_another_host_or_complained(page: Any, strange: list[str]) -> None:
    expected = "the server responded with a status of 403"  # the wrong password
    assert [told for told in strange if expected not in told] == []


def test_both_end_in_good_order_although_a_page_is_open(site: Site, page: Any) -> None:
    site.processes.check()
    assert site.processes.stop(["open", "locked"]) == {"open": 0, "locked": 0}
    for name in ("open", "locked"):
        assert "Traceback" not in (site.folder / f"{name}.log").read_text()


def _status(port: int | None, path: str, headers: dict[str, str] | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_MS / 1000)
    try:
        connection.request("GET", path, headers=headers or {})
        return connection.getresponse().status
    finally:
        connection.close()
