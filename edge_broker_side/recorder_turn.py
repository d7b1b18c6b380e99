"""What one turn of the recorder collects for one transaction, from each kind of message."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_broker_side.points import (
    MAX_TAG,
    Point,
    decision_point,
    inference_points,
    policy_point,
    shadow_points,
    telemetry_point,
    worker_point,
)
from edge_broker_side.store import Presence, SessionCount
from edge_broker_side.store_bounds import MAX_FOLDED
from wire import channels
from wire.channels import Address
from wire.errors import PayloadError
from wire.messages import Capabilities, Outcomes, Recorded, Shadow, State, WorkerState

MAX_FRAMES = 2**40
"""More than a device can capture; sums of larger figures would overflow."""


@dataclass(slots=True)
class Turn:
    """What one turn of the loop collects for one transaction."""

    points: list[Point] = field(default_factory=list)
    counts: list[SessionCount] = field(default_factory=list)
    presence: list[Presence] = field(default_factory=list)
    receipts: list[tuple[str, Recorded]] = field(default_factory=list)
    """(device, receipt), to be sent when everything is on disk."""

    def __bool__(self) -> bool:
        return bool(self.points or self.counts or self.presence)


def _add_outcomes(turn: Turn, address: Address, message: Outcomes) -> None:
    site, device = address.site, address.name
    if message.session < 1 or not 0 <= message.captured <= MAX_FRAMES:
        raise PayloadError("outcomes", f"session {message.session} with {message.captured} frames cannot be")
    if len(message.folded) > MAX_FOLDED or any(not 0 <= one.frames <= MAX_FRAMES for one in message.folded):
        raise PayloadError("outcomes", f"{len(message.folded)} folded counts, or one that cannot be")
    points = list(inference_points(site, device, message))  # refused as a whole, before anything is counted
    folded = tuple((str(one.outcome), one.reason[:MAX_TAG], one.frames) for one in message.folded)
    turn.points += points
    turn.counts.append(SessionCount(site, device, message.session, message.captured, folded))
    turn.receipts.append((device, Recorded(message.session, message.batch)))


def _add_state(turn: Turn, address: Address, message: State | WorkerState) -> None:
    role = "worker" if isinstance(message, WorkerState) else "device"
    turn.presence.append(
        Presence(address.site, address.name, role, message.session, str(message.state), message.reason, message.at_ms)
    )


def _add_capabilities(turn: Turn, address: Address, message: Capabilities) -> None:
    about = json.dumps(dataclasses.asdict(message), sort_keys=True)
    turn.presence.append(Presence(address.site, address.name, "device", message.session, about=about))


def _add_shadow(turn: Turn, address: Address, message: Shadow) -> None:
    turn.points += list(shadow_points(address.site, message))  # refused as a whole


def _one(make: Callable[[str, str, Any], Point]) -> Callable[[Turn, Address, Any], None]:
    def add(turn: Turn, address: Address, message: Any) -> None:
        turn.points.append(make(address.site, address.name, message))

    return add


ADD: Mapping[str, Callable[[Turn, Address, Any], None]] = {
    channels.STATE.name: _add_state,
    channels.CAPABILITIES.name: _add_capabilities,
    channels.TELEMETRY.name: _one(telemetry_point),
    channels.OUTCOMES.name: _add_outcomes,
    channels.DECISION.name: _one(decision_point),
    channels.WORKER_STATE.name: _add_state,
    channels.WORKER_LOAD.name: _one(worker_point),
    channels.POLICY_STATE.name: _one(policy_point),
    channels.SHADOW.name: _add_shadow,
}
"""How each channel's message enters a turn; a recorder subscribes to these channels."""
