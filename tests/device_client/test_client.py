"""The client against a real broker and a small real edge: whatever happens, each frame ends in exactly one way."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_client.settings import CameraSettings
from edge_broker_side.broker import Broker
from tests.device_client.edge import Edge, answer_twice, answer_with, device_settings, keep_silent, running
from tests.device_client.stores import BIG, LOCAL, SHIP, SPLIT
from wire import channels, codec
from wire.messages import DeviceState, Outcome, Recorded, Result, Status
from wire.plan import Plan


def test_the_edge_answers(tmp_path: Path, any_broker: Broker, site: str, models: Path, pictures: Path) -> None:
    settings = device_settings(tmp_path, site, any_broker.port, models, pictures, safe_plan=str(SPLIT))
    with Edge(site, any_broker.port, models) as edge:
        with running(settings):
            edge.wait(lambda: edge.count(Outcome.EDGE) >= 10, "ten answers of the edge")
        edge.assert_every_frame_once()
        assert sum(edge.captured.values()) == 30
        line = next(line for lines in edge.lines.values() for line in lines if line.outcome is Outcome.EDGE)
        assert line.sent_bytes > 0
        assert line.latency_ms >= line.head_ms + line.encode_ms
        assert line.wait_ms == 0.5
        assert line.tail_ms == 0.25
        edge.wait(lambda: edge.states[-1].state is DeviceState.STOPPED, "the goodbye")
        assert edge.capabilities[0].versions[0].name == "big"


def test_head_and_tail_answer_what_the_whole_answers(
    tmp_path: Path, mosquitto: Broker, site: str, models: Path, pictures: Path
) -> None:
    """Same pictures, in the same order: split through f32, shipped raw, and computed here."""
    labels = []
    for number, plan in enumerate((SPLIT, SHIP, LOCAL)):
        camera = CameraSettings(kind="folder", path=pictures, fps=0, limit=30)
        where = f"{site}-{number}"
        settings = device_settings(
            tmp_path / where, where, mosquitto.port, models, pictures, safe_plan=str(plan), camera=camera,
            deadline_ms=20_000.0,
        )  # fmt: skip
        with Edge(where, mosquitto.port, models) as edge:
            with running(settings):
                edge.wait(lambda edge=edge: len(edge.lines) == 30, "thirty lines")  # type: ignore[misc]
            labels.append({frame: lines[0].label for (_, frame), lines in edge.lines.items()})
            assert all(owner == plan for owner in edge.plans.values())
    assert labels[0] == labels[1] == labels[2]
    assert len(set(labels[0].values())) > 1
