"""The schema of everything that is kept: measurements with their tags and fields, as tables and as line protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from operator import itemgetter
from typing import Any

from wire.errors import PayloadError
from wire.messages import Decision, Outcomes, PolicyState, RecorderState, Shadow, Telemetry, WorkerLoad
from wire.plan import Plan

MAX_TAG = 64
"""Characters of a tag value; the rest is cut off."""
MAX_AT_MS = 9_223_372_036_000
"""In the year 2262: beyond it a nanosecond stamp takes more than 64 bits, and a whole batch of lines is refused."""


class Kind(StrEnum):
    """What a column holds. Tags are indexed and must have few values: ids are never tags."""

    TAG = "tag"
    INT = "int"
    FLOAT = "float"
    TEXT = "text"
    BOOL = "bool"
    COUNTS = "counts"
    """Whole numbers by name; each is a field of its own in line protocol."""
    NUMBERS = "numbers"
    """Floats by name, likewise."""


_BY_NAME = (Kind.COUNTS, Kind.NUMBERS)


@dataclass(frozen=True, slots=True)
class Column:
    """One tag or field."""

    name: str
    kind: Kind
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One kind of point. Two points that agree in every ``unique`` column are the same point, told twice."""

    name: str
    columns: tuple[Column, ...]
    unique: tuple[str, ...]
    """Columns, or ``at_ms``."""


@dataclass(frozen=True, slots=True)
class Point:
    """One thing that happened; ``at_ms`` is the sender's wall clock in Unix milliseconds."""

    measurement: Measurement
    at_ms: int
    values: Mapping[str, Any]


def _columns(kind: Kind, **meanings: str) -> tuple[Column, ...]:
    return tuple(Column(name, kind, meaning) for name, meaning in meanings.items())


_DEVICE = _columns(Kind.TAG, site="group of devices that share an edge", device="name of the device")
_PLAN = _columns(Kind.TAG, version="of the plan", cut="of the plan", codec="of the plan")
_ENERGY = _columns(Kind.TAG, energy_source="measured or modelled")
_SESSION = _columns(Kind.INT, session="start of the sender, rising")

