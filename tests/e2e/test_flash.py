"""A board's way in, on this machine: site, device, bundle, first boot, frames over mutual TLS, a decision followed."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_broker_side.broker import BrokerSettings, start_broker
from edge_broker_side.identity.register import SiteRegister
from edge_broker_side.store import StoreError
from edge_broker_side.totals import Totals, totals
from tools.home import home
from tools.prepared import prepare_versions
from tools.supervisor import Supervisor
from wire import channels, codec
from wire.inbox import Inbox
from wire.link import LinkSettings, TlsSettings
from wire.messages import Decision
from wire.mqtt import Link
from wire.plan import parse_plan
from wire.settings import load_settings

SITE, DEVICE, PLAN = "plant-1", "cam-01", "resnet-light/s2/q8"
PATIENCE_S = 60.0
LINE = "console=tty1 root=PARTUUID=4e639091-02 rootwait"


def splitfleet(place: Path, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tools.cli", *arguments, "--json"],
        env={**os.environ, "SPLITFLEET_HOME": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def first_boot(boot: Path, board: Path) -> str:
    """Do what Raspberry Pi OS does with a card that was flashed; return the log."""
    (boot / "cmdline.txt").write_text(f"{LINE} systemd.run=/boot/firmware/firstrun.sh systemd.unit=x.target\n")
    (boot / "firstrun.sh").write_bytes((boot / "splitfleet" / "firstrun.sh").read_bytes())
    bare = {"PATH": os.environ["PATH"], "SPLITFLEET_PREFIX": str(board)}
    subprocess.run(["sh", str(boot / "firstrun.sh")], env=bare, cwd="/", check=True)
    return (boot / "splitfleet.log").read_text()


def test_from_site_init_to_a_decision_followed_over_mutual_tls(tmp_path: Path) -> None:  # noqa: PLR0915
    place = tmp_path / "home"
    place.mkdir()
    kept = home() / "wheelhouse"  # packages that this machine has fetched before need not be fetched again
    kept.mkdir(parents=True, exist_ok=True)
    (place / "wheelhouse").symlink_to(kept)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    site = Path(splitfleet(place, "site", "init", SITE, "--port", str(port))["folder"])
    splitfleet(place, "devices", "add", DEVICE)
    (tmp_path / "boot").mkdir()
    bundle = tmp_path / "boot" / "splitfleet"
    told = splitfleet(place, "flash", DEVICE, "--target", "x86", "--out", str(bundle))
    assert told["bytes"] == sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())

    board = tmp_path / "board"
    releases = board / "opt/splitfleet/releases"
    for older in ("first", "second"):
        (releases / older).mkdir(parents=True)
    (releases.parent / "current").symlink_to("releases/second")
    log = first_boot(tmp_path / "boot", board)
    assert f"{DEVICE} of site {SITE} runs resnet-light on tflite-runtime" in log
    assert {path.name for path in (tmp_path / "boot").iterdir()} == {"cmdline.txt", "splitfleet.log"}, "the key stays"
    assert (tmp_path / "boot" / "cmdline.txt").read_text() == f"{LINE}\n"
    assert {path.name for path in releases.iterdir()} == {"second", told["release"]}, "one to go back to, no more"

    with ExitStack() as stack:
        broker = replace(
            load_settings(BrokerSettings, site / "broker.toml"), host="127.0.0.1", log_file=str(place / "log")
        )
        stack.enter_context(start_broker(broker))
        prepare_versions(site / "data" / "models", ["resnet-light"], progress=lambda *_: None)
        edge = stack.enter_context(Supervisor(place / "logs"))
        edge.start("recorder", "edge_broker_side", "recorder", str(site / "recorder.toml"))
        edge.start("worker", "edge_broker_side", "worker", str(site / "edge-1.toml"))
        held = SiteRegister(site)
        tls = TlsSettings(str(held.ca), str(held.certificate("policy")), str(held.key("policy")))
        policy = Link(LinkSettings(port=port, tls=tls), "e2e-policy", Inbox(), clean_start=True)
        policy.start()
        stack.callback(policy.stop)
        client = [str(board / "opt/splitfleet/current/bin/python"), "-m", "device_client"]
        settings = str(board / "etc/splitfleet/device.toml")
        # Neither this repository nor its packages are in reach: only what the bundle brought.
        device = subprocess.Popen([*client, settings], cwd="/", env={"PATH": "/usr/bin:/bin"}, stderr=subprocess.PIPE)
        stack.callback(device.kill)

        def counted() -> Totals | None:
            edge.check()
            assert device.poll() is None, device.stderr and device.stderr.read()
            try:
                return totals(site / "records.sqlite", SITE).devices.get(DEVICE)
            except StoreError:
                return None

        wait(lambda: (now := counted()) and now.outcomes["device"] >= 3, "frames classified on the board")
        decision = Decision(1, parse_plan(PLAN), 30_000.0, "test", "because the test says so")
        where = channels.topic(SITE, DEVICE, channels.DECISION)
        policy.publish(where, codec.encode(channels.DECISION, decision), qos=1, retain=True)
        wait(lambda: (now := counted()) and now.outcomes["edge"] >= 3, "frames completed by the edge")
        device.send_signal(signal.SIGTERM)
        _, said = device.communicate(timeout=PATIENCE_S)
        assert device.returncode == 0, said
        found = totals(site / "records.sqlite", SITE).devices[DEVICE]
        assert found.gap == 0 and sum(found.outcomes.values()) == found.captured >= 6
        with closing(sqlite3.connect(site / "records.sqlite")) as db:
            plans = db.execute(
                "SELECT DISTINCT version || '/' || cut || '/' || codec FROM inference WHERE outcome = 'edge'"
            )
            assert plans.fetchall() == [(PLAN,)]
        with closing(sqlite3.connect(board / "var/lib/splitfleet/state/ledger.sqlite")) as ledger:
            assert ledger.execute("SELECT count(*) FROM frames").fetchone() == (0,), "lines were left on the board"


def wait(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s in vain for {what}"
        time.sleep(0.05)
