"""A board's life in emulation: flashed, installed without a network, let in by its certificate, told what to do."""

from __future__ import annotations

import datetime
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_broker_side.broker import BrokerSettings, start_broker
from edge_broker_side.identity.register import SiteRegister
from edge_broker_side.identity.site_files import ACCOUNTS, POLICY, RECORDER, WORKER, SiteFiles
from edge_broker_side.store import StoreError
from edge_broker_side.totals import Totals, totals
from tflite_models.catalog import load_catalog
from tools.flash.bundle import Bundle, Order, make_bundle
from tools.flash.debian_root import ENVIRONMENT, SUITES, check_tools, debian_root, emulation, enter
from tools.flash.errors import FlashError
from tools.prepared import Progress, prepare_versions
from tools.supervisor import Supervisor
from wire import channels, codec
from wire.channels import Role
from wire.inbox import Inbox
from wire.link import LinkSettings, Received, Subscription, TlsSettings
from wire.messages import Capabilities, Decision, Outcome
from wire.mqtt import Link
from wire.plan import NO_CODEC, OUTPUT, Plan
from wire.settings import load_settings

SITE = "selftest"
FRAMES = 20
"""Of each outcome that is waited for."""
MOST_MB = 30
"""What a bundle with one light version may take, with the light runtime (Python 3.11)."""
PATIENCE_S = 300.0
DEADLINE_MS = 60_000.0
"""An emulated board takes its time; nothing is to fall back for that."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What the self-test saw."""

    facts: dict[str, Any]
    """In the order in which they are told."""
    passed: bool


def selftest(order: Order, progress: Progress) -> Findings:
    """Flash a board into a Debian root, and let it classify and follow a decision over mutual TLS.

    Raises ``FlashError`` where it cannot be tried here; a step that never comes raises it too, naming the step.
    """
    check_tools(order.target)
    with ExitStack() as stack:
        stack.enter_context(emulation(order.target))
        root = debian_root(order.target, order.python, progress)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="splitfleet-selftest-")))
        progress("a site, and a bundle for its board", 0, 6)
        site = _make_site(folder / "site", order)
        bundle = make_bundle(order, site.folder, folder / "bundle", lambda *_: None)
        progress("installing in the board's system, without a network", 1, 6)
        began_s = time.monotonic()
        network, system = _install(root, bundle)
        facts: dict[str, Any] = {
            "target": order.target.name,
            "system": f"Debian {SUITES[order.python]} {order.target.debian}, {system}",
            "bundle_mb": round(bundle.size_of() / 1e6, 2),
            "packages_mb": round(bundle.size_of("wheels/") / 1e6, 2),
            "install_s_emulated": round(time.monotonic() - began_s, 1),
            "network_while_installing": network,
        }
        progress("broker, recorder, worker", 2, 6)
        edge = stack.enter_context(_edge(site, order, folder))
        return _watch(edge, order, root, facts, progress)


