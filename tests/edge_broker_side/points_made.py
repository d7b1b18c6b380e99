"""Small points and stores for tests of what is stored and forwarded."""

from __future__ import annotations

from pathlib import Path

from edge_broker_side.points import inference_points
from edge_broker_side.store import SessionCount, Store, StoreSettings
from wire.messages import FrameOutcome, Outcome, Outcomes
from wire.plan import Plan

PLAN = Plan("net", "c2", "q8")
AT_MS = 1_700_000_000_000


def frames(*numbers: int, latency_ms: float = 10.0, reason: str = "", at_ms: int = AT_MS) -> Outcomes:
    """Return an outcomes message of session 1 with these frames, one per millisecond by their numbers."""
    rows = tuple(FrameOutcome(n, Outcome.EDGE, 0, at_ms + n, latency_ms, reason=reason) for n in numbers)
    return Outcomes(1, 1, max(numbers), (PLAN,), rows)


def put(store: Store, message: Outcomes, site: str = "plant", device: str = "cam") -> int:
    """Store a message as the recorder does; return how many points were new."""
    folded = tuple((str(one.outcome), one.reason, one.frames) for one in message.folded)
    count = SessionCount(site, device, message.session, message.captured, folded)
    return store.write(inference_points(site, device, message), [count])


def store_at(path: Path, **more: float) -> Store:
    """Open a store."""
    return Store(StoreSettings(str(path), **more))  # type: ignore[arg-type]