INFERENCE = Measurement(
    "inference",
    (
        *_DEVICE,
        *_PLAN,
        *_columns(Kind.TAG, outcome="edge, device, fallback or dropped", reason="why it was dropped or fell back"),
        *_ENERGY,
        *_SESSION,
        *_columns(Kind.INT, frame="number of the frame in its session"),
        *_columns(
            Kind.FLOAT,
            latency_ms="capture to answer",
            head_ms="time of the head",
            encode_ms="time of the codec",
            network_ms="sent to answered, less wait and tail",
            wait_ms="arrival at the worker to start of the tail",
            tail_ms="time of the batch's tail",
            energy_mj="energy of the device for this frame",
            score="of the answer",
        ),
        *_columns(
            Kind.INT,
            batch="frames in the batch",
            sent_bytes="encoded activation",
            label="the answer",
            truth="the right answer, where known",
        ),
    ),
    ("site", "device", "session", "frame"),
)
TELEMETRY = Measurement(
    "telemetry",
    (
        *_DEVICE,
        *_PLAN,
        *_ENERGY,
        *_SESSION,
        *_columns(
            Kind.INT,
            seq="number of the telemetry in its session",
            decision_rev="decision that is followed",
            in_flight="frames at the edge",
            queued="frames waiting on the device",
            estimate_age_ms="since the link was last measured",
        ),
        *_columns(
            Kind.FLOAT,
            fps="frames captured per second",
            head_ms="mean time of the head",
            head_ms_per_plan_ms="measured over profiled time of the head",
            rtt_ms="round trip of the link",
            uplink_bps="rate of the uplink",
            cpu_share="of all cores, 0 to 1",
            memory_mb="resident memory of the client",
            temperature_c="of the board",
            battery_share="0 to 1",
            power_mw="drawn by the board",
        ),
        *_columns(Kind.BOOL, replayed="kept while offline and sent later"),
        *_columns(Kind.COUNTS, counters="dropped, refused, retried, late, by name"),
        *_columns(Kind.FLOAT, disk_free_mb="left for the client's ledger", uptime_s="since the client began"),
        *_columns(Kind.INT, throttled="bits of a Raspberry Pi: voltage, heat, slowed down"),
    ),
    ("site", "device", "session", "seq"),
)
DECISION = Measurement(
    "decision",
    (
        *_DEVICE,
        *_PLAN,
        *_columns(Kind.TAG, policy="who decided"),
        *_columns(Kind.INT, rev="number of the decision, rising", sent_ms="Unix milliseconds of the policy"),
        *_columns(Kind.FLOAT, deadline_ms="for every frame"),
        *_columns(Kind.TEXT, reason="why this plan"),
    ),
    ("site", "device", "rev", "sent_ms"),
)
WORKER = Measurement(
    "worker",
    (
        *_columns(Kind.TAG, site="group of devices that share an edge", worker="name of the worker"),
        *_SESSION,
        *_columns(
            Kind.INT,
            sent_ms="Unix milliseconds of the worker",
            queued="activations waiting",
            arrived="in this period",
            served="in this period",
            busy="refused with a full queue in this period",
        ),
        *_columns(
            Kind.FLOAT,
            period_ms="length of the period",
            utilisation="busy over available interpreter time",
            batch_mean="frames per batch",
            wait_ms_mean="arrival to start of the tail",
        ),
        *_columns(Kind.NUMBERS, service_ms="mean time per frame by version/cut"),
        *_columns(Kind.COUNTS, counters="totals since the worker began, by name"),
    ),
    ("site", "worker", "session", "sent_ms"),
)
POLICY = Measurement(
    "policy",
    (
        *_columns(
            Kind.TAG,
            site="group of devices that share an edge",
            service="name of the decision service",
            policy="that was asked for",
            deciding="that chose for most devices",
        ),
        *_SESSION,
        *_columns(
            Kind.INT,
            sent_ms="Unix milliseconds of the service",
            devices="decided for in the last round",
            decisions="published in this period",
        ),
        *_columns(
            Kind.FLOAT,
            period_ms="length of the period",
            top_share="of the commonest plan over the window",
            entropy="of the plans over the window, in nats",
            entropy_share="entropy over its maximum",
            switches_per_minute="per device",
            decide_ms_mean="time of a round",
            decide_ms_max="time of the slowest round",
            edge_calibration="measured over predicted busy time",
        ),
        *_columns(Kind.BOOL, collapsed="nearly all follow one plan, and should not"),
        *_columns(
            Kind.TEXT, collapse="the same in words", weights="beginning of their sha256", problems="refused lately"
        ),
        *_columns(
            Kind.COUNTS,
            plans="devices by plan",
            fallback="device rounds in which the fallback chose, by reason",
            counters="totals since the service began, by name",
        ),
    ),
    ("site", "service", "session", "sent_ms"),
)
SHADOW = Measurement(
    "shadow",
    (
        *_DEVICE,
        *_columns(Kind.TAG, acting="policy that decides", shadow="policy that only watches"),
        *_columns(Kind.TEXT, acting_plan="version/cut/codec", shadow_plan="version/cut/codec"),
        *_columns(
            Kind.FLOAT,
            acting_reward="predicted with every device following the acting policy",
            shadow_reward="predicted with every device following the other",
        ),
    ),
    ("site", "device", "at_ms"),
)
LEDGER = Measurement(
    "ledger",
    (
        *_DEVICE,
        *_columns(
            Kind.INT,
            captured="frames ever captured, all sessions together",
            counted="of them, frames whose outcome is recorded",
            gap="captured less counted: still under way, or lost",
        ),
        *_columns(Kind.COUNTS, folded="of the counted, frames told without details, by outcome"),
    ),
    ("site", "device", "captured", "counted"),
)
"""A gauge per device after each ``outcomes`` message that changed it: sums over sessions, since ids are no tags."""
RECORDER = Measurement(
    "recorder",
    (
        *_columns(Kind.TAG, site="group of devices that share an edge", recorder="name of the recorder"),
        *_SESSION,
        *_columns(
            Kind.INT,
            sent_ms="Unix milliseconds of the recorder",
            points="stored in this period",
            store_bytes="size of the store",
            waiting="points not yet on the metrics server",
            forwarded="points written to the metrics server in this period",
            dead="points that the server refused for good",
        ),
        *_columns(Kind.FLOAT, period_ms="length of the period", oldest_s="age of the oldest waiting point"),
        *_columns(Kind.BOOL, reachable="whether the last write reached the metrics server"),
        *_columns(Kind.TEXT, problem="why it did not"),
        *_columns(Kind.COUNTS, counters="totals since the recorder began, by name"),
    ),
    ("site", "recorder", "session", "sent_ms"),
)
MEASUREMENTS = (INFERENCE, TELEMETRY, DECISION, WORKER, POLICY, SHADOW, LEDGER, RECORDER)