def _make_site(folder: Path, order: Order) -> SiteFiles:
    now = datetime.datetime.now(datetime.UTC)
    held = SiteRegister(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        held.create(SITE, ["127.0.0.1"], free.getsockname()[1], now)
    for account, role in {**ACCOUNTS, order.name: Role.DEVICE}.items():
        held.add(account, role, now)
    files = SiteFiles(folder, held.read())
    files.write()
    return files


def _install(root: Path, bundle: Bundle) -> tuple[str, str]:
    """Install as on a board that was never one of ours; return its network interfaces and its system's words."""
    for path in ("opt/splitfleet", "etc/splitfleet", "var/lib/splitfleet", "root/bundle"):
        shutil.rmtree(root / path, ignore_errors=True)
    shutil.copytree(bundle.folder, root / "root" / "bundle")
    script = (
        "if getent passwd splitfleet >/dev/null; then userdel splitfleet; fi; "
        "sh /root/bundle/install.sh --no-service >&2; "
        'tail -n +3 /proc/net/dev | cut -d: -f1 | xargs; echo "$(uname -m), $(python3 -V)"'
    )
    line = enter(root, ["sh", "-ec", script], network=False)
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    shutil.rmtree(root / "root" / "bundle")
    if done.returncode:
        raise FlashError(f"install.sh failed in the board's system: {' '.join(done.stderr.split()[-60:])}")
    network, system = done.stdout.strip().splitlines()
    return network, system


@dataclass(frozen=True, slots=True)
class _Edge:
    """The other side: broker, recorder and worker run, and we stand by as the policy."""

    site: SiteFiles
    processes: Supervisor
    link: Link
    inbox: Inbox
    service: socket.socket
    """Stands in for systemd."""
    heard: dict[str, Any]
    logs: Path

    def counted(self, device: str) -> Totals | None:
        """What the recorder's store holds of the device."""
        try:
            return totals(self.store, SITE).devices.get(device)
        except StoreError:
            return None

    @property
    def store(self) -> Path:
        """The recorder's store."""
        return self.site.folder / "records.sqlite"

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something is so; raises ``FlashError`` when it never is."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            self.processes.check()
            self._hear()
            if time.monotonic() > deadline_s:
                words = [f"{log.stem}: {_last_line(log)}" for log in sorted(self.logs.glob("*.log"))]
                raise FlashError(f"waited {PATIENCE_S:g} s in vain for {what}; last words: {' | '.join(words)}")

    def _hear(self) -> None:
        for event in self.inbox.take(0.2):
            if isinstance(event, Received) and event.payload:
                self.heard["capabilities"] = codec.decode(channels.CAPABILITIES, event.payload)
        while True:
            try:
                said = self.service.recv(4096).decode()
            except BlockingIOError:
                return
            for line in said.splitlines():
                key, _, value = line.partition("=")
                self.heard[key] = value if key == "STATUS" else self.heard.get(key, 0) + 1


@contextmanager
def _edge(site: SiteFiles, order: Order, folder: Path) -> Iterator[_Edge]:
    prepare_versions(site.folder / "data" / "models", order.versions, progress=lambda *_: None, heads=False)
    log = folder / "broker.log"
    broker = replace(load_settings(BrokerSettings, site.path("broker")), host="127.0.0.1", log_file=str(log))
    held = SiteRegister(site.folder)
    tls = TlsSettings(str(held.ca), str(held.certificate(POLICY)), str(held.key(POLICY)))
    inbox = Inbox()
    wanted = [Subscription(channels.topic_filter(SITE, channels.CAPABILITIES), 1)]
    with ExitStack() as stack:
        stack.enter_context(start_broker(broker))
        processes = stack.enter_context(Supervisor(folder / "logs"))
        processes.start(RECORDER, "edge_broker_side", "recorder", str(site.path(RECORDER)))
        processes.start(WORKER, "edge_broker_side", "worker", str(site.path(WORKER)))
        link = Link(
            LinkSettings(port=site.register.port, tls=tls),
            f"{SITE}-policy",
            inbox,
            subscriptions=wanted,
            clean_start=True,
        )
        service = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        service.bind("")  # the kernel gives it an abstract name, which the board's root cannot hide
        service.setblocking(False)
        link.start()
        stack.callback(link.stop)
        yield _Edge(site, processes, link, inbox, service, {}, folder / "logs")


def _watch(edge: _Edge, order: Order, root: Path, facts: dict[str, Any], progress: Progress) -> Findings:
    name = order.name
    board = "/opt/splitfleet/current/bin/python"
    notify = {"NOTIFY_SOCKET": "@" + edge.service.getsockname()[1:].decode(), "WATCHDOG_USEC": "2000000"}
    progress("the board classifies alone", 3, 6)
    arguments = (str(root), "splitfleet:splitfleet", board, "-m", "device_client", "/etc/splitfleet/device.toml")
    edge.processes.start(name, "tools.flash.in_root", *arguments, env=notify)
    edge.wait(lambda: "capabilities" in edge.heard, "the board's first words over mutual TLS")
    told: Capabilities = edge.heard["capabilities"]
    _decide(edge, order, 1, Plan(order.versions[0], OUTPUT, NO_CODEC))
    edge.wait(lambda: _frames(edge, name, Outcome.DEVICE) >= FRAMES, "frames that the board classifies alone")
    plan = _inner_plan(edge.site.folder / "data" / "models", order.versions[0])
    progress(f"the board follows a decision: {plan}", 4, 6)
    _decide(edge, order, 2, plan)
    edge.wait(lambda: _frames(edge, name, Outcome.EDGE) >= FRAMES, f"frames that the edge completes after {plan}")
    memory = _memory_mb(edge.processes.pid(name))
    progress("the board stops", 5, 6)
    edge.wait(lambda: edge.heard.get("WATCHDOG", 0) >= 3, "the client's sign of life to systemd")
    code = edge.processes.stop([name], timeout_s=120.0)[name]
    edge.wait(lambda: (edge.counted(name) or _NOTHING).gap == 0, "the last frames' outcomes")
    edge.wait(lambda: "STOPPING" in edge.heard, "the client's goodbye to systemd")
    held = edge.counted(name) or _NOTHING
    cuts = _query(
        edge.store, "SELECT DISTINCT version || '/' || cut || '/' || codec FROM inference WHERE outcome = 'edge'"
    )
    accounted = held.gap == 0 and sum(held.outcomes.values()) == held.captured
    small = order.python != "3.11" or facts["bundle_mb"] <= MOST_MB
    alone = facts["network_while_installing"] == "lo"
    passed = accounted and small and alone and code == 0 and cuts == [(str(plan),)]
    facts |= {
        "runtime": told.runtime,
        "client": told.client_version,
        "decided": str(plan),
        "followed": [cut for (cut,) in cuts],
        "frames": {**held.outcomes, "captured": held.captured, "unaccounted": held.gap},
        "accuracy": held.accuracy,
        "service": {key.lower(): edge.heard.get(key, 0) for key in ("READY", "WATCHDOG", "STOPPING")},
        "status": edge.heard.get("STATUS", ""),
        "memory_mb_with_emulator": memory,
        "exit_code": code,
        "passed": passed,
    }
    return Findings(facts, passed)


_NOTHING = Totals(0, dict.fromkeys(map(str, Outcome), 0), -1, None, None, None, None, None, 0, 0)


def _frames(edge: _Edge, device: str, outcome: Outcome) -> int:
    return (edge.counted(device) or _NOTHING).outcomes[outcome]


def _inner_plan(models: Path, version: str) -> Plan:
    """Return a plan that both sides have a half of."""
    plans = [plan for plan, _ in load_catalog(models).folder(version).version.all_plans()]
    inner = [plan for plan in plans if not plan.is_local and not plan.ships_input]
    return next((plan for plan in inner if plan.codec == "q8"), inner[0])


def _decide(edge: _Edge, order: Order, rev: int, plan: Plan) -> None:
    decision = Decision(rev, plan, DEADLINE_MS, POLICY, "the self-test decides")
    where = channels.topic(SITE, order.name, channels.DECISION)
    edge.link.publish(where, codec.encode(channels.DECISION, decision), qos=1, retain=True)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _memory_mb(pid: int) -> dict[str, float]:
    """Return resident memory of a process, now and at most, in MB; of an emulated one with its emulator."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    told = dict(line.split(":", 1) for line in lines)
    return {
        name: round(int(told[key].split()[0]) * 1024 / 1e6, 1) for name, key in (("now", "VmRSS"), ("peak", "VmHWM"))
    }


def _query(store: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True, timeout=5)) as db:
        return db.execute(sql).fetchall()
