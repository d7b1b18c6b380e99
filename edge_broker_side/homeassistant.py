"""What Home Assistant is told of a device, so that it finds it by itself: MQTT discovery, device by device. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wire import channels
from wire.acl import DISCOVERY_PREFIX, birth_topic, check_prefix, discovery_topic
from wire.channels import Channel
from wire.messages import Capabilities, DeviceState, Telemetry

REPORTED = ("uplink_bps", "battery_share", "temperature_c", "power_mw")
"""Of telemetry: not every board knows these, and a sensor that never knows anything is none."""
SILENT_S = 300
"""Without telemetry for so long its sensors become unavailable: the device, or the mirror, is gone."""
MAX_TEXT = 120
AWAY = (DeviceState.STOPPED, DeviceState.LOST)


@dataclass(frozen=True, slots=True)
class HomeAssistantSettings:
    """Whether and where devices are announced."""

    prefix: str = DISCOVERY_PREFIX

    def __post_init__(self) -> None:
        check_prefix(self.prefix)

    @property
    def birth_topic(self) -> str:
        """Where Home Assistant says that it has started."""
        return birth_topic(self.prefix)

    def topic(self, site: str, device: str) -> str:
        """Where a device is announced."""
        return discovery_topic(self.prefix, site, device)


def reported(telemetry: Telemetry) -> frozenset[str]:
    """Return which of the values not every board knows are known here."""
    return frozenset(name for name in REPORTED if getattr(telemetry, name) is not None)


def discovery(
    site: str, device: str, capabilities: Capabilities, known: frozenset[str], version: str
) -> dict[str, Any]:
    """Return the discovery message of a device: who it is, where it says so, and one sensor per figure.

    ``known`` are the values of ``REPORTED`` it has ever told; ``version`` is our own. The keys are those documented on
    https://www.home-assistant.io/integrations/mqtt/ (device discovery) and /integrations/sensor.mqtt/.
    """
    identity = f"splitfleet-{site}-{device}"
    about = {
        "identifiers": [identity],
        "name": device,
        "manufacturer": "splitfleet",
        "model": capabilities.board[:MAX_TEXT] or "unknown",
        "sw_version": capabilities.client_version[:MAX_TEXT],
    }
    state = channels.json_topic(site, device, channels.STATE)
    sensors = _sensors() | {name: sensor for name, sensor in _reported_sensors().items() if sensor.needs in known}
    return {
        "device": about,
        "origin": {"name": "splitfleet", "sw_version": version},
        "availability": [{"topic": state, "value_template": _available()}],
        "components": {name: sensor.config(site, device, f"{identity}-{name}") for name, sensor in sensors.items()},
    }


@dataclass(frozen=True, slots=True)
class _Sensor:
    """One figure: the channel it comes on, how it is read there, and what Home Assistant is to make of it."""

    name: str
    channel: Channel
    template: str
    more: Mapping[str, Any]
    needs: str = ""

    def config(self, site: str, device: str, unique_id: str) -> dict[str, Any]:
        topic = channels.json_topic(site, device, self.channel)
        config: dict[str, Any] = {"platform": "sensor", "name": self.name, "unique_id": unique_id, "state_topic": topic}
        config |= {"value_template": self.template, **self.more}
        if self.channel is channels.TELEMETRY:
            config["expire_after"] = SILENT_S
        if self.channel is channels.STATE:  # it must tell that the device is lost, not be unavailable then
            config["availability"] = [{"topic": topic, "value_template": "online"}]
        if self.name in _ATTRIBUTES:
            channel, template = _ATTRIBUTES[self.name]
            config["json_attributes_topic"] = channels.json_topic(site, device, channel)
            config["json_attributes_template"] = template
        return config


def _available() -> str:
    away = ", ".join(f"'{state}'" for state in AWAY)
    return f"{{{{ 'offline' if value_json.state in ({away}) else 'online' }}}}"


def _value(name: str) -> str:
    """A value that may be null: Home Assistant takes ``None`` for unknown."""
    return f"{{{{ value_json.{name} }}}}"


def _now(name: str, scale: str = "") -> str:
    """Such a value of telemetry; nothing, which Home Assistant ignores, where it was kept while offline."""
    value = _value(name)
    if scale:
        value = f"{{{{ value_json.{name} {scale} if value_json.{name} is not none else none }}}}"
    return f"{{% if not value_json.replayed %}}{value}{{% endif %}}"


def _last_frame(value: str) -> str:
    """Of the newest frame of a batch; nothing, which Home Assistant ignores, where a batch has none."""
    return f"{{% if value_json.rows %}}{{{{ value_json.rows[-1].{value} }}}}{{% endif %}}"


_LABEL = "{{ value_json.label_name or value_json.label if value_json.label is not none else 'no label' }}"
_ATTRIBUTES: Mapping[str, tuple[Channel, str]] = {
    "Plan": (channels.DECISION, "{{ {'policy': value_json.policy, 'reason': value_json.reason} | tojson }}"),
    "Energy per frame": (
        channels.OUTCOMES,
        "{% if value_json.rows %}{{ {'source': value_json.rows[-1].energy_source} | tojson }}{% else %}{}{% endif %}",
    ),
}
_MEASURED = {"state_class": "measurement"}


def _sensors() -> dict[str, _Sensor]:
    states = {"device_class": "enum", "options": [str(state) for state in DeviceState]}
    millijoules = {"unit_of_measurement": "mJ", **_MEASURED}  # class "energy" is for meters that count upwards
    milliseconds = {"device_class": "duration", "unit_of_measurement": "ms", **_MEASURED}
    return {
        "state": _Sensor("State", channels.STATE, _value("state"), states),
        "label": _Sensor("Label", channels.RESULT, _LABEL, {}),
        "score": _Sensor("Score", channels.RESULT, _value("score"), _MEASURED),
        "outcome": _Sensor("Outcome", channels.RESULT, _value("outcome"), {}),
        "latency": _Sensor("Latency", channels.OUTCOMES, _last_frame("latency_ms"), milliseconds),
        "energy": _Sensor("Energy per frame", channels.OUTCOMES, _last_frame("energy_mj"), millijoules),
        "plan": _Sensor("Plan", channels.RESULT, _value("plan"), {}),
        "fps": _Sensor("Frames per second", channels.TELEMETRY, _now("fps"), _MEASURED),
    }


def _reported_sensors() -> dict[str, _Sensor]:
    rate = {"device_class": "data_rate", "unit_of_measurement": "kbit/s", **_MEASURED}
    share = {"device_class": "battery", "unit_of_measurement": "%", **_MEASURED}
    warmth = {"device_class": "temperature", "unit_of_measurement": "°C", **_MEASURED}
    watts = {"device_class": "power", "unit_of_measurement": "W", **_MEASURED}
    telemetry = channels.TELEMETRY
    return {
        "uplink": _Sensor("Uplink", telemetry, _now("uplink_bps", "/ 1000"), rate, "uplink_bps"),
        "battery": _Sensor("Battery", telemetry, _now("battery_share", "* 100"), share, "battery_share"),
        "temperature": _Sensor("Temperature", telemetry, _now("temperature_c"), warmth, "temperature_c"),
        "power": _Sensor("Power", telemetry, _now("power_mw", "/ 1000"), watts, "power_mw"),
    }