def inference_points(site: str, device: str, message: Outcomes) -> Iterator[Point]:
    """Yield one point per frame; raises ``PayloadError`` for a frame whose plan is not in the message."""
    for row in message.rows:
        if not 0 <= row.plan < len(message.plans):
            raise PayloadError("outcomes", f"frame {row.frame} has plan {row.plan} of {len(message.plans)}")
        values = {name: getattr(row, name, None) for name in _names(INFERENCE)}
        values |= _plan(message.plans[row.plan])
        values |= {"site": site, "device": device, "session": message.session}
        yield Point(INFERENCE, row.captured_ms, values)


def telemetry_point(site: str, device: str, message: Telemetry) -> Point:
    """Return the point of one telemetry message."""
    values = {name: getattr(message, name, None) for name in _names(TELEMETRY)}
    values |= {"site": site, "device": device, **_plan(message.plan)}
    return Point(TELEMETRY, message.at_ms, values)


def decision_point(site: str, device: str, message: Decision) -> Point:
    """Return the point of one decision."""
    values = {name: getattr(message, name, None) for name in _names(DECISION)}
    values |= {"site": site, "device": device, "sent_ms": message.at_ms, **_plan(message.plan)}
    return Point(DECISION, message.at_ms, values)


def worker_point(site: str, worker: str, message: WorkerLoad) -> Point:
    """Return the point of one worker's load."""
    values = {name: getattr(message, name, None) for name in _names(WORKER)}
    values |= {"site": site, "worker": worker, "sent_ms": message.at_ms}
    return Point(WORKER, message.at_ms, values)


def policy_point(site: str, service: str, message: PolicyState) -> Point:
    """Return the point of one decision service's state."""
    values = {name: getattr(message, name, None) for name in _names(POLICY)}
    values |= {
        "site": site,
        "service": service,
        "sent_ms": message.at_ms,
        "top_share": max((plan.share for plan in message.plans), default=None),
        "plans": {str(plan.plan): plan.devices for plan in message.plans},
        "problems": "; ".join(message.problems),
    }
    return Point(POLICY, message.at_ms, values)


def shadow_points(site: str, message: Shadow) -> Iterator[Point]:
    """Yield one point per device; raises ``PayloadError`` for a device whose plan is not in the message."""
    for one in message.devices:
        if not all(0 <= index < len(message.plans) for index in (one.acting_plan, one.shadow_plan)):
            raise PayloadError("shadow", f"{one.device} has a plan beyond the {len(message.plans)} told")
        yield Point(
            SHADOW,
            message.at_ms,
            {
                "site": site,
                "device": one.device,
                "acting": message.acting,
                "shadow": message.shadow,
                "acting_plan": message.plans[one.acting_plan],
                "shadow_plan": message.plans[one.shadow_plan],
                "acting_reward": one.acting_reward,
                "shadow_reward": one.shadow_reward,
            },
        )


