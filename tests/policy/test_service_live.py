"""What changes under a running service, over a real broker: rules, weights, a shadow, and what the recorder keeps."""

from __future__ import annotations

import dataclasses
import json
import socket
import sqlite3
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_broker_side.broker import Broker
from edge_broker_side.recorder import RecorderSettings
from edge_broker_side.recorder import run as record
from edge_broker_side.store import StoreSettings
from policy.baselines import FixedPlans
from policy.costs import CostModel
from policy.errors import PolicyError
from policy.guard import FALLBACK
from policy.interface import Policy
from policy.registry import LEARNED, POLICIES, NeedsWeights
from policy.service import PolicySettings, run
from tests.policy.builders import HEAVY_LOCAL, HEAVY_WEBP
from tests.policy.test_service import PATIENCE_S, Peer, files, settings_of, write
from tools.cli import main
from tools.operator_link import NotReached, Operator, OperatorSettings
from wire import channels
from wire import messages as m
from wire.codec import decode
from wire.exposition import ExpositionError, PrometheusSettings
from wire.inbox import Inbox
from wire.link import LinkSettings, Received, Subscription
from wire.mqtt import Link

__all__ = ["files"]


class Watcher:
    """Collects what the service says of itself and of its shadow."""

    def __init__(self, broker: Broker, site: str) -> None:
        self._inbox = Inbox()
        self.states: list[m.PolicyState] = []
        self.shadows: list[m.Shadow] = []
        wanted = [Subscription(channels.topic_filter(site, c), 1) for c in (channels.POLICY_STATE, channels.SHADOW)]
        settings = LinkSettings(host=broker.host, port=broker.port)
        self._link = Link(settings, f"watcher-{site}", self._inbox, subscriptions=wanted)

    def __enter__(self) -> Watcher:
        self._link.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop()

    def wait(self, reached: Callable[[], object]) -> None:
        while not reached():
            events = self._inbox.take(PATIENCE_S)
            assert events, f"waited in vain, the last state was {self.states[-1:]}"
            for event in events:
                if isinstance(event, Received):
                    message = decode(channels.parse_topic(event.topic).channel, event.payload)
                    (self.states if isinstance(message, m.PolicyState) else self.shadows).append(message)


