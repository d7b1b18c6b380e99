"""A version comes to real device clients over a real broker: signed, fetched, proved, tried out and kept."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from device_client.settings import CameraSettings, UpdateSettings
from edge_broker_side.broker import Broker
from edge_broker_side.rollout.campaign import Fate, Status
from tests.device_client.edge import DEVICE, Edge, device_settings, running
from tests.device_client.stores import SPLIT
from tests.edge_broker_side.rollout.live import EVERYBODY, rolling_out
from wire.messages import Outcome


@pytest.fixture(autouse=True)
def quick(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr("edge_broker_side.rollout.server.QUIET_S", 0.3)
    monkeypatch.setattr("edge_broker_side.rollout.server.STEP_EVERY_S", 0.1)


def test_a_client_serves_the_new_version_and_every_frame_is_counted(
    tmp_path: Path, site: str, mosquitto: Broker, models: Path, pictures: Path
) -> None:
    with rolling_out(tmp_path / "site", site, mosquitto.port) as live, Edge(site, mosquitto.port, models) as edge:
        bundle = live.publish(tmp_path / "made", seed=21)
        updates = UpdateSettings(live.key, chunk_bytes=4096, rate_bytes_per_s=10**9, spread_s=0.0)
        camera = CameraSettings(kind="pack", fps=30.0)
        settings = device_settings(
            tmp_path, site, mosquitto.port, models, pictures, updates=updates, camera=camera, deadline_ms=5000.0
        )
        edge.decide(1, SPLIT, 5000.0)
        before = json.loads((models / "tiny" / "version.json").read_text())["sha256"]
        with running(settings):
            edge.wait(lambda: any(a.plan == SPLIT for a in edge.activations), "a frame on its way")
            assert edge.activations[-1].model == before[:12]
            rollout = live.begin(bundle)
            live.wait_status(rollout, Status.DONE)
            live.wait_fates(rollout, **{DEVICE: Fate.ACTIVE})
            new = bundle.manifest.sha256
            edge.wait(lambda: edge.activations[-1].model == new[:12], "a frame through the head of the new version")
            assert {v.name: v.sha256 for v in edge.capabilities[-1].versions}["tiny"] == new
        with running(replace(settings, camera=replace(camera, limit=5))):  # a restart serves it still
            sessions = len(edge.captured)
            edge.wait(lambda: len(edge.captured) > sessions, "frames of the next session")
        edge.wait(lambda: all(s.state != "ready" for s in edge.states[-1:]), "the goodbye")
        assert {v.name: v.sha256 for v in edge.capabilities[-1].versions}["tiny"] == new
        edge.assert_every_frame_once()
        assert edge.count(Outcome.DROPPED, "model-failed") == 0


def test_a_version_that_crashes_the_interpreter_takes_no_client_down(
    tmp_path: Path, site: str, mosquitto: Broker, models: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The self-test runs in a process of its own; here that process ends as by a segmentation fault."""
    crash = tmp_path / "crash"
    crash.mkdir()
    (crash / "sitecustomize.py").write_text(
        "import os, signal, sys\nif 'device_client.updates.selftest' in sys.orig_argv:\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    monkeypatch.syspath_prepend(str(crash))
    with rolling_out(tmp_path / "site", site, mosquitto.port) as live, Edge(site, mosquitto.port, models) as edge:
        updates = UpdateSettings(live.key, spread_s=0.0)
        camera = CameraSettings(kind="pack", fps=30.0)
        settings = device_settings(tmp_path, site, mosquitto.port, models, pictures, updates=updates, camera=camera)
        with running(settings) as client:
            rollout = live.begin(live.publish(tmp_path / "made", seed=21))
            stopped = live.wait_status(rollout, Status.STOPPED)
            assert "1 failed of 1 devices" in stopped.reason
            (member,) = live.store.members(rollout)
            assert member.reason == "the self-test crashed on this board (signal 11)"
            closed = client.frames_closed
            edge.wait(lambda: client.frames_closed > closed, "frames of the old version")
        edge.assert_every_frame_once()


def test_a_server_that_goes_away_and_comes_back_late_holds_nothing_up_for_ever(
    tmp_path: Path, site: str, mosquitto: Broker, models: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device hears of the update, asks in vain, and goes on when the server is there again."""
    monkeypatch.setattr("device_client.updates.updater.FIRST_PATIENCE_S", 0.5)
    updates_key = tmp_path / "site" / "authority" / "bundles.pem"
    updates = UpdateSettings(updates_key, chunk_bytes=4096, rate_bytes_per_s=40_000, spread_s=0.0)
    camera = CameraSettings(kind="pack", fps=30.0)
    settings = device_settings(tmp_path, site, mosquitto.port, models, pictures, updates=updates, camera=camera)
    with Edge(site, mosquitto.port, models), running(settings):
        with rolling_out(tmp_path / "site", site, mosquitto.port) as live:
            rollout = live.begin(live.publish(tmp_path / "made", seed=21), EVERYBODY)
            live.wait_fates(rollout, **{DEVICE: Fate.UNDER_WAY})
        with rolling_out(tmp_path / "site", site, mosquitto.port) as live:
            live.wait_status(rollout, Status.DONE)
            assert live.store.fates(rollout) == {DEVICE: Fate.ACTIVE}
