"""The channel table: what is sent, by whom, to whom and how; topics, ACL, documents and tests follow from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from wire import messages as m
from wire.errors import TopicError

ROOT = "splitfleet/v1"
NAME = re.compile(r"[a-z0-9-]{1,64}\Z")
JSON = "json"
"""Ends the topic on which a mirror says a channel's message again, for those who read no MessagePack."""
KIB = 1024


class Role(StrEnum):
    """Who takes part; a broker account belongs to one role."""

    DEVICE = "device"
    WORKER = "worker"
    RECORDER = "recorder"
    POLICY = "policy"
    SUBSCRIBER = "subscriber"
    OPERATOR = "operator"
    """Sets rules at run time, and reads what a subscriber reads."""
    ROLLOUT = "rollout"
    """Tells devices what to update to, and hands it out."""
    MIRROR = "mirror"
    """Reads what a subscriber reads, and says some of it again as JSON."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One row of the table. ``<name>`` in its topic is the device; the worker for ``worker-*``, the decision service
    for ``policy-state`` and ``shadow``, the recorder for ``recorder-state``, a device or ``defaults`` for ``rules``."""

    name: str
    message: type
    writers: frozenset[Role]
    readers: frozenset[Role]
    retained: bool
    qos: int
    max_bytes: int
    purpose: str
    as_json: bool = False
    """Whether a mirror says it again as JSON, on ``<topic>/json``, for subscribers and operators."""


def _row(
    name: str,
    message: type,
    writers: Iterable[Role],
    readers: Iterable[Role],
    *,
    retained: bool,
    qos: int,
    max_bytes: int,
    purpose: str,
    as_json: bool = False,
) -> Channel:
    who = frozenset(readers)
    if Role.SUBSCRIBER in who:
        who |= {Role.OPERATOR, Role.MIRROR}
    return Channel(name, message, frozenset(writers), who, retained, qos, max_bytes, purpose, as_json)


_R = Role
STATE = _row(
    "state", m.State, [_R.DEVICE], [_R.RECORDER, _R.POLICY, _R.ROLLOUT, _R.SUBSCRIBER],
    retained=True, qos=1, max_bytes=4 * KIB, purpose="birth, changes and last will of a device",
    as_json=True,
)  # fmt: skip
CAPABILITIES = _row(
    "capabilities", m.Capabilities, [_R.DEVICE], [_R.RECORDER, _R.POLICY, _R.ROLLOUT, _R.SUBSCRIBER],
    retained=True, qos=1, max_bytes=64 * KIB, purpose="runtime, cached versions, codecs, meters of a device",
)  # fmt: skip
TELEMETRY = _row(
    "telemetry", m.Telemetry, [_R.DEVICE], [_R.RECORDER, _R.POLICY, _R.SUBSCRIBER],
    retained=False, qos=1, max_bytes=16 * KIB, purpose="what a device measures of itself, each period",
    as_json=True,
)  # fmt: skip
ACTIVATION = _row(
    "activation", m.Activation, [_R.DEVICE], [_R.WORKER],
    retained=False, qos=0, max_bytes=4096 * KIB, purpose="tensors at the cut of one frame; expires with its deadline",
)  # fmt: skip
RESULT = _row(
    "result", m.Result, [_R.DEVICE, _R.WORKER], [_R.DEVICE, _R.SUBSCRIBER],
    retained=False, qos=1, max_bytes=1024 * KIB, purpose="the answer for one frame and where it was computed",
    as_json=True,
)  # fmt: skip
OUTCOMES = _row(
    "outcomes", m.Outcomes, [_R.DEVICE], [_R.RECORDER, _R.SUBSCRIBER],
    retained=False, qos=1, max_bytes=256 * KIB, purpose="the ledger: how each frame ended, repeated until recorded",
    as_json=True,
)  # fmt: skip
RECORDED = _row(
    "recorded", m.Recorded, [_R.RECORDER], [_R.DEVICE],
    retained=False, qos=1, max_bytes=1 * KIB, purpose="the recorder's receipt for one batch of outcomes",
)  # fmt: skip
DECISION = _row(
    "decision", m.Decision, [_R.POLICY], [_R.DEVICE, _R.RECORDER, _R.POLICY, _R.SUBSCRIBER],
    retained=True, qos=1, max_bytes=8 * KIB, purpose="the plan a device is to follow, with rising rev",
    as_json=True,
)  # fmt: skip
WORKER_STATE = _row(
    "worker-state", m.WorkerState, [_R.WORKER], [_R.RECORDER, _R.POLICY, _R.SUBSCRIBER],
    retained=True, qos=1, max_bytes=64 * KIB, purpose="birth, draining and last will of a worker",
)  # fmt: skip
WORKER_LOAD = _row(
    "worker-load", m.WorkerLoad, [_R.WORKER], [_R.RECORDER, _R.POLICY, _R.SUBSCRIBER],
    retained=False, qos=0, max_bytes=64 * KIB, purpose="queue, service time and utilisation of a worker",
)  # fmt: skip
PROBE = _row(
    "probe", m.Probe, [_R.DEVICE, _R.OPERATOR], [],
    retained=False, qos=1, max_bytes=256 * KIB, purpose="padding whose acknowledgement times an idle uplink",
)  # fmt: skip
POLICY_STATE = _row(
    "policy-state", m.PolicyState, [_R.POLICY], [_R.RECORDER, _R.SUBSCRIBER],
    retained=False, qos=1, max_bytes=64 * KIB, purpose="who decides and why, how varied plans are, what was refused",
)  # fmt: skip
SHADOW = _row(
    "shadow", m.Shadow, [_R.POLICY], [_R.RECORDER, _R.SUBSCRIBER],
    retained=False, qos=1, max_bytes=128 * KIB, purpose="the acting policy beside one that only watches",
)  # fmt: skip
RECORDER_STATE = _row(
    "recorder-state", m.RecorderState, [_R.RECORDER], [_R.SUBSCRIBER],
    retained=False, qos=1, max_bytes=16 * KIB, purpose="what a recorder stored, and what waits for the metrics server",
)  # fmt: skip
RULES = _row(
    "rules", m.Rules, [_R.OPERATOR], [_R.POLICY, _R.SUBSCRIBER],
    retained=True, qos=1, max_bytes=4 * KIB, purpose="weights, deadline, privacy, battery and plan set at run time",
)  # fmt: skip
UPDATE = _row(
    "update", m.Update, [_R.ROLLOUT], [_R.DEVICE, _R.SUBSCRIBER],
    retained=True, qos=1, max_bytes=128 * KIB, purpose="the bundle a device should have: its signed manifest",
)  # fmt: skip
UPDATE_STATE = _row(
    "update-state", m.UpdateState, [_R.DEVICE], [_R.ROLLOUT, _R.SUBSCRIBER],
    retained=True, qos=1, max_bytes=16 * KIB, purpose="how far a device is with its update, and why it failed",
)  # fmt: skip
FETCH = _row(
    "fetch", m.Fetch, [_R.DEVICE], [_R.ROLLOUT],
    retained=False, qos=0, max_bytes=1 * KIB, purpose="a device asks for the next bytes; asked again when none come",
)  # fmt: skip
CHUNK = _row(
    "chunk", m.Chunk, [_R.ROLLOUT], [_R.DEVICE],
    retained=False, qos=0, max_bytes=257 * KIB, purpose="these bytes; worthless to a device that has asked anew",
)  # fmt: skip

