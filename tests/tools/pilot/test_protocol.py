"""The protocol over a real broker: rules come and go, and whatever ends it leaves the site as it was."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_broker_side.broker import Broker
from tests.brokers import launch
from tests.tools.pilot.site_made import OWN, MadeSite
from tools.operator_link import Operator, OperatorSettings
from tools.pilot.hearing import FOLLOWED, Record
from tools.pilot.kpi import KpiSheet, Operation, PilotError, Worth
from tools.pilot.protocol import Pilot, Protocol
from tools.pilot.report import Knowledge, document
from tools.pilot.schedule import ARMS, schedule
from tools.pilot.view import print_devices, print_report
from tools.supervisor import SupervisorError
from wire.link import LinkSettings
from wire.messages import Rules

PATIENCE_S = 20.0
QUICK = Protocol(rounds=1, block_s=0.6, wash_out_s=0.2, listen_s=0.3)


def settings_of(broker: Broker, site: str, patience_s: float) -> OperatorSettings:
    link = LinkSettings(broker.host, broker.port, connect_timeout_s=patience_s, backoff_max_s=0.2)
    return OperatorSettings(site, link)


@contextmanager
def operator_of(broker: Broker, site: str, patience_s: float = PATIENCE_S) -> Iterator[Operator]:
    operator = Operator(settings_of(broker, site, patience_s), FOLLOWED)
    try:
        operator.start()
        yield operator
    finally:
        operator.stop()


def left(broker: Broker, site: str) -> dict[str, Rules]:
    """The rules that the broker retains."""
    with operator_of(broker, site) as operator:
        return operator.rules


def played(
    broker: Broker,
    site: str,
    protocol: Protocol = QUICK,
    upset: Callable[[threading.Event], None] = lambda _: None,
    check: Callable[[], None] = lambda: None,
    patience_s: float = PATIENCE_S,
) -> Record:
    """Run a pilot; ``upset`` is called as soon as the first block is under way, with what stops the pilot."""
    stop, under_way = threading.Event(), threading.Event()

    def show(what: str, _done: int, _total: int) -> None:
        if "decides," in what and not under_way.is_set():
            under_way.set()
            upset(stop)

    with operator_of(broker, site, patience_s) as operator:
        blocks = schedule(ARMS, protocol.rounds, np.random.default_rng(0))
        return Pilot(operator, protocol, show, stop, check).run(blocks)


def told(record: Record, sheet: KpiSheet | None = None) -> dict[str, Any]:
    return document(record, QUICK, Knowledge({}, {}), sheet, "s", np.random.default_rng(0))


def test_every_arm_decides_in_its_turn_and_the_rules_are_gone_afterwards(
    mosquitto: Broker, site: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with MadeSite(mosquitto, site) as made:
        record = played(mosquitto, site)
        report = told(record, KpiSheet(Worth(second_of_latency=1.0), Operation(5)))
    assert left(mosquitto, site) == {}
    assert made.heard[-1] is None
    assert sorted(rules.policy or "" for rules in made.heard if rules) == ["greedy", "local", "remote"]
    assert all(rules.policy_for_s and rules.policy_for_s > QUICK.block_s for rules in made.heard if rules)
    assert (record.policy, record.interrupted, record.notes) == (OWN, "", [])
    assert [stretch.block.arm for stretch in record.stretches] == [
        block.arm for block in schedule(ARMS, 1, np.random.default_rng(0))
    ]
    frames = report["frames"]
    assert frames["never_came"] == frames["without_a_clock"] == frames["interrupted_block"] == 0
    assert frames["came"] == sum(
        frames[key] for key in ("measured", "wash_out", "interrupted_block", "before_and_after", "without_a_clock")
    )
    for arm in ARMS:
        outcomes = {name for name, count in report["arms"][arm]["outcomes"].items() if count}
        assert outcomes == ({"device"} if arm == "local" else {"edge"}), arm
        assert frames["by_arm"][arm] >= 3
        assert report["arms"][arm]["latency_ms"] == (90.0 if arm == "local" else 30.0)
    assert {one["verdict"] for one in report["compared"]} == {"too few rounds to say"}
    assert report["devices"][0]["uplink_bps"]["p50"] == pytest.approx(8e6)
    print_devices(report)
    print_report(report)
    said = capsys.readouterr().out
    assert "4 of 4 blocks" in said and "too few rounds for intervals" in said
    assert "no weights for cam" not in said, "the largest energy seen stands in for a profile"


def test_rules_that_were_there_stay_in_force_and_are_there_afterwards(mosquitto: Broker, site: str) -> None:
    with MadeSite(mosquitto, site) as made:
        made.garble("dog")
        made.set_rules(Rules(4, deadline_ms=350.0))
        wait(lambda: made.heard)
        record = played(mosquitto, site, upset=lambda _: made.garble("dog"))
    assert (record.interrupted, record.unreadable) == ("", 1)
    (rules,) = left(mosquitto, site).values()
    assert (rules.deadline_ms, rules.policy, rules.policy_for_s) == (350.0, None, None)
    assert all(one is not None and one.deadline_ms == 350.0 for one in made.heard)
    revisions = [one.rev for one in made.heard if one is not None]
    assert revisions == sorted(set(revisions))


def wait(reached: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.01)


def test_a_trial_of_somebody_else_is_left_alone(mosquitto: Broker, site: str) -> None:
    asked = Rules(1, policy="greedy", policy_for_s=600.0, at_ms=time.time_ns() // 1_000_000)
    with MadeSite(mosquitto, site) as made:
        made.set_rules(asked)
        wait(lambda: made.heard)
        with pytest.raises(PilotError, match="'greedy' is on trial already"):
            played(mosquitto, site)
        assert left(mosquitto, site)["defaults"].policy == "greedy"
        made.set_rules(dataclasses.replace(asked, rev=2, at_ms=asked.at_ms - 601_000))
        wait(lambda: len(made.heard) > 1)
        stopped_soon = played(mosquitto, site, upset=lambda stop: stop.set())
        assert stopped_soon.policy == OWN, "one that is over is no trial"
    assert left(mosquitto, site) == {}


def test_where_nobody_speaks_it_does_not_begin(mosquitto: Broker, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.pilot.protocol.PATIENCE_S", 0.5)
    with pytest.raises(PilotError, match="nothing was heard of the decision service and devices and outcomes"):
        played(mosquitto, site)
    with MadeSite(mosquitto, site) as made:
        made.quiet = True
        with pytest.raises(PilotError, match="nothing was heard of the decision service: is everything running"):
            played(mosquitto, site)
        assert made.heard == []


def stopped(_: MadeSite, stop: threading.Event) -> None:
    stop.set()


def fallen_silent(made: MadeSite, _: threading.Event) -> None:
    made.quiet = True


def meddled_with(made: MadeSite, _: threading.Event) -> None:
    made.set_rules(Rules(1000, deadline_ms=200.0))


@pytest.mark.parametrize(
    ("upset", "why"),
    [
        (stopped, "it was stopped"),
        (fallen_silent, "the decision service has said nothing for"),
        (meddled_with, "somebody else has set rules for every device|decides, not"),
    ],
)
def test_what_goes_wrong_ends_it_with_a_partial_report_and_the_rules_taken_back(
    upset: Callable[[MadeSite, threading.Event], None],
    why: str,
    mosquitto: Broker,
    site: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tools.pilot.hearing.SILENT_S", 0.5)
    monkeypatch.setattr("tools.pilot.protocol.STOPPED_SETTLE_S", 1.0)
    long = dataclasses.replace(QUICK, block_s=30.0)
    with MadeSite(mosquitto, site) as made:
        record = played(mosquitto, site, long, lambda stop: upset(made, stop))
    assert record.interrupted
    assert [word for word in why.split("|") if word in record.interrupted], record.interrupted
    report = told(record)
    assert (report["complete"], report["frames"]["measured"]) == (False, 0)
    assert report["frames"]["came"] > 0
    rules = left(mosquitto, site).get("defaults", Rules(0))
    theirs = 200.0 if upset is meddled_with else None
    assert (rules.policy, rules.policy_for_s, rules.deadline_ms) == (None, None, theirs)


def test_a_service_that_does_not_obey_is_named(mosquitto: Broker, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with MadeSite(mosquitto, site) as made:
        made.deaf = True
        record = played(mosquitto, site)
    assert "the decision service does not let" in record.interrupted
    assert record.interrupted.endswith("of defaults: a promotion is in progress"), "by what it says itself"
    monkeypatch.setattr("tools.pilot.protocol.CONFIRM_S", 0.5)
    with MadeSite(mosquitto, site) as made:
        made.deaf = made.mute = True
        assert "is it of this release" in played(mosquitto, site).interrupted
    assert left(mosquitto, site) == {}


def test_a_process_of_our_own_site_that_ends_is_named(
    mosquitto: Broker, site: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = threading.Event()

    def check() -> None:
        if ended.is_set():
            raise SupervisorError("edge-1 ended by itself with code 3: [/] oh no")

    with MadeSite(mosquitto, site):
        record = played(mosquitto, site, upset=lambda _: ended.set(), check=check)
    assert record.interrupted == "edge-1 ended by itself with code 3: [/] oh no"
    print_report(told(record))
    assert "partial: edge-1 ended by itself with code 3: [/] oh no" in capsys.readouterr().out
    assert left(mosquitto, site) == {}


def test_a_broker_that_goes_away_and_returns_has_the_rules_taken_back(tmp_path: Path, site: str) -> None:
    broker = launch("mosquitto", tmp_path / "broker")
    port = broker.port
    again: list[Broker] = []

    def restart(_: threading.Event) -> None:
        broker.kill()
        again.append(launch("mosquitto", tmp_path / "broker", port))

    try:
        with MadeSite(broker, site):
            record = played(broker, site, dataclasses.replace(QUICK, block_s=30.0), restart)
            assert "the broker is gone" in record.interrupted
        assert left(again[0], site) == {}
    finally:
        for one in (broker, *again):
            one.stop()


def test_a_broker_that_stays_away_is_told_with_what_ends_the_trial(
    tmp_path: Path, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.pilot.protocol.RETURN_S", 0.5)
    monkeypatch.setattr("tools.pilot.protocol.SETTLE_S", 0.5)
    broker = launch("mosquitto", tmp_path / "broker")
    try:
        with MadeSite(broker, site):
            long = dataclasses.replace(QUICK, block_s=30.0)
            record = played(broker, site, long, lambda _: broker.kill(), patience_s=2.0)
    finally:
        broker.stop()
    assert "the broker is gone" in record.interrupted
    assert any("the rules could not be taken back" in note and "rules clear --all" in note for note in record.notes)


def test_times_that_leave_nothing_to_measure_are_refused() -> None:
    with pytest.raises(PilotError, match="take a longer --block or a shorter --wash-out"):
        Protocol(block_s=5.0, wash_out_s=5.0)
    with pytest.raises(PilotError, match="is too long"):
        Protocol(block_s=86_400.0)
