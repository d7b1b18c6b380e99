"""What a mirror says for what it hears, without a broker: JSON, announcements, and what is taken back."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from typing import Any

import pytest

from edge_broker_side import mirrored
from edge_broker_side.homeassistant import HomeAssistantSettings
from edge_broker_side.mirrored import Mirrored, Publication
from tests.wire.examples import EXAMPLES
from wire import channels
from wire.channels import CHANNELS, Channel
from wire.codec import encode
from wire.link import Received
from wire.messages import DeviceState

AS_JSON = [channel for channel in CHANNELS.values() if channel.as_json]
ROOT = "splitfleet/v1/plant/cam-1"
CONFIG = "homeassistant/device/splitfleet-plant/cam-1/config"


class Heard:
    """A mirror's core and what it said so far."""

    def __init__(self, *, home: bool = True, heard: list[Channel] = AS_JSON) -> None:
        self.counters: Counter[str] = Counter()
        self.core = Mirrored("plant", heard, {}, HomeAssistantSettings() if home else None, self.counters)

    def raw(self, topic: str, payload: bytes) -> list[Publication]:
        return self.core.take(Received(topic, payload, 0, False), 7)

    def say(self, name: str, device: str = "cam-1", **changes: Any) -> list[Publication]:
        message = dataclasses.replace(EXAMPLES[name], **changes)
        return self.raw(channels.topic("plant", device, CHANNELS[name]), encode(CHANNELS[name], message))


def topics(publications: list[Publication]) -> list[str]:
    return [said.topic for said in publications]


@pytest.mark.parametrize("channel", AS_JSON, ids=lambda channel: channel.name)
def test_a_message_is_said_again_as_the_channel_would(channel: Channel) -> None:
    heard = Heard(home=False)
    (said,) = heard.say(channel.name)
    assert (said.topic, said.qos, said.retain) == (f"{ROOT}/{channel.name}/json", channel.qos, channel.retained)
    assert json.loads(said.payload)["device"] == "cam-1"
    assert heard.counters == {f"mirrored_{channel.name}": 1}


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (f"{ROOT}/state", b"rubbish"),
        (f"{ROOT}/state", b"\xc1" * 1_000_000),
        (f"{ROOT}/result/json", b"{}"),
        (f"{ROOT}/nothing", b"x"),
        ("splitfleet/v1/plant/Cam 1/state", b"x"),
        ("$SYS/broker", b"x"),
        ("", b""),
    ],
)
def test_what_is_no_message_costs_a_counter(topic: str, payload: bytes) -> None:
    heard = Heard()
    assert heard.raw(topic, payload) == []
    assert heard.counters == {"refused_payload": 1}


def test_a_frame_without_its_plan_costs_a_counter() -> None:
    heard = Heard(home=False)
    assert heard.say("outcomes", plans=()) == []
    assert heard.counters == {"refused_payload": 1}


def test_another_site_is_not_ours() -> None:
    heard = Heard()
    topic = channels.topic("elsewhere", "cam-1", channels.STATE)
    assert heard.raw(topic, encode(channels.STATE, EXAMPLES["state"])) == []


def test_a_channel_that_is_not_mirrored_is_not_said() -> None:
    heard = Heard(home=False, heard=[channels.RESULT])
    assert heard.say("state") == []
    assert topics(heard.say("result")) == [f"{ROOT}/result/json"]


def test_a_late_will_does_not_bury_a_newer_session() -> None:
    heard = Heard(home=False)
    assert heard.say("state", session=5)
    assert heard.say("state", session=4, state=DeviceState.LOST) == []
    assert heard.counters["stale_state"] == 1
    assert heard.say("state", session=5, state=DeviceState.LOST)


def test_a_device_is_announced_once_it_is_known_whole() -> None:
    heard = Heard()
    assert topics(heard.say("state")) == [f"{ROOT}/state/json"]
    assert heard.say("capabilities") == []
    announced, _ = heard.say("telemetry", battery_share=None)
    assert (announced.topic, announced.qos, announced.retain) == (CONFIG, 1, True)
    assert "battery" not in json.loads(announced.payload)["components"]
    assert topics(heard.say("telemetry", battery_share=None)) == [f"{ROOT}/telemetry/json"]
    grown, _ = heard.say("telemetry")
    assert "battery" in json.loads(grown.payload)["components"]
    assert topics(heard.say("telemetry", battery_share=None)) == [f"{ROOT}/telemetry/json"]  # it has one all the same


def test_a_device_that_is_away_is_announced_too() -> None:
    heard = Heard()
    heard.say("state", state=DeviceState.LOST)
    assert topics(heard.say("capabilities")) == [CONFIG]


def test_home_assistant_is_told_again_when_it_comes_up() -> None:
    heard = Heard()
    for name in ("cam-1", "cam-2"):
        heard.say("capabilities", device=name)
        heard.say("telemetry", device=name)
    assert heard.say("capabilities") == []  # nothing has changed
    assert topics(heard.say("capabilities", board="another")) == [CONFIG]
    again = heard.raw("homeassistant/status", b"online")
    assert topics(again) == [CONFIG, CONFIG.replace("cam-1", "cam-2")]
    assert all(said.payload and said.retain for said in again)
    assert heard.raw("homeassistant/status", b"offline") == []


def test_a_retired_device_is_taken_back_the_announcement_first() -> None:
    heard = Heard()
    for name in ("state", "capabilities", "telemetry"):
        heard.say(name)
    gone = heard.raw(f"{ROOT}/state", b"")
    assert topics(gone) == [CONFIG, f"{ROOT}/state/json", f"{ROOT}/decision/json"]
    assert all(said.payload == b"" and said.retain for said in gone)
    assert heard.raw("homeassistant/status", b"online") == []
    assert heard.core.devices == 0


def test_a_decision_taken_back_is_taken_back_alone() -> None:
    assert topics(Heard().raw(f"{ROOT}/decision", b"")) == [f"{ROOT}/decision/json"]
    assert Heard().raw(f"{ROOT}/result", b"") == []


def test_a_forgotten_device_stays_forgotten() -> None:
    heard = Heard()
    assert topics(heard.core.forget("cam-1")) == [CONFIG, f"{ROOT}/state/json", f"{ROOT}/decision/json"]
    assert heard.say("state") == []
    assert topics(heard.say("state", device="cam-2")) == ["splitfleet/v1/plant/cam-2/state/json"]


def test_devices_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrored, "MAX_DEVICES", 2)
    heard = Heard()
    for name in ("cam-1", "cam-2", "cam-3", "cam-1"):
        heard.say("state", device=name)
    assert heard.core.devices == 2
    assert heard.counters["refused_device"] == 1


def test_it_subscribes_to_what_it_says_and_needs() -> None:
    bare = Heard(home=False, heard=[channels.RESULT])
    assert {name.rpartition("/")[2] for name, _ in bare.core.filters()} == {"state", "result"}
    whole = {name for name, _ in Heard().core.filters()}
    assert whole == {
        *(f"splitfleet/v1/plant/+/{channel.name}" for channel in AS_JSON),
        "splitfleet/v1/plant/+/capabilities",
        "homeassistant/status",
    }
