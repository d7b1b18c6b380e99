"""A fleet as its owner runs it: site init, devices add, up, frames over mutual TLS, doctor, and out again."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
import tomli_w

from edge_broker_side.broker import free_port
from edge_broker_side.identity.register import SiteRegister
from edge_broker_side.identity.site_files import POLICY, SiteFiles
from tests.command_line import Home
from tools.supervisor import Supervisor
from wire import channels, codec
from wire.inbox import Inbox
from wire.link import LinkSettings
from wire.messages import Decision
from wire.mqtt import Link
from wire.plan import parse_plan
from wire.settings import settings_from

SITE = "plant-1"
SPLIT = "resnet-light/s2/q8"
PATIENCE_S = 40.0


def until(condition: Callable[[], object], what: str, look: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}: {look()}"
        time.sleep(0.05)


class Fleet:
    """A site in a home of its own, and what its owner types."""

    def __init__(self, typed: Home) -> None:
        self.home = typed.path
        self.site = self.home / "sites" / SITE
        self.told = typed.told

    @contextmanager
    def up(self) -> Iterator[Callable[[], str]]:
        """Run ``splitfleet up``; yields what it has said so far."""
        said = self.home / "up.txt"
        with said.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "tools.cli", "up", "--site", SITE, "--version", "resnet-light"],
                env={**os.environ, "SPLITFLEET_HOME": str(self.home), "PYTHONUNBUFFERED": "1"},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
            try:
                yield said.read_text
                assert process.poll() is None, said.read_text()
                process.send_signal(signal.SIGINT)
                assert process.wait(60) == 0, said.read_text()
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()

    def processes(self, name: str) -> list[psutil.Process]:
        """The site's processes whose settings file is ``name``.toml."""
        file = str(self.site / f"{name}.toml")
        return [one for one in psutil.process_iter(["cmdline"]) if file in (one.info["cmdline"] or [])]

    def frames(self, outcome: str) -> int:
        """Frames of an outcome in the recorder's store."""
        try:
            with closing(sqlite3.connect(f"file:{self.site / 'records.sqlite'}?mode=ro", uri=True)) as db:
                return int(db.execute("SELECT count(*) FROM inference WHERE outcome = ?", (outcome,)).fetchone()[0])
        except sqlite3.Error:
            return 0

    def decide(self, device: str, plan: str) -> None:
        """Publish a decision as the policy's account does."""
        files = SiteFiles(self.site, SiteRegister(self.site).read())
        settings = settings_from(LinkSettings, files.link(POLICY), "test")
        link = Link(settings, POLICY, Inbox(), clean_start=True)
        link.start()
        until(lambda: link.connected, "the policy's connection", lambda: link.problem)
        message = Decision(7, parse_plan(plan), 5000.0, "test", "because the test says so")
        where = channels.topic(SITE, device, channels.DECISION)
        assert link.publish(where, codec.encode(channels.DECISION, message), qos=1, retain=True)
        until(lambda: link.waiting == 0, "the broker's acknowledgement")
        link.stop()

    def device_settings(self, name: str) -> str:
        """Write what a board is told; return the file."""
        files = SiteFiles(self.site, SiteRegister(self.site).read())
        path = self.home / f"{name}.toml"
        document = {
            "site": SITE,
            "name": name,
            "models": str(self.site / "data" / "models"),
            "state": str(self.home / name),
            "deadline_ms": 5000.0,
            "camera": {"kind": "pack", "fps": 10.0},
            "link": {**files.link(name), "backoff_max_s": 0.5},
        }
        path.write_bytes(tomli_w.dumps(document).encode())
        return str(path)


@pytest.fixture
def fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fleet:
    return Fleet(Home(tmp_path / "home", capsys, monkeypatch))


@pytest.mark.timeout(180)
def test_from_site_init_to_frames_over_mutual_tls_and_out_again(fleet: Fleet) -> None:
    fleet.told("site", "init", SITE, "--port", str(free_port()))
    for name in ("cam-01", "cam-02"):
        fleet.told("devices", "add", name, "--tag", "line-3")
    with fleet.up() as said, Supervisor(fleet.home / "logs") as boards:
        until(lambda: "is up" in said(), "the site", said)
        assert "profile edge" in said(), "what is missing is said"
        boards.start("cam-01", "device_client", fleet.device_settings("cam-01"))
        fleet.decide("cam-01", SPLIT)
        until(lambda: fleet.frames("edge") >= 10, "frames finished at the edge", boards.ended)
        _is_seen(fleet)
        _is_restarted(fleet, said)
        _is_shut_out(fleet, boards)
    assert not any(fleet.processes(name) for name in ("broker", "edge-1", "recorder"))
    _no_key_leaked(fleet)


