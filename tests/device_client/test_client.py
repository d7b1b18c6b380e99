"""The client against a real broker and a small real edge: whatever happens, each frame ends in exactly one way."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_client import reporter
from device_client.client import Client
from device_client.flight import SILENT_AFTER
from device_client.settings import CameraSettings
from edge_broker_side.broker import Broker
from tests.brokers import launch
from tests.device_client.edge import (
    Edge,
    answer_ok,
    answer_twice,
    answer_with,
    device_settings,
    eventually,
    free_port,
    keep_silent,
    running,
)
from tests.device_client.stores import BIG, LOCAL, SHIP, SPLIT, classifier, write_pictures, write_version
from wire import channels, codec
from wire.messages import (
    Activation,
    DeviceState,
    EnergySource,
    Outcome,
    Recorded,
    Status,
)
from wire.plan import Plan

SLOW = 50
"""Frames per second of a camera that runs as long as a test needs."""


@pytest.fixture(autouse=True)
def _short_periods(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger's batches go out sooner than on a board, so that tests need not wait for them."""
    monkeypatch.setattr(reporter, "BATCH_PERIOD_MS", 100.0)
    monkeypatch.setattr(reporter, "REPEAT_MIN_MS", 400.0)


def playing(pack: Path, fps: float = SLOW) -> CameraSettings:
    """Return a camera that plays a pack over and over."""
    return CameraSettings(kind="pack", path=pack, fps=fps)


def ready(edge: Edge) -> None:
    """Wait for the device's birth."""
    edge.wait(lambda: any(s.state is DeviceState.READY for s in edge.states), "the device's birth")