@contextmanager
def beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run something in a thread until the block ends; fails if it failed."""
    stop, failures = threading.Event(), []

    def body() -> None:
        try:
            work(stop)
        except BaseException as error:
            failures.append(error)
            raise

    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive() and not failures


@pytest.fixture
def quick(files: Path, mosquitto: Broker, site: str) -> PolicySettings:
    return dataclasses.replace(settings_of(files, mosquitto, site), state_period_s=0.1, shadow_period_s=0.1)


Command = Callable[..., str]


@pytest.fixture
def rules(mosquitto: Broker, site: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def command(*words: object, code: int = 0) -> str:
        where = ["--host", mosquitto.host, "--port", mosquitto.port, "--site", site]
        monkeypatch.setattr(sys, "argv", ["splitfleet", "policy", "rules", *map(str, [*words, *where])])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert int(ended.value.code or 0) == code, err
        return out + err

    return command


def test_rules_set_by_command_hold_at_once_survive_a_restart_and_are_cleared(
    mosquitto: Broker, site: str, quick: PolicySettings, rules: Command
) -> None:
    with Peer(mosquitto, site) as peer:
        with beside(lambda stop: run(quick, stop)):
            peer.worker()
            peer.birth()
            peer.telemetry(8e6)
            assert peer.wait(lambda d: len(d) > 0)[-1].plan == HEAVY_WEBP
            assert "cam: pictures stay on the device (revision 1)" in rules("set", "cam", "--private")
            peer.telemetry(8e6)
            private = peer.wait(lambda d: not d[-1].plan.ships_input)[-1]
            assert "pictures must not leave this device" in private.reason
            rules("set", "--all", "--deadline-ms", 350)
            peer.wait(lambda d: d[-1].deadline_ms == 350.0)
            rules("set", "cam", "--deadline-ms", 360)
            assert not peer.wait(lambda d: d[-1].deadline_ms == 360.0)[-1].plan.ships_input, "still private"
        told = json.loads(rules("show", "--json"))
        assert {name: (one["rev"], one["deadline_ms"], one["may_ship_input"]) for name, one in told.items()} == {
            "cam": (2, 360.0, False),
            "defaults": (1, 350.0, None),
        }
        with beside(lambda stop: run(quick, stop)):
            peer.birth()
            peer.birth(name="dog")
            assert peer.wait(lambda d: len(d) > 0, "dog")[-1].deadline_ms == 350.0, "retained"
            rules("clear", "cam")
            peer.telemetry(8e6, decision_rev=99)
            last = peer.wait(lambda d: d[-1].deadline_ms == 350.0 and d[-1].plan.ships_input)[-1]
            assert last.plan == HEAVY_WEBP
    assert "every device" in rules("show")
    assert "cleared" in rules("clear", "--all")
    assert "no rules are set" in rules("show")


def test_a_policy_tried_by_command_decides_until_it_is_taken_back(
    mosquitto: Broker, site: str, quick: PolicySettings, rules: Command
) -> None:
    with Peer(mosquitto, site) as peer, Watcher(mosquitto, site) as watcher, beside(lambda stop: run(quick, stop)):
        peer.worker()
        peer.birth()
        peer.telemetry(8e6)
        assert peer.wait(lambda d: len(d) > 0)[-1].plan == HEAVY_WEBP
        assert "policy local for 600 s" in rules("set", "--all", "--policy", "local", "--for", "10m")
        peer.telemetry(8e6)
        told = peer.wait(lambda d: d[-1].plan.is_local)[-1]
        assert told.policy == "local"
        rules("set", "defaults", "--deadline-ms", 350)
        peer.wait(lambda d: d[-1].deadline_ms == 350.0)
        kept = json.loads(rules("show", "--json"))["defaults"]
        assert kept["policy"] == "local" and 0 < kept["policy_for_s"] < 600, "its end stays where it was"
        watcher.wait(lambda: watcher.states and watcher.states[-1].policy == "local")
        rules("clear", "--all")
        peer.telemetry(8e6)
        peer.wait(lambda d: d[-1].plan == HEAVY_WEBP)
        watcher.wait(lambda: watcher.states[-1].policy == quick.policy)
    assert "policy = 'magic'" in rules("set", "--all", "--policy", "magic", "--for", "10m", code=2)
    assert "go together" in rules("set", "--all", "--policy", "local", code=2)
    assert "only the rules of every device" in rules("set", "cam", "--policy", "local", "--for", "10m", code=2)
    assert "--for soon: write a time such as" in rules("set", "--all", "--policy", "local", "--for", "soon", code=2)


def test_prometheus_finds_the_service_where_its_settings_say(
    mosquitto: Broker, site: str, quick: PolicySettings
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        settings = dataclasses.replace(quick, prometheus=PrometheusSettings(port))
        with pytest.raises(ExpositionError, match=f"cannot listen on 127.0.0.1:{port} for Prometheus"):
            run(settings, threading.Event())
    with Peer(mosquitto, site) as peer, Watcher(mosquitto, site) as watcher, beside(lambda stop: run(settings, stop)):
        peer.birth()
        watcher.wait(lambda: watcher.states and watcher.states[-1].devices == 1)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
    assert f'splitfleet_policy_devices{{name="policy",site="{site}"}} 1.0' in text


def test_rules_that_cannot_be_are_refused_before_they_are_sent_and_by_the_service(
    mosquitto: Broker, site: str, quick: PolicySettings, rules: Command
) -> None:
    assert "must sum to 1" in rules("set", "cam", "--weights", "0.5,0.1,0.1", code=2)
    assert "deadline_ms = 0" in rules("set", "cam", "--deadline-ms", 0, code=2)
    assert "name a device, or say --all" in rules("set", "--private", code=2)
    assert "say what to set" in rules("set", "cam", code=2)
    with Peer(mosquitto, site) as peer, Watcher(mosquitto, site) as watcher, beside(lambda stop: run(quick, stop)):
        peer.birth()
        peer.wait(lambda d: len(d) > 0)
        rules("set", "cam", "--plan", "heavy/s9/q2")
        watcher.wait(lambda: any(state.problems for state in watcher.states))
        (problem,) = next(state.problems for state in watcher.states if state.problems)
        assert problem == "rules 1 of cam: the catalog has no plan heavy/s9/q2"
        peer.raw(channels.RULES, b"rubbish")
        watcher.wait(lambda: watcher.states and watcher.states[-1].counters.get("bad_payloads"))


def test_a_broker_that_is_not_there_is_one_line() -> None:
    operator = Operator(OperatorSettings(link=LinkSettings(port=1, connect_timeout_s=0.3)))
    with pytest.raises(NotReached, match=r"no answer from 127\.0\.0\.1:1 within 0\.3 s: is a broker there"):
        operator.start()
    operator.stop()


def by_name(model: CostModel, path: Path) -> Policy:
    try:
        return POLICIES[path.read_text()](model, FixedPlans())
    except KeyError:
        raise PolicyError(f"{path.name} are no weights") from None


def test_new_weights_are_swapped_in_and_broken_ones_are_not(
    mosquitto: Broker, site: str, quick: PolicySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights"
    monkeypatch.setitem(LEARNED, "by-name", NeedsWeights(tmp_path / "shipped", by_name))
    monkeypatch.setattr("policy.watching.EVERY_S", 0.05)
    settings = dataclasses.replace(quick, policy="by-name", weights=str(weights))
    with Peer(mosquitto, site) as peer, Watcher(mosquitto, site) as watcher, beside(lambda stop: run(settings, stop)):
        peer.worker()
        peer.birth()
        first = peer.wait(lambda d: len(d) > 0)[-1]
        assert first.policy == FALLBACK
        assert f"fallback to {FALLBACK}: cannot read" in first.reason
        swap(weights, "local")
        peer.telemetry(8e6)
        told = peer.wait(lambda d: d[-1].policy == "by-name")[-1]
        assert told.plan.is_local
        swap(weights, "rubbish")
        watcher.wait(lambda: watcher.states and watcher.states[-1].problems == ("weights are no weights",))
        assert watcher.states[-1].counters["weights_refused"] >= 1
        swap(weights, "remote")
        peer.telemetry(8e6)
        assert peer.wait(lambda d: d[-1].plan.ships_input)[-1].policy == "by-name"


def swap(path: Path, text: str) -> None:
    """Write a file whole, as training does."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def test_what_service_and_shadow_say_is_recorded(
    mosquitto: Broker, site: str, quick: PolicySettings, tmp_path: Path
) -> None:
    store = tmp_path / "records.sqlite"
    settings = dataclasses.replace(quick, policy="remote", shadow="local")
    recorder = RecorderSettings(site, StoreSettings(str(store)), link=settings.link)
    with (
        beside(lambda stop: record(recorder, stop)),
        Peer(mosquitto, site) as peer,
        Watcher(mosquitto, site) as watcher,
        beside(lambda stop: run(settings, stop)),
    ):
        peer.worker()
        peer.birth()
        peer.birth(name="dog")
        peer.telemetry(8e6)
        watcher.wait(lambda: watcher.shadows and len(watcher.shadows[-1].devices) == 2)
        watcher.wait(lambda: watcher.states and watcher.states[-1].devices == 2)
        deadline_s = time.monotonic() + PATIENCE_S
        while not (rows := stored(store, "shadow", "device = 'dog'")) or not stored(store, "policy", "devices = 2"):
            assert time.monotonic() < deadline_s, "nothing is recorded"
            watcher.states.clear()
            watcher.wait(lambda: watcher.states)
    row = rows[0]
    assert (row["acting"], row["shadow"], row["shadow_plan"]) == ("remote", "local", str(HEAVY_LOCAL))
    assert row["acting_reward"] is not None and row["shadow_reward"] is not None
    (state, *_) = stored(store, "policy", "devices = 2")
    assert (state["service"], state["policy"], state["deciding"], state["collapsed"]) == (
        "policy",
        "remote",
        "remote",
        0,
    )
    assert sum(json.loads(state["plans"]).values()) == 2


def stored(path: Path, table: str, where: str) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in db.execute(f"SELECT * FROM {table} WHERE {where}")]
        except sqlite3.OperationalError:  # not made yet
            return []


def test_the_settings_file_is_followed_while_it_runs(
    mosquitto: Broker, site: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wire.settings import load_settings

    monkeypatch.setattr("policy.watching.EVERY_S", 0.05)
    base = (
        f'site = "{site}"\nmodels = "{files / "models"}"\nprofiles = "{files / "profiles"}"\nperiod_s = 0.05\n'
        f'edge_profile = "{files / "edge.json"}"\n[link]\nhost = "{mosquitto.host}"\nport = {mosquitto.port}\n'
    )
    file = write(tmp_path / "policy.toml", base)
    settings = load_settings(PolicySettings, file)
    with Peer(mosquitto, site) as peer, beside(lambda stop: run(settings, stop, file)):
        peer.birth()
        assert peer.wait(lambda d: len(d) > 0)[-1].deadline_ms == 400.0
        swap(file, base + "[devices.cam]\ndeadline_ms = 250\n")
        peer.wait(lambda d: d[-1].deadline_ms == 250.0)