def _is_seen(fleet: Fleet) -> None:
    devices = {one["name"]: one for one in fleet.told("devices")["devices"]}
    seen, absent = devices["cam-01"], devices["cam-02"]
    assert (seen["state"], seen["plan"], seen["decided_rev"], seen["problems"]) == ("ready", SPLIT, 7, [])
    assert list(seen["versions"]) == ["resnet-light"] and len(seen["versions"]["resnet-light"]) == 64
    assert abs(seen["clock_ahead_ms"]) < 2000 and seen["tags"] == ["line-3"]  # both clocks are this machine's
    assert absent["state"] == "never seen" and absent["plan"] is None
    chosen = fleet.told("devices", "list", "--where", "tag=line-3 and runtime=tflite and state=ready")["devices"]
    assert [one["name"] for one in chosen] == ["cam-01"]
    assert fleet.told("devices", "--where", "tag=line-4")["devices"] == []
    edge, board = fleet.told("doctor", "--seconds", "1"), fleet.told("doctor", "cam-01", "--seconds", "2")
    assert edge["ok"] and board["ok"]
    verdicts = {check["what"]: check["verdict"] for check in (*edge["checks"], *board["checks"])}
    for what in ("TLS", "broker certificate", "largest packet", "worker edge-1", "certificate", "plan", "store disk",
                 "frames unaccounted", "telemetry lost", "disk"):  # fmt: skip
        assert verdicts[what] == "ok", (what, edge, board)
    assert {"round trip", "uplink", "clock", "fallback", "memory"} <= verdicts.keys(), "measured, however busy we are"
    assert any(what.startswith("recorder") and verdict == "ok" for what, verdict in verdicts.items())
    status = fleet.told("site", "status", SITE)
    assert status["broker_answers"] and status["acl_up_to_date"] and status["mode"] == "mutual-tls"
    assert status["refused"] == [], "an honest site was counted"


def _is_restarted(fleet: Fleet, said: Callable[[], str]) -> None:
    (worker,) = fleet.processes("edge-1")
    worker.kill()
    until(lambda: "edge-1 ended: code -9" in said() and "restart 1" in said(), "the restart to be told", said)
    until(lambda: fleet.processes("edge-1"), "the worker")
    until(lambda: json.loads((fleet.site / "up.json").read_text())["edge-1"]["restarts"] == 1, "the count")
    before = fleet.frames("edge")
    until(lambda: fleet.frames("edge") > before + 5, "frames of the new worker")


def _is_shut_out(fleet: Fleet, boards: Supervisor) -> None:
    key = fleet.site / "accounts" / "cam-01" / "key.pem"
    stolen = key.read_bytes()
    fleet.told("devices", "revoke", "cam-01")
    assert not key.exists()
    boards.kill("cam-01")
    key.write_bytes(stolen)
    boards.start("cam-01", "device_client", fleet.device_settings("cam-01"))

    def counted() -> dict[str, int]:
        rows = fleet.told("site", "status", SITE)["refused"]
        return {row["attempt"]: row["count"] for row in rows}

    until(lambda: counted().get("bad-certificate"), "the refusal to be counted", counted)
    assert {one["name"]: one["state"] for one in fleet.told("devices")["devices"]}["cam-01"] == "revoked"
    judged = fleet.told("doctor", "cam-01", "--seconds", "1", code=1)
    assert judged["checks"][0]["verdict"] == "bad" and "devices add cam-01" in judged["checks"][0]["advice"]
    key.unlink()


def _no_key_leaked(fleet: Fleet) -> None:
    """Of all that a run has written, keys alone hold keys, and only their owner may read them."""
    files = [path for path in fleet.home.rglob("*") if path.is_file()]
    assert any(path.suffix == ".log" for path in files)
    holders = [path for path in files if b"PRIVATE KEY" in path.read_bytes()]
    assert len(holders) >= 8 and all(path.stem in ("key", "ca", "bundles") for path in holders), holders
    assert all(path.stat().st_mode & 0o077 == 0 for path in holders)