def test_the_edge_answers(tmp_path: Path, any_broker: Broker, site: str, models: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    settings = device_settings(tmp_path, site, any_broker.port, models, folder, safe_plan=str(SPLIT))
    with Edge(site, any_broker.port, models) as edge:
        with running(settings):
            ready(edge)
            write_pictures(folder, 30)
            edge.wait(lambda: len(edge.lines) == 30, "thirty lines")
        edge.wait(lambda: edge.states[-1].state is DeviceState.STOPPED, "the goodbye")
    edge.assert_every_frame_once()
    assert edge.count(Outcome.EDGE) >= 25
    line = next(line for lines in edge.lines.values() for line in lines if line.outcome is Outcome.EDGE)
    assert line.sent_bytes > 0
    assert line.latency_ms >= line.head_ms + line.encode_ms + line.network_ms
    assert (line.wait_ms, line.tail_ms, line.batch) == (0.5, 0.25, 1)
    assert line.energy_source in EnergySource
    assert {v.name for v in edge.capabilities[0].versions} == {"tiny", "big"}
    assert edge.states[-1].session == edge.states[0].session == next(iter(edge.captured))


def test_head_and_tail_answer_what_the_whole_answers(
    tmp_path: Path, mosquitto: Broker, site: str, models: Path
) -> None:
    """Same pictures, in the same order: split through f32, shipped raw, and computed here."""
    labels = []
    for number, plan in enumerate((SPLIT, SHIP, LOCAL)):
        folder = tmp_path / f"pictures{number}"
        folder.mkdir()
        where = f"{site}-{number}"
        settings = device_settings(
            tmp_path / where, where, mosquitto.port, models, folder, safe_plan=str(plan), deadline_ms=20_000.0
        )
        with Edge(where, mosquitto.port, models) as edge, running(settings):
            ready(edge)
            write_pictures(folder, 30)
            edge.wait(lambda edge=edge: len(edge.lines) == 30, "thirty lines")  # type: ignore[misc]
        labels.append({frame: lines[0].label for (_, frame), lines in edge.lines.items()})
        assert all(owner == plan for owner in edge.plans.values())
        expected = Outcome.DEVICE if plan == LOCAL else Outcome.EDGE
        assert set(edge.outcomes()) == {(expected, "")}
    assert labels[0] == labels[1] == labels[2]
    assert len(set(labels[0].values())) > 1


def test_frames_the_edge_refuses_are_finished_here(
    tmp_path: Path, mosquitto: Broker, site: str, models: Path, pack: Path
) -> None:
    settings = device_settings(tmp_path, site, mosquitto.port, models, pack, safe_plan=str(SPLIT), camera=playing(pack))
    refusals = [status for status in Status if status is not Status.OK]
    with Edge(site, mosquitto.port, models) as edge:
        edge.answering = lambda edge, activation: answer_with(refusals[activation.frame % 5])(edge, activation)
        with running(settings):
            edge.wait(lambda: edge.reasons() >= set(refusals), "every kind of refusal")
            edge.wait(lambda: all(edge.counter(f"edge_{status}") for status in refusals), "the counters")
    edge.assert_every_frame_once()
    assert edge.count(Outcome.EDGE) == 0
    own = [result for result in edge.results if result.reason in refusals]
    assert all(result.outcome is Outcome.FALLBACK and result.best is not None for result in own)
    assert {result.reason for result in own} == set(refusals)


def test_a_silent_edge_is_left_alone_but_for_trials_and_found_again(
    tmp_path: Path, mosquitto: Broker, site: str, models: Path, pack: Path
) -> None:
    settings = device_settings(
        tmp_path, site, mosquitto.port, models, pack, safe_plan=str(SPLIT), camera=playing(pack), deadline_ms=100.0
    )
    with Edge(site, mosquitto.port, models) as edge:
        edge.answering = keep_silent
        with running(settings):
            edge.wait(lambda: edge.count(Outcome.FALLBACK, "edge-silent") >= 20, "frames not sent to a silent edge")
            unanswered = edge.count(Outcome.FALLBACK, "no-answer")
            assert unanswered >= SILENT_AFTER
            before = len(edge.activations)
            edge.wait(lambda: len(edge.activations) > before, "a trial frame")
            edge.answering = answer_ok
            edge.wait(lambda: edge.count(Outcome.EDGE) >= 10, "the edge again")
    edge.assert_every_frame_once()


def test_an_answer_that_comes_late_or_twice_changes_nothing(
    tmp_path: Path, mosquitto: Broker, site: str, models: Path, pack: Path
) -> None:
    settings = device_settings(
        tmp_path, site, mosquitto.port, models, pack, safe_plan=str(SPLIT), camera=playing(pack), deadline_ms=100.0
    )
    with Edge(site, mosquitto.port, models) as edge:
        edge.answering = keep_silent
        with running(settings):
            edge.wait(lambda: edge.count(Outcome.FALLBACK, "no-answer") >= 3, "three fallbacks")
            for activation in edge.held[:3]:
                edge.answer_late(activation)
            edge.wait(lambda: edge.counter("late_results") >= 3, "three late answers")
            edge.answering = answer_twice
            edge.wait(lambda: edge.counter("late_results") >= 8, "twins")
    edge.assert_every_frame_once()
    session = next(iter(edge.captured))
    for activation in edge.held[:3]:
        assert edge.lines[session, activation.frame][0].outcome is Outcome.FALLBACK


def test_decisions_are_followed_between_frames_and_kept_over_a_restart(
    tmp_path: Path, any_broker: Broker, site: str, models: Path, pack: Path
) -> None:
    settings = device_settings(
        tmp_path, site, any_broker.port, models, pack, camera=playing(pack), may_ship_input=False
    )
    with Edge(site, any_broker.port, models) as edge:
        with running(settings):
            edge.wait(lambda: edge.count(Outcome.DEVICE) >= 3, "frames at the safe plan")
            assert set(edge.plans.values()) == {LOCAL}
            edge.wait(lambda: edge.counter("outcome_device") >= 10, "telemetry of these frames")
            assert edge.counter("late_results") == 0, "its own answers must not count as somebody's"
            edge.decide(5, BIG)
            edge.wait(lambda: BIG in edge.plans.values(), "the new plan")
            edge.decide(4, SPLIT)
            edge.wait(lambda: edge.counter("decisions_stale") == 1, "a stale decision")
            for rev, plan in ((6, SHIP), (7, Plan("huge", "conv", "f32")), (8, Plan("tiny", "op99", "f32"))):
                edge.decide(rev, plan)
                edge.wait(lambda n=rev - 5: edge.counter("decisions_refused") == n, f"{plan} refused")  # type: ignore[misc]
            edge.decide(9, SPLIT, deadline_ms=-1.0)
            edge.decide(10, SPLIT, deadline_ms=1e30)
            edge.wait(lambda: edge.counter("decisions_refused") == 5, "impossible deadlines refused")
            assert edge.telemetry[-1].decision_rev == 5
            assert edge.telemetry[-1].plan == BIG
        assert set(edge.plans.values()) == {LOCAL, BIG}
        assert edge.telemetry[-1].counters["plan_switches"] == 1
        edge.raw(channels.DECISION, b"", retain=True)
        first = set(edge.captured)
        with running(settings):
            edge.wait(lambda: any(owner not in first for owner, _ in edge.lines), "a second session")
        assert {plan for (owner, _), plan in edge.plans.items() if owner not in first} == {BIG}
    edge.assert_every_frame_once()


def test_plans_switched_under_load_lose_no_frame(
    tmp_path: Path, any_broker: Broker, site: str, models: Path, pack: Path
) -> None:
    settings = device_settings(tmp_path, site, any_broker.port, models, pack, camera=playing(pack, fps=0))
    plans = [LOCAL, SPLIT, BIG, SHIP]
    with Edge(site, any_broker.port, models) as edge, running(settings):
        for rev in range(1, 13):
            edge.decide(rev, plans[rev % 4])
            edge.wait(lambda rev=rev: edge.rev() == rev, f"decision {rev} followed")  # type: ignore[misc]
    edge.assert_every_frame_once()
    assert set(edge.plans.values()) == set(plans)
    for (owner, frame), plan in edge.plans.items():
        expected = (
            {Outcome.DEVICE, Outcome.DROPPED} if plan == LOCAL else {Outcome.EDGE, Outcome.FALLBACK, Outcome.DROPPED}
        )
        assert edge.lines[owner, frame][0].outcome in expected


def test_a_client_works_before_the_broker_is_there_and_joins_it(
    tmp_path: Path, site: str, models: Path, pack: Path
) -> None:
    port = free_port()
    settings = device_settings(tmp_path, site, port, models, pack, safe_plan=str(SPLIT), camera=playing(pack))
    with running(settings) as client:
        # Two seconds: enough telemetry is kept that some of it is replayed after the edge has joined too.
        eventually(lambda: client.frames_closed >= 2 * SLOW, "frames without a broker")
        with launch("mosquitto", tmp_path / "broker", port), Edge(site, port, models) as edge:
            edge.wait(lambda: edge.count(Outcome.FALLBACK, "offline") >= 10, "the frames of before")
            edge.wait(lambda: edge.count(Outcome.EDGE) >= 5, "frames that the edge answers")
            edge.wait(lambda: any(t.replayed for t in edge.telemetry), "telemetry kept while offline")
            replayed = [t.seq for t in edge.telemetry if t.replayed]
            assert replayed == sorted(replayed)
            live = [t.seq for t in edge.telemetry if not t.replayed]
            assert not set(live) & set(replayed)
            session = client.session
    assert edge.captured[session] >= 15
    assert len([key for key in edge.lines if key[0] == session]) >= 15


@pytest.mark.parametrize("kind", ["mosquitto", "rumqttd"])
def test_a_broker_that_dies_and_returns_costs_fallbacks_not_frames(
    tmp_path: Path, site: str, models: Path, pack: Path, kind: str
) -> None:
    folder = tmp_path / "broker"
    broker = launch(kind, folder)
    port = broker.port
    settings = device_settings(tmp_path, site, port, models, pack, safe_plan=str(SPLIT), camera=playing(pack))
    try:
        with Edge(site, port, models) as edge, running(settings, CountingClient) as client:
            assert isinstance(client, CountingClient)
            edge.wait(lambda: edge.count(Outcome.EDGE) >= 5, "answers")
            broker.kill()
            eventually(lambda: not client.online, "the loss of the connection")
            closed, turns = client.frames_closed, client.turns
            eventually(lambda: client.frames_closed >= closed + 75, "frames without a broker")
            assert client.turns - turns < 1000, "an idle loop spins"
            broker = launch(kind, folder, port)
            edge.wait(lambda: edge.count(Outcome.FALLBACK, "offline") >= 70, "the frames of meanwhile")
            seen = edge.count(Outcome.EDGE)
            edge.wait(lambda: edge.count(Outcome.EDGE) >= seen + 5, "answers again")
        edge.assert_every_frame_once()
        expected = {"", "offline", "disconnected", "not-sent", "no-answer", "edge-silent", "overrun", "stopping"}
        assert edge.reasons() <= expected
    finally:
        broker.stop()


class CountingClient(Client):
    """Counts the turns of its loop."""

    turns = 0

    def _turn(self) -> None:
        self.turns += 1
        super()._turn()


def test_a_receipt_that_is_lost_repeated_or_foreign_costs_no_line(
    tmp_path: Path, any_broker: Broker, site: str, models: Path, pack: Path
) -> None:
    settings = device_settings(tmp_path, site, any_broker.port, models, pack, camera=playing(pack))
    with Edge(site, any_broker.port, models) as edge:
        edge.recording = False
        with running(settings):
            edge.wait(lambda: len(edge.batches) >= 2, "a batch repeated")
            assert edge.batches[0] == edge.batches[1]
            lost = edge.batches[0]
            edge.send(channels.RECORDED, Recorded(lost.session, lost.batch + 1))
            edge.send(channels.RECORDED, Recorded(lost.session + 1, lost.batch))
            edge.wait(lambda: edge.counter("repeated_receipts") == 2, "foreign receipts refused")
            assert all(batch == lost for batch in edge.batches)
            for _ in range(3):
                edge.send(channels.RECORDED, Recorded(lost.session, lost.batch))
            edge.wait(lambda: edge.counter("repeated_receipts") == 4, "repeated receipts refused")
            edge.wait(lambda: edge.batches[-1].batch != lost.batch, "the next batch")
            edge.recording = True
            known = {row.frame for row in lost.rows}
            assert not known & {row.frame for row in edge.batches[-1].rows}
    edge.assert_every_frame_once()


def test_what_is_too_large_to_send_is_finished_here(tmp_path: Path, mosquitto: Broker, site: str, pack: Path) -> None:
    models = tmp_path / "models"
    write_version(models, "wide", classifier(1, seed=1, side=1200))
    settings = device_settings(
        tmp_path, site, mosquitto.port, models, pack, safe_plan="wide/input/raw8", camera=playing(pack, fps=5)
    )
    with Edge(site, mosquitto.port, models) as edge, running(settings):
        edge.wait(lambda: edge.count(Outcome.FALLBACK, "not-sent") >= 2, "frames finished here")
        edge.wait(lambda: edge.counter("unsendable") >= 2, "the counter")
    edge.assert_every_frame_once()
    assert not edge.activations


NONSENSE = [
    b"\x00",
    b"\xc1" * 40,
    b"\xff" * 5000,
    b"\x91\x01",
    b"\x92\x63\xc0",
    b"\xdd\xff\xff\xff\xff",
    b"not msgpack",
]


def test_poison_on_every_subscribed_topic_costs_a_counter(
    tmp_path: Path, any_broker: Broker, site: str, models: Path, pack: Path
) -> None:
    settings = device_settings(
        tmp_path, site, any_broker.port, models, pack, safe_plan=str(SPLIT), camera=playing(pack)
    )
    with Edge(site, any_broker.port, models) as edge, running(settings):
        edge.wait(lambda: edge.count(Outcome.EDGE) >= 3, "answers")
        for channel in (channels.RESULT, channels.DECISION, channels.RECORDED):
            for payload in NONSENSE:
                edge.raw(channel, payload)
            edge.raw(channel, b"")
            edge.raw(channel, codec.encode(channels.PROBE, channels.PROBE.message(b"x")))
        edge.wait(lambda: edge.counter("bad_payloads") >= 3 * len(NONSENSE), "poison counted")
        edge.answering = answer_absurdly
        edge.wait(lambda: edge.count(Outcome.FALLBACK, "bad-answer") >= 5, "absurd answers refused")
        edge.answering = answer_ok
        seen = edge.count(Outcome.EDGE)
        edge.wait(lambda: edge.count(Outcome.EDGE) >= seen + 5, "answers after the poison")
    edge.assert_every_frame_once()


def answer_absurdly(edge: Edge, activation: Activation) -> None:
    """Answer with figures that cannot be true: the ledger must not choke on them."""
    from msgpack import packb

    plan = [activation.plan.version, activation.plan.cut, activation.plan.codec]
    figures = [[0.5, 1e308, 1], [-1e300, 0.5, 1], [0.5, 0.5, 2**62]][activation.frame % 3]
    best = [1, 1e300] if activation.frame % 2 else [-4, 0.5]
    payload = packb([1, activation.session, activation.frame, plan, "ok", "edge", "edge", best, [], 0, *figures])
    edge.raw(channels.RESULT, payload)


def test_telemetry_tells_of_link_board_and_frames(
    tmp_path: Path, mosquitto: Broker, site: str, models: Path, pack: Path
) -> None:
    settings = device_settings(
        tmp_path, site, mosquitto.port, models, pack, safe_plan=str(SPLIT), camera=playing(pack, fps=10)
    )
    with Edge(site, mosquitto.port, models) as edge, running(settings):
        edge.wait(lambda: any(t.uplink_bps and t.rtt_ms is not None for t in edge.telemetry), "an estimate of the link")
        told = edge.telemetry[-1]
    assert told.head_ms is not None
    assert told.head_ms > 0
    assert told.memory_mb is not None
    assert told.memory_mb > 10
    assert told.cpu_share is not None
    assert told.estimate_age_ms is not None
    assert 0 < told.fps < 40
    assert told.counters["outcome_edge"] > 0
    assert [t.seq for t in edge.telemetry] == list(range(1, len(edge.telemetry) + 1))


def test_a_head_that_is_damaged_is_refused_and_the_old_plan_goes_on(
    tmp_path: Path, mosquitto: Broker, site: str, pack: Path
) -> None:
    from tests.device_client.stores import write_store

    models = write_store(tmp_path / "models")
    settings = device_settings(tmp_path, site, mosquitto.port, models, pack, camera=playing(pack))
    with Edge(site, mosquitto.port, models) as edge:
        with running(settings):
            ready(edge)
            head = models / "big" / "conv.head.tflite"
            head.write_bytes(head.read_bytes()[:-8] + bytes(8))
            edge.decide(1, BIG)
            edge.wait(lambda: edge.counter("decisions_refused") == 1, "the damaged head refused")
            edge.decide(2, SPLIT)
            edge.wait(lambda: edge.count(Outcome.EDGE) >= 3, "the other plan")
        whole = models / "tiny" / "conv.head.tflite"
        whole.unlink()
        first = set(edge.captured)
        edge.raw(channels.DECISION, b"", retain=True)
        with running(settings):  # the kept decision can no longer be followed: the safe plan is
            edge.wait(lambda: any(owner not in first for owner, _ in edge.lines), "a second session")
        assert {plan for (owner, _), plan in edge.plans.items() if owner not in first} == {LOCAL}
    edge.assert_every_frame_once()