def ledger_point(site: str, device: str, at_ms: int, captured: int, counted: int, folded: Mapping[str, int]) -> Point:
    """Return the point of a device's counts, all its sessions together."""
    values = {"captured": captured, "counted": counted, "gap": captured - counted, "folded": folded}
    return Point(LEDGER, at_ms, {"site": site, "device": device, **values})


def recorder_point(site: str, recorder: str, message: RecorderState) -> Point:
    """Return the point of a recorder's state."""
    values = {name: getattr(message, name, None) for name in _names(RECORDER)}
    values |= {"site": site, "recorder": recorder, "sent_ms": message.at_ms}
    return Point(RECORDER, message.at_ms, values)


def to_cell(column: Column, value: Any) -> Any:
    """Return a value as SQLite keeps it."""
    if value is None:
        return None
    if column.kind in _BY_NAME:
        return json.dumps(dict(value), sort_keys=True)
    return str(value) if column.kind in (Kind.TAG, Kind.TEXT) else value


def to_line(measurement: Measurement, number: int, at_ms: int, cells: Sequence[Any]) -> str:
    """Return a row as line protocol.

    ``number`` (of the row in the store) makes the nanosecond stamp unique, since points of one series with the same
    stamp overwrite each other; the same row always gives the same line, so it may be written twice.
    """
    tags_of, fields = _LAYOUTS[measurement.name]
    values: list[str] = []
    for name, kind, place in fields:
        cell = cells[place]
        if cell is None:
            continue
        if kind is Kind.FLOAT:
            values.append(f"{name}={float(cell)}")
        elif kind is Kind.INT:
            values.append(f"{name}={int(cell)}i")
        elif kind is Kind.BOOL:
            values.append(f"{name}={'true' if cell else 'false'}")
        elif kind is Kind.TEXT:
            values.append(f'{name}="{_text(str(cell))}"')
        else:
            suffix = "i" if kind is Kind.COUNTS else ""
            values += [f"{_tag(f'{name}_{key}')}={n}{suffix}" for key, n in json.loads(cell).items()]
    stamp_ns = min(max(at_ms, 0), MAX_AT_MS) * 1_000_000 + number % 1_000_000
    return f"{_series(measurement.name, *tags_of(cells))} {','.join(values)} {stamp_ns}"


_Fields = tuple[tuple[str, Kind, int], ...]


def _layout(measurement: Measurement) -> tuple[Callable[[Sequence[Any]], tuple[Any, ...]], _Fields]:
    """Return what picks the tags from a row's cells, and names, kinds and places of the fields."""
    columns = list(enumerate(measurement.columns))
    tags = [place for place, column in columns if column.kind is Kind.TAG]
    fields = tuple((column.name, column.kind, place) for place, column in columns if column.kind is not Kind.TAG)
    return itemgetter(*tags), fields


_LAYOUTS = {measurement.name: _layout(measurement) for measurement in MEASUREMENTS}
_TAGS = {one.name: [column.name for column in one.columns if column.kind is Kind.TAG] for one in MEASUREMENTS}


@lru_cache(maxsize=4096)
def _series(measurement: str, *cells: str | None) -> str:
    """Return measurement and tags as they begin a line; the frames of one device share a few of them."""
    tags = zip(_TAGS[measurement], cells, strict=True)
    return ",".join([measurement, *(f"{name}={text}" for name, cell in tags if cell and (text := _tag(cell)))])


def _names(measurement: Measurement) -> tuple[str, ...]:
    return tuple(column.name for column in measurement.columns)


def _plan(plan: Plan) -> dict[str, str]:
    return {"version": plan.version, "cut": plan.cut, "codec": plan.codec}


def _text(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ").replace("\r", " ")


def tag_text(text: str) -> str:
    """Return a tag as a server keeps it: control characters and backslashes, which readers disagree upon, are ``_``."""
    return "".join("_" if one == "\\" or not one.isprintable() else one for one in text[:MAX_TAG])


def _tag(text: str) -> str:
    return tag_text(text).replace(",", "\\,").replace("=", "\\=").replace(" ", "\\ ")
