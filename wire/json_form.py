"""Messages as JSON, for people and programs that read no MessagePack: finite, bounded, without raw tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from wire.channels import Address
from wire.errors import PayloadError
from wire.messages import Outcomes, Result
from wire.plan import Plan

MAX_TEXT = 300
"""Characters of a text; the rest is cut off, and an ellipsis says so."""
MAX_ROWS = 100
"""Frames of one ``outcomes`` message; older ones are left out, and ``rows_omitted`` says how many."""
MAX_ENTRIES = 200
"""Of a map or list, whose senders have some dozens; the rest is left out."""
DIGITS = 7
"""Significant ones of a 32-bit float, which is what a message carries."""

Labels = Mapping[str, tuple[str, ...]]
"""The names of a version's labels, by version."""

_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


def to_json(address: Address, message: Any, now_ms: int, labels: Labels | None = None) -> dict[str, Any]:
    """Return a message as one flat JSON object; raises ``PayloadError`` for one that contradicts itself.

    It begins with ``site``, ``device``, ``channel`` and ``received_ms`` (``now_ms``, our clock in Unix milliseconds). A
    plan is there as text and as ``version``, ``cut`` and ``codec``; the best label as ``label``, ``score`` and, where
    ``labels`` knows it, ``label_name``. Of raw outputs only ``outputs_omitted`` tells how many there were. Numbers that
    only their sender understands, too large for programs whose numbers are doubles, are left out.
    """
    head = {"site": address.site, "device": address.name, "channel": address.channel.name, "received_ms": now_ms}
    names = labels or {}
    if isinstance(message, Outcomes):
        return head | _outcomes(message, names)
    if isinstance(message, Result):
        values = {name: value for name, value in _items(message) if name not in ("best", "outputs", "stamp_ns")}
        label, score = (message.best.label, message.best.score) if message.best else (None, None)
        told = _answer(message.plan, label, score, names)
        return head | values | told | {"outputs_omitted": len(message.outputs)}
    return head | dict(_items(message))


def to_text(document: Mapping[str, Any]) -> str:
    """Return a document as one line of JSON that is safe to show on a terminal."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_CONTROLS)


def _outcomes(message: Outcomes, labels: Labels) -> dict[str, Any]:
    rows = []
    for line in message.rows[-MAX_ROWS:]:
        if not 0 <= line.plan < len(message.plans):
            raise PayloadError("outcomes", f"frame {line.frame} has plan {line.plan} of {len(message.plans)}")
        plan = message.plans[line.plan]
        values = {name: value for name, value in _items(line) if name not in ("plan", "label", "score")}
        rows.append(values | _plan(plan) | _answer(plan, line.label, line.score, labels))
    return {
        "session": message.session,
        "captured": message.captured,
        "rows": rows,
        "rows_omitted": len(message.rows) - len(rows),
        "folded": _plain(message.folded),
    }


def _answer(plan: Plan, label: int | None, score: float | None, labels: Labels) -> dict[str, Any]:
    names = labels.get(plan.version, ())
    name = names[label] if label is not None and 0 <= label < len(names) else None
    return {"label": label, "score": _plain(score), "label_name": name}


def _items(message: Any) -> Iterator[tuple[str, Any]]:
    for field in fields(message):
        value = getattr(message, field.name)
        if isinstance(value, Plan):
            yield from _plan(value).items()
        else:
            yield field.name, _plain(value)


def _plan(plan: Plan) -> dict[str, Any]:
    parts = {field.name: _plain(getattr(plan, field.name)) for field in fields(plan)}
    return {"plan": _plain(str(plan)), **parts}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return str(value) if len(value) <= MAX_TEXT else f"{value[: MAX_TEXT - 1]}…"
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {_plain(key): _plain(inner) for key, inner in list(value.items())[:MAX_ENTRIES]}
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value[:MAX_ENTRIES]]
    return dict(_items(value)) if is_dataclass(value) else value
