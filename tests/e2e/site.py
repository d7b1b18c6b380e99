"""A whole site for a test: real processes, a real broker, and questions to the recorder's store."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import tomli_w

from edge_broker_side.broker import Broker
from edge_broker_side.store import StoreError
from edge_broker_side.totals import Totals, totals
from tests.brokers import launch
from tools.supervisor import Supervisor
from wire import channels, codec
from wire.inbox import Inbox
from wire.link import LinkSettings
from wire.messages import Decision, Outcome
from wire.mqtt import Link
from wire.plan import Plan, parse_plan

SITE = "e2e"
PATIENCE_S = 40.0
DEADLINE_MS = 600.0


class Site:
    """Broker, recorder, workers and devices of one test; leaves nothing running."""

    def __init__(self, folder: Path, store: Path, kind: str) -> None:
        self._folder = folder
        self._models = store
        self._kind = kind
        self.broker: Broker = launch(kind, folder / "broker")
        self.port = self.broker.port
        self.processes = Supervisor(folder / "logs")
        self._rev = 0
        self._link = Link(
            LinkSettings(port=self.port, backoff_max_s=0.5, qos1_outbox_bytes=32 * 2**20), "test-operator", Inbox()
        )
        self._link.start()

    def close(self) -> None:
        """End everything."""
        self.processes.stop(self.processes.names())
        self._link.stop(drain_s=0.2)
        self.broker.stop()

    # -- the cast --------------------------------------------------------------------------------------------------

    def start_recorder(self) -> None:
        """Start the recorder."""
        self._start("recorder", "edge_broker_side", "recorder", {"store": {"path": str(self.points)}})

    def start_worker(self, name: str, **settings: Any) -> None:
        """Start a worker with one thread."""
        self._start(name, "edge_broker_side", "worker", {"models": str(self._models), "threads": 1, **settings})

    def start_device(self, name: str, *, fps: float = 30.0, port: int | None = None, **settings: Any) -> None:
        """Start a device that plays the shipped frames."""
        document = {
            "models": str(self._models),
            "state": str(self._folder / name),
            "deadline_ms": DEADLINE_MS,
            "camera": {"kind": "pack", "fps": fps, "queue": 4},
            **settings,
        }
        self._start(name, "device_client", None, document, port=port)

    def restart_broker(self, away_s: float = 0.5) -> None:
        """Kill the broker and, after a while, start it anew on the same port and folder."""
        self.broker.kill()
        time.sleep(away_s)
        self.broker = launch(self._kind, self._folder / "broker", self.port)

    def decide(self, device: str, plan: str | Plan) -> None:
        """Publish a retained decision."""
        self._rev += 1
        parsed = plan if isinstance(plan, Plan) else parse_plan(plan)
        message = Decision(self._rev, parsed, DEADLINE_MS, "test", "because the test says so")
        self.publish(
            channels.topic(SITE, device, channels.DECISION), codec.encode(channels.DECISION, message), retain=True
        )

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish anything."""
        self.wait_for(lambda: self._link.connected, "the test's own link")
        assert self._link.publish(topic, payload, qos=1, retain=retain) is not None
        self.wait_for(lambda: self._link.waiting == 0, "the broker's acknowledgement")

    # -- questions -------------------------------------------------------------------------------------------------

    @property
    def points(self) -> Path:
        """The recorder's store."""
        return self._folder / "points.sqlite"

    def counted(self, device: str) -> Totals:
        """What the recorder's store holds of a device so far."""
        none = dict.fromkeys((outcome.value for outcome in Outcome), 0)
        nothing = Totals(0, none, 0, None, None, None, None, None, 0, 0)
        try:
            return totals(self.points, SITE).devices.get(device, nothing)
        except StoreError:
            return nothing

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something is so; fail naming it when it never is, or when a process has ended."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            self.processes.check()
            assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s in vain for {what}"
            time.sleep(0.05)

    def let_pass(self, seconds: float) -> None:
        """Let processes that cannot be asked go on."""
        time.sleep(seconds)
        self.processes.check()

    def wait_counted(self, device: str, outcome: str, more: int = 1) -> Totals:
        """Wait until the store holds ``more`` frames of that outcome than now."""
        upto = self.counted(device).outcomes[outcome] + more
        self.wait_for(lambda: self.counted(device).outcomes[outcome] >= upto, f"{more} frames '{outcome}' of {device}")
        return self.counted(device)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the store."""
        with closing(sqlite3.connect(f"file:{self.points}?mode=ro", uri=True, timeout=5)) as db:
            return db.execute(sql).fetchall()

    def assert_all_counted(self, device: str, least: int) -> Totals:
        """Stop a device and demand that every frame it captured has exactly one outcome in the store."""
        codes = self.processes.stop([device])
        assert codes == {device: 0}, (self._folder / "logs" / f"{device}.log").read_text()
        with closing(sqlite3.connect(self._folder / device / "ledger.sqlite")) as ledger:
            assert ledger.execute("SELECT count(*) FROM frames").fetchone() == (0,), "lines were left on the device"
        told = self.counted(device)
        assert told.captured >= least
        assert told.gap == 0
        assert sum(told.outcomes.values()) == told.captured
        numbers = self.query(
            f"SELECT count(*), count(DISTINCT session || '/' || frame) FROM inference WHERE device = '{device}'"
        )
        assert numbers == [(told.captured, told.captured)]
        return told

    def _start(
        self, name: str, module: str, role: str | None, document: dict[str, Any], port: int | None = None
    ) -> None:
        link = {"port": port or self.port, "backoff_max_s": 0.5, "keepalive_s": 5, **document.pop("link", {})}
        path = self._folder / f"{name}.toml"
        path.write_bytes(tomli_w.dumps({"site": SITE, "name": name, "link": link, **document}).encode())
        self.processes.start(name, module, *([role] if role else []), str(path))
