"""How ``splitfleet watch`` shows a message: the columns of each channel, and one line per message or frame. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from tools.demo_view import OUTCOME_STYLE, STATE_STYLE
from wire import channels
from wire.channels import Channel
from wire.messages import DeviceState, Outcome

Document = Mapping[str, Any]
"""A message as ``wire.json_form`` writes it."""

TIME = "time"
RETAINED = "retained"
"""Stands where the time would be: the broker kept it, nobody knows here since when."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its head, its width in characters (a longer text pushes the rest), and what stands in it."""

    head: str
    width: int
    show: Callable[[Document], Any]
    right: bool = False


def heading(channel: Channel) -> str:
    """Return the line above the messages of a channel."""
    columns = (Column(TIME, 8, lambda _: ""), *COLUMNS[channel.name])
    return "  ".join(_fit(column, column.head) for column in columns).rstrip()


def lines(channel: Channel, document: Document, time: str) -> Iterator[Text]:
    """Yield what is shown of a message: one line, and for ``outcomes`` one per frame."""
    rows = document["rows"] if channel is channels.OUTCOMES else [document]
    for row in rows:
        whole = {**document, **row}
        parts = [f"{time:<8}", *(_fit(column, _words(column.show(whole))) for column in COLUMNS[channel.name])]
        yield Text("  ".join(parts).rstrip(), style=_style(channel, whole))


def _style(channel: Channel, row: Document) -> str:
    if channel is channels.STATE:
        return STATE_STYLE.get(DeviceState(row["state"]), "")
    return OUTCOME_STYLE.get(Outcome(row["outcome"]), "") if "outcome" in row else ""


def _words(value: Any) -> str:
    """Devices say what they like: nothing of it may steer a terminal."""
    if value is None:
        return "–"
    text = f"{value:,.1f}" if isinstance(value, float) else str(value)
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def _fit(column: Column, text: str) -> str:
    return f"{text:>{column.width}}" if column.right else f"{text:<{column.width}}"


def _field(head: str, width: int, name: str, *, right: bool = False) -> Column:
    return Column(head, width, lambda row: row[name], right)


def _number(head: str, width: int, name: str, scale: float = 1.0) -> Column:
    return Column(head, width, lambda row: None if row[name] is None else scale * float(row[name]), right=True)


def _score(row: Document) -> str | None:
    return None if row["score"] is None else f"{row['score']:.2f}"


def _label(row: Document) -> Any:
    name = row["label_name"]
    return row["label"] if name is None else name


def _energy(row: Document) -> str:
    return f"{row['energy_mj']:,.1f} {row['energy_source']}"


_PLAN = (_field("device", 12, "device"), _field("plan", 30, "plan"))
_ANSWER = (Column("label", 12, _label), Column("score", 5, _score, right=True))

COLUMNS: Mapping[str, tuple[Column, ...]] = {
    channels.RESULT.name: (
        *_PLAN,
        _field("outcome", 8, "outcome"),
        *_ANSWER,
        _number("wait ms", 7, "wait_ms"),
        _number("tail ms", 7, "tail_ms"),
        _field("batch", 5, "batch", right=True),
        _field("computed by", 12, "computed_by"),
        Column("remark", 0, lambda row: "" if row["status"] == "ok" else f"{row['status']} {row['reason']}"),
    ),
    channels.OUTCOMES.name: (
        *_PLAN,
        _field("outcome", 8, "outcome"),
        *_ANSWER,
        _number("ms", 8, "latency_ms"),
        _number("head", 6, "head_ms"),
        _number("network", 7, "network_ms"),
        _number("wait", 6, "wait_ms"),
        _number("tail", 6, "tail_ms"),
        _field("bytes", 7, "sent_bytes", right=True),
        Column("mJ", 16, _energy, right=True),
        _field("reason", 0, "reason"),
    ),
    channels.DECISION.name: (
        _field("device", 12, "device"),
        _field("rev", 6, "rev", right=True),
        _field("plan", 30, "plan"),
        _number("deadline ms", 11, "deadline_ms"),
        _field("policy", 10, "policy"),
        _field("reason", 0, "reason"),
    ),
    channels.STATE.name: (
        _field("device", 12, "device"),
        _field("state", 8, "state"),
        _field("session", 7, "session", right=True),
        _field("reason", 0, "reason"),
    ),
    channels.TELEMETRY.name: (
        *_PLAN,
        _number("fps", 6, "fps"),
        _number("head ms", 7, "head_ms"),
        _number("rtt ms", 7, "rtt_ms"),
        _number("up kbit/s", 9, "uplink_bps", 1e-3),
        _number("cpu %", 6, "cpu_share", 100.0),
        _number("MB", 6, "memory_mb"),
        _number("°C", 5, "temperature_c"),
        _number("battery %", 9, "battery_share", 100.0),
        _number("mW", 8, "power_mw"),
        Column("", 0, lambda row: "sent later" if row["replayed"] else ""),
    ),
}
