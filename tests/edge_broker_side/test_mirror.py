"""The mirror over real brokers: what devices say is there as JSON, retained where it was, and taken back when told."""

from __future__ import annotations

import dataclasses
import json
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from edge_broker_side.broker import Broker, free_port
from edge_broker_side.errors import EdgeError
from edge_broker_side.homeassistant import HomeAssistantSettings
from edge_broker_side.mirror import MirrorSettings, forget, run
from tests.brokers import launch
from tests.edge_broker_side.peers import Peer, Process, running
from tests.edge_broker_side.stores import classifier_tail, write_version
from tests.wire.examples import EXAMPLES
from tests.wire.link_client import Client, quick
from wire import channels
from wire.acl import birth_topic
from wire.exposition import PrometheusSettings
from wire.link import Connected, LinkSettings, Received, Subscription
from wire.messages import Capabilities, DeviceState, ScoredLabel, State


class Reader(Client):
    """Reads topics as a program that knows only JSON does."""

    def __init__(self, broker: Broker, name: str, *filters: str) -> None:
        super().__init__(quick(broker.port), name, subscriptions=[Subscription(one, 1) for one in filters])

    def __enter__(self) -> Reader:
        super().__enter__()
        self.wait(Connected)
        return self

    def latest(self) -> dict[str, Any]:
        """Return the last document of each topic; ``None`` where it was taken back."""
        return {event.topic: json.loads(event.payload) if event.payload else None for event in self.seen(Received)}

    def until(self, true: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        self.wait_until(lambda: bool(true(self.latest())), "what was to be said")
        return self.latest()


def everything(site: str) -> str:
    return f"splitfleet/v1/{site}/+/+/json"


def settings(broker: Broker, site: str, **more: Any) -> MirrorSettings:
    link = LinkSettings(port=broker.port, backoff_min_s=0.05, backoff_max_s=0.2)
    return MirrorSettings(site, link=link, **more)


def json_of(site: str, channel: str, device: str = "cam") -> str:
    return f"splitfleet/v1/{site}/{device}/{channel}/json"


def test_what_a_device_says_is_there_as_json(any_broker: Broker, site: str, tmp_path: Path) -> None:
    write_version(tmp_path, "resnet-light", classifier_tail(), labels=tuple(f"class-{n}" for n in range(48)))
    with (
        Reader(any_broker, f"{site}-reader", everything(site)) as reader,
        Peer(any_broker, site) as peer,
        running(run, settings(any_broker, site, models=str(tmp_path))),
    ):
        peer.say(channels.STATE, EXAMPLES["state"])
        reader.until(lambda told: json_of(site, "state") in told)  # retained, so the mirror hears it whenever it comes
        for name in ("decision", "telemetry", "result", "outcomes"):
            peer.say(channels.CHANNELS[name], EXAMPLES[name])
        told = reader.until(lambda told: len(told) == 5)
        assert told[json_of(site, "result")]["label_name"] == "class-3"
        assert told[json_of(site, "decision")]["reason"] == "the link recovered"
        assert told[json_of(site, "outcomes")]["rows"][0]["latency_ms"] == 62.5
        assert not any(event.retained for event in reader.seen(Received))
        with Reader(any_broker, f"{site}-late", everything(site)) as late:
            kept = late.until(lambda told: len(told) == 2)
            peer.say(channels.RESULT, EXAMPLES["result"])
            late.until(lambda told: len(told) == 3)
            assert {event.topic: event.retained for event in late.seen(Received)} == {
                json_of(site, "state"): True,
                json_of(site, "decision"): True,
                json_of(site, "result"): False,
            }
            assert kept[json_of(site, "state")]["state"] == "ready"


def test_rubbish_is_counted_and_nothing_of_it_is_said(mosquitto: Broker, site: str) -> None:
    asked = settings(mosquitto, site, prometheus=PrometheusSettings(free_port()))
    with Reader(mosquitto, f"{site}-reader", everything(site)) as reader, Peer(mosquitto, site) as peer:
        with running(run, asked):
            peer.raw(channels.STATE, b"rubbish", retain=True)
            peer.say(channels.STATE, EXAMPLES["state"], name="cam-2")
            reader.until(lambda told: told)
        assert list(reader.latest()) == [json_of(site, "state", "cam-2")]


def test_home_assistant_finds_devices_and_loses_those_that_are_retired(any_broker: Broker, site: str) -> None:
    home = HomeAssistantSettings(f"ha-{site}")
    config = home.topic(site, "cam")
    with (
        Reader(any_broker, f"{site}-reader", f"ha-{site}/#", everything(site)) as reader,
        Peer(any_broker, site) as peer,
        running(run, settings(any_broker, site, home_assistant=home)),
    ):
        peer.say(channels.STATE, EXAMPLES["state"])
        peer.say(channels.CAPABILITIES, EXAMPLES["capabilities"])
        reader.until(lambda told: json_of(site, "state") in told)
        peer.say(channels.TELEMETRY, EXAMPLES["telemetry"])
        announced = reader.until(lambda told: config in told)[config]
        assert announced["device"]["model"] == "Raspberry Pi 4 Model B"
        assert "battery" in announced["components"]
        before = len(reader.seen(Received))
        peer.link.publish(birth_topic(home.prefix), b'"online"', qos=1)  # not what Home Assistant says
        peer.link.publish(birth_topic(home.prefix), b"online", qos=1)
        reader.wait_until(
            lambda: any(event.topic == config for event in reader.seen(Received)[before:]), "the announcement anew"
        )
        peer.raw(channels.STATE, b"", retain=True)
        gone = _documents(reader, lambda told: told.get(json_of(site, "state"), b"?") == b"")
        assert gone[config] == b""


def _documents(reader: Reader, true: Callable[[dict[str, bytes]], bool]) -> dict[str, bytes]:
    def latest() -> dict[str, bytes]:
        return {event.topic: event.payload for event in reader.seen(Received)}

    reader.wait_until(lambda: true(latest()), "what was to be taken back")
    return latest()


def test_a_device_that_is_forgotten_leaves_nothing_behind(mosquitto: Broker, site: str) -> None:
    home = HomeAssistantSettings(f"ha-{site}")
    asked = settings(mosquitto, site, home_assistant=home)
    filters = (f"ha-{site}/#", everything(site))
    with Peer(mosquitto, site) as peer, Reader(mosquitto, f"{site}-reader", *filters) as reader:
        peer.say(channels.STATE, State(DeviceState.STOPPED, 1))
        peer.say(channels.CAPABILITIES, EXAMPLES["capabilities"])
        peer.say(channels.DECISION, EXAMPLES["decision"])
        with running(run, asked):
            reader.until(lambda told: len(told) == 3)
        forget(asked, "cam")
        reader.until(lambda told: all(one is None for one in told.values()))
        with running(run, dataclasses.replace(asked, forget=("cam",))):
            peer.say(channels.STATE, EXAMPLES["state"], name="cam-2")
            reader.until(lambda told: told.get(json_of(site, "state", "cam-2")))
        with Reader(mosquitto, f"{site}-late", *filters) as late:
            assert list(late.until(lambda told: told)) == [json_of(site, "state", "cam-2")]


def test_forgetting_without_a_broker_says_so(site: str) -> None:
    link = LinkSettings(port=free_port(), connect_timeout_s=0.3)
    with pytest.raises(EdgeError, match="is a broker there"):
        forget(MirrorSettings(site, link=link), "cam")


def test_a_large_site_is_announced_whole_through_a_small_outbox(mosquitto: Broker, site: str) -> None:
    home = HomeAssistantSettings(f"ha-{site}")
    asked = settings(mosquitto, site, home_assistant=home)
    small = dataclasses.replace(asked, link=dataclasses.replace(asked.link, qos1_outbox_bytes=20_000))
    able: Capabilities = EXAMPLES["capabilities"]
    names = [f"cam-{number}" for number in range(60)]
    with Peer(mosquitto, site) as peer, Reader(mosquitto, f"{site}-reader", f"ha-{site}/#", everything(site)) as reader:
        for name in names:
            peer.say(channels.STATE, State(DeviceState.LOST, 1), name)
            peer.say(channels.CAPABILITIES, able, name)
        with running(run, small):
            told = reader.until(lambda told: len(told) == 2 * len(names))
    assert {home.topic(site, name) for name in names} <= told.keys()


def test_after_a_restart_of_the_broker_it_goes_on(tmp_path: Path, site: str) -> None:
    broker = launch("mosquitto", tmp_path / "broker")
    try:
        with running(run, settings(broker, site)):
            with Reader(broker, "reader", everything(site)) as reader, Peer(broker, site) as peer:
                peer.say(channels.STATE, State(DeviceState.READY, 1))
                reader.until(lambda told: told)
            broker.kill()
            broker = launch("mosquitto", tmp_path / "broker", broker.port)
            with Reader(broker, "reader", everything(site)) as reader, Peer(broker, site) as peer:
                peer.say(channels.STATE, State(DeviceState.READY, 2))
                reader.until(lambda told: any(one["session"] == 2 for one in told.values()))
    finally:
        broker.stop()


def test_the_process_tells_prometheus_and_ends_in_good_order(mosquitto: Broker, site: str, tmp_path: Path) -> None:
    port = free_port()
    document = {"site": site, "link": {"port": mosquitto.port}, "home_assistant": {}, "prometheus": {"port": port}}
    path = tmp_path / "mirror.toml"
    path.write_text(tomli_w.dumps(document))
    with (
        Reader(mosquitto, f"{site}-reader", everything(site)) as reader,
        Peer(mosquitto, site) as peer,
        Process("mirror", path, tmp_path / "log") as process,
    ):
        peer.raw(channels.DECISION, b"rubbish", retain=True)
        peer.say(channels.STATE, EXAMPLES["state"])
        reader.until(lambda told: told)
        answer = b""
        while b'event="mirrored_state"' not in answer or b'event="refused_payload"' not in answer:
            assert process.alive
            reader.inbox.take(0.1)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as scraped:
                answer = scraped.read()
        assert process.end(signal.SIGTERM) == 0
    assert "'mirrored_state': 1" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"channels": ("activation",)}, "channels = 'activation' is none of state, telemetry"),
        ({"forget": ("Cam 1",)}, "forget 'Cam 1' is not a valid name"),
        ({"name": "a/b"}, "not a valid name"),
        ({"channels": ("state",), "home_assistant": HomeAssistantSettings()}, "home_assistant needs every channel"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        MirrorSettings("plant", **wrong)


def test_a_result_of_raw_outputs_is_said_without_them(mosquitto: Broker, site: str) -> None:
    raw = dataclasses.replace(EXAMPLES["result"], best=None)
    with (
        Reader(mosquitto, f"{site}-reader", everything(site)) as reader,
        Peer(mosquitto, site) as peer,
        running(run, settings(mosquitto, site, channels=("result", "state"))),
    ):
        peer.say(channels.STATE, EXAMPLES["state"])
        reader.until(lambda told: told)
        peer.say(channels.RESULT, raw)
        peer.say(channels.TELEMETRY, EXAMPLES["telemetry"])
        peer.say(channels.RESULT, dataclasses.replace(raw, frame=2, best=ScoredLabel(1, 0.5)))
        told = reader.until(lambda told: told.get(json_of(site, "result"), {}).get("frame") == 2)
        assert json_of(site, "telemetry") not in told
        first = next(event for event in reader.seen(Received) if event.topic == json_of(site, "result"))
        assert json.loads(first.payload)["outputs_omitted"] == 1
