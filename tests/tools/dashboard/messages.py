"""Messages as a fleet would say them, short to write in a test."""

from __future__ import annotations

import dataclasses
from typing import Any

from wire.messages import (
    CachedVersion,
    Capabilities,
    Decision,
    EnergySource,
    FrameOutcome,
    Outcome,
    Outcomes,
    PlanShare,
    PolicyState,
    RecorderState,
    Telemetry,
    WorkerLoad,
)
from wire.plan import Plan, parse_plan

SHIP = "resnet-heavy/input/jpeg75"
LOCAL = "resnet-light/output/none"
AT_MS = 1_790_000_000_000

_LOAD = WorkerLoad(
    session=1, at_ms=AT_MS, period_ms=1000.0, queued=2, arrived=40, served=38, busy=0, utilisation=0.5, batch_mean=2.5
)
_POLICY = PolicyState(
    session=1, at_ms=AT_MS, period_ms=5000.0, policy="a2c", deciding="a2c", devices=3, decisions=2,
    plans=(PlanShare(parse_plan(SHIP), 3, 1.0),), entropy=0.5, entropy_share=0.25,
    decide_ms_mean=2.5, decide_ms_max=4.75,
)  # fmt: skip
_RECORDER = RecorderState(
    session=1, at_ms=AT_MS, period_ms=5000.0, points=600, store_bytes=2_000_000,
    server="http://metrics:8086 splitfleet", reachable=True,
)  # fmt: skip


def telemetry(plan: str | Plan = SHIP, **more: Any) -> Telemetry:
    """Return what a device measures; its clock stands at ``AT_MS`` unless told otherwise."""
    parsed = parse_plan(plan) if isinstance(plan, str) else plan
    usual = Telemetry(1, 1, AT_MS, parsed, decision_rev=1, fps=5.0, in_flight=0, queued=0)
    return dataclasses.replace(usual, **more)


def line(frame: int, outcome: Outcome = Outcome.EDGE, **more: Any) -> FrameOutcome:
    """Return a frame's line; a twentieth of a second, 40 mJ modelled."""
    usual = FrameOutcome(frame, outcome, 0, captured_ms=AT_MS, latency_ms=50.0, energy_mj=40.0)
    return dataclasses.replace(usual, **more)


def outcomes(batch: int, captured: int, *lines: FrameOutcome, **more: Any) -> Outcomes:
    """Return a batch of session 1."""
    return dataclasses.replace(Outcomes(1, batch, captured, (parse_plan(SHIP),), lines), **more)


def decision(rev: int, plan: str = SHIP, reason: str = "the link recovered") -> Decision:
    """Return a decision."""
    return Decision(rev, parse_plan(plan), 250.0, "a2c", reason)


def capabilities(board: str = "Raspberry Pi 4", sha256: str = "ab" * 32) -> Capabilities:
    """Return how a device introduces itself."""
    return Capabilities(
        1, "0.1.0", board, "pi4", "tflite-runtime 2.14.0", 4, 3792, (CachedVersion("resnet-light", sha256),),
        ("q8",), EnergySource.MODELLED, 5.0, 250.0,
    )  # fmt: skip


def load(**more: Any) -> WorkerLoad:
    """Return a second of a worker."""
    return dataclasses.replace(_LOAD, **more)


def policy(**more: Any) -> PolicyState:
    """Return five seconds of a decision service."""
    return dataclasses.replace(_POLICY, **more)


def recorder(**more: Any) -> RecorderState:
    """Return five seconds of a recorder with a metrics server that answers."""
    return dataclasses.replace(_RECORDER, **more)
