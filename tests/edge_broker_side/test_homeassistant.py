"""Discovery messages: as Home Assistant documents them, and every template finds its value in a mirrored message."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edge_broker_side.homeassistant import REPORTED, HomeAssistantSettings, discovery
from tests.wire.examples import EXAMPLES
from wire.channels import CHANNELS, Address
from wire.errors import TopicError
from wire.json_form import to_json, to_text
from wire.messages import DeviceState, Outcomes

SCHEMA = json.loads((Path(__file__).parent.parent / "data" / "home_assistant_discovery.json").read_text())
ALL = frozenset(REPORTED)
LABELS = {"resnet-light": ("boot", "bag", "coat", "dress")}
TEMPLATES = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
"""Home Assistant renders in such a sandbox; here a name that is not there is an error."""


def announced(known: frozenset[str] = ALL) -> dict[str, Any]:
    document = discovery("plant", "cam-1", EXAMPLES["capabilities"], known, "0.1.0")
    read: dict[str, Any] = json.loads(json.dumps(document))
    return read


def said(channel: str, **changes: Any) -> str:
    """Return what the mirror says of the example of a channel."""
    message = EXAMPLES[channel]
    if channel == "telemetry":
        message = dataclasses.replace(message, replayed=False)
    message = dataclasses.replace(message, **changes)
    return to_text(to_json(Address("plant", "cam-1", CHANNELS[channel]), message, 1, LABELS))


def rendered(template: str, payload: str) -> str:
    return TEMPLATES.from_string(template).render(value=payload, value_json=json.loads(payload))


def shown(name: str, **changes: Any) -> str:
    """Return what a sensor shows once its channel's example came, with some fields changed."""
    sensor = announced()["components"][name]
    channel = sensor["state_topic"].split("/")[4]
    return rendered(sensor["value_template"], said(channel, **changes))


@pytest.mark.parametrize("known", [frozenset(), ALL, *(frozenset({name}) for name in REPORTED)], ids=len)
def test_an_announcement_follows_the_documented_rules(known: frozenset[str]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(announced(known), SCHEMA)
    hostile = dataclasses.replace(EXAMPLES["capabilities"], board="", client_version="\x1b" * 1000)
    jsonschema.validate(discovery("plant", "cam-1", hostile, known, "0"), SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("origin",), {}),
        (("device", "identifiers"), []),
        (("availability",), [{"value_template": "x"}]),
        (("components", "energy", "device_class"), "energy"),  # with state class measurement
        (("components", "battery", "unit_of_measurement"), "V"),
        (("components", "uplink", "unit_of_measurement"), "bps"),
        (("components", "latency", "unit_of_measurement"), "milliseconds"),
        (("components", "state", "state_class"), "measurement"),
        (("components", "label", "options"), ["a"]),
        (("components", "score", "state_topic"), "splitfleet/+/result"),
        (("components", "score", "unique_id"), ""),
        (("components", "score", "statetopic"), "x"),
    ],
)
def test_the_rules_refuse_what_is_wrong(path: tuple[str, ...], value: Any) -> None:
    document = announced()
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)


def test_every_sensor_reads_its_value_in_a_mirrored_message() -> None:
    values = {name: shown(name) for name in announced()["components"]}
    assert values == {
        "state": "ready",
        "label": "dress",
        "score": "0.875",
        "outcome": "edge",
        "latency": "0.25",
        "energy": "0.0",
        "plan": "resnet-light/block2/q8",
        "fps": "9.75",
        "uplink": "5850.0",
        "battery": "75.0",
        "temperature": "48.25",
        "power": "2.75",
    }


def test_topics_are_those_of_the_mirror() -> None:
    document = announced()
    topics = {name: sensor["state_topic"] for name, sensor in document["components"].items()}
    root = "splitfleet/v1/plant/cam-1"
    assert topics["label"] == f"{root}/result/json"
    assert topics["latency"] == f"{root}/outcomes/json"
    assert topics["battery"] == f"{root}/telemetry/json"
    assert topics["state"] == document["availability"][0]["topic"] == f"{root}/state/json"
    assert HomeAssistantSettings().topic("plant", "cam-1") == "homeassistant/device/splitfleet-plant/cam-1/config"
    assert HomeAssistantSettings("ha/x").birth_topic == "ha/x/status"


@pytest.mark.parametrize("state", DeviceState)
def test_a_device_that_is_gone_is_unavailable_and_its_state_says_why(state: DeviceState) -> None:
    document = announced()
    payload = said("state", state=state)
    expected = "offline" if state in ("lost", "stopped") else "online"
    assert rendered(document["availability"][0]["value_template"], payload) == expected
    sensor = document["components"]["state"]
    assert rendered(sensor["availability"][0]["value_template"], payload) == "online"
    assert rendered(sensor["value_template"], payload) in sensor["options"]


def test_what_is_unknown_is_none_and_what_is_old_is_nothing() -> None:
    assert shown("uplink", uplink_bps=None) == shown("battery", battery_share=None) == "None"
    assert shown("temperature", temperature_c=None) == shown("score", best=None) == "None"
    assert shown("uplink", replayed=True) == shown("fps", replayed=True) == ""
    assert shown("latency", rows=()) == shown("energy", rows=()) == ""
    assert shown("label", best=None) == "no label"


def test_a_label_without_a_name_is_its_number() -> None:
    sensor = announced()["components"]["label"]
    first = dataclasses.replace(EXAMPLES["result"].best, label=0)
    message = dataclasses.replace(EXAMPLES["result"], best=first)
    text = to_text(to_json(Address("plant", "cam-1", CHANNELS["result"]), message, 1, {}))
    assert rendered(sensor["value_template"], text) == "0"


def test_attributes_say_why_the_plan_and_whether_energy_was_measured() -> None:
    sensors = announced()["components"]
    plan, energy = sensors["plan"], sensors["energy"]
    assert plan["json_attributes_topic"] == "splitfleet/v1/plant/cam-1/decision/json"
    assert json.loads(rendered(plan["json_attributes_template"], said("decision"))) == {
        "policy": "sequential",
        "reason": "the link recovered",
    }
    measured = Outcomes(1, 1, 1, EXAMPLES["outcomes"].plans, EXAMPLES["outcomes"].rows[:1])
    assert json.loads(rendered(energy["json_attributes_template"], said("outcomes", rows=measured.rows))) == {
        "source": "measured"
    }
    assert json.loads(rendered(energy["json_attributes_template"], said("outcomes", rows=()))) == {}


def test_sensors_are_there_where_the_board_reports() -> None:
    always = set(announced(frozenset())["components"])
    assert set(announced(frozenset({"battery_share"}))["components"]) - always == {"battery"}
    assert set(announced()["components"]) - always == {"uplink", "battery", "temperature", "power"}


def test_no_two_sensors_share_an_id() -> None:
    ids = [sensor["unique_id"] for device in ("cam-1", "cam-10") for sensor in _components(device).values()]
    assert len(set(ids)) == len(ids)


def _components(device: str) -> dict[str, Any]:
    components: dict[str, Any] = discovery("plant", device, EXAMPLES["capabilities"], ALL, "0")["components"]
    return components


@pytest.mark.parametrize("prefix", ["", "a/+", "#", "splitfleet/v1/plant"])
def test_a_prefix_that_would_reach_elsewhere_is_refused(prefix: str) -> None:
    with pytest.raises(TopicError, match="discovery prefix"):
        HomeAssistantSettings(prefix)