CHANNELS: Mapping[str, Channel] = {
    channel.name: channel
    for channel in (
        STATE, CAPABILITIES, TELEMETRY, ACTIVATION, RESULT, OUTCOMES, RECORDED, DECISION,
        WORKER_STATE, WORKER_LOAD, PROBE, POLICY_STATE, SHADOW, RECORDER_STATE, RULES,
        UPDATE, UPDATE_STATE, FETCH, CHUNK,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed topic."""

    site: str
    name: str
    channel: Channel


def check_name(name: str, what: str) -> str:
    """Return ``name``; raises ``TopicError`` unless it is 1 to 64 of a-z, 0-9 and '-'."""
    if not NAME.match(name):
        raise TopicError(f"{what} '{name}' is not a valid name: use 1 to 64 characters of a-z, 0-9 and '-'")
    return name


@lru_cache(maxsize=256)
def topic(site: str, name: str, channel: Channel) -> str:
    """Return the topic of a channel of one device or worker."""
    return f"{ROOT}/{check_name(site, 'site')}/{check_name(name, 'name')}/{channel.name}"


def topic_filter(site: str, channel: Channel, name: str = "+") -> str:
    """Return the subscription for a channel of one device, or of all."""
    if name != "+":
        check_name(name, "name")
    return f"{ROOT}/{check_name(site, 'site')}/{name}/{channel.name}"


def json_topic(site: str, name: str, channel: Channel) -> str:
    """Return where a mirror says a channel's message of one device again; raises ``TopicError`` where it does not."""
    if not channel.as_json:
        raise TopicError(f"'{channel.name}' is not said again as JSON")
    return f"{topic(site, name, channel)}/{JSON}"


def shared_filter(group: str, bare: str) -> str:
    """Return the MQTT 5 shared subscription of a filter."""
    return f"$share/{check_name(group, 'group')}/{bare}"


def parse_topic(text: str) -> Address:
    """Return what a topic addresses; raises ``TopicError`` for a foreign one."""
    parts = text.split("/")
    if len(parts) != 5 or "/".join(parts[:2]) != ROOT:
        raise TopicError(f"'{text[:120]}' is not a {ROOT} topic")
    channel = CHANNELS.get(parts[4])
    if channel is None:
        raise TopicError(f"unknown channel '{parts[4][:64]}'")
    return Address(check_name(parts[2], "site"), check_name(parts[3], "name"), channel)
