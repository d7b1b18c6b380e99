"""Updates for which the client starts anew, with real processes: other settings, another release, and bad ones."""

from __future__ import annotations

import logging
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tomli_w

import device_client
from device_client.settings import DeviceSettings
from device_client.updates.shelf import Shelf
from device_client.updates.start import laid_over
from edge_broker_side.broker import Broker
from edge_broker_side.identity.signing import Signer
from edge_broker_side.rollout.bundles import Bundle, make_file_bundle
from edge_broker_side.rollout.campaign import Fate, Status
from tests.device_client.edge import DEVICE, Edge
from tests.edge_broker_side.rollout.live import Live, rolling_out, until
from tools.flash.wheel import build_wheel
from wire.bundle import CLIENT, SETTINGS
from wire.messages import UpdateStage
from wire.settings import SettingsError


@pytest.fixture(autouse=True)
def quick(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr("edge_broker_side.rollout.server.QUIET_S", 0.3)
    monkeypatch.setattr("edge_broker_side.rollout.server.STEP_EVERY_S", 0.1)


@pytest.fixture
def live(tmp_path: Path, site: str, mosquitto: Broker) -> Iterator[Live]:
    with rolling_out(tmp_path / "site", site, mosquitto.port) as running:
        yield running


class Board:
    """A device client as systemd would run it: started again whenever it ends."""

    def __init__(self, folder: Path, live: Live, port: int, models: Path, pack: Path) -> None:
        self.state = folder / "state"
        self.models = models
        self.file = folder / "device.toml"
        document = {
            "site": live.settings.site, "name": DEVICE, "models": str(models), "state": str(self.state),
            "telemetry_period_s": 0.5, "camera": {"kind": "pack", "path": str(pack), "fps": 20.0},
            "link": {"port": port, "backoff_max_s": 0.5},
            "updates": {"key": str(live.key), "spread_s": 0.0, "trial_limit_s": 30.0},
        }  # fmt: skip
        self.file.write_bytes(tomli_w.dumps(document).encode())
        self.log = folder / "log"
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None

    def keep_running(self) -> None:
        """Start it if it does not run."""
        if self._process is None or self._process.poll() is not None:
            self.starts += 1
            with self.log.open("ab") as log:
                command = [sys.executable, "-m", "device_client", str(self.file)]
                self._process = subprocess.Popen(command, stdout=log, stderr=log)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)


@contextmanager
def board(tmp_path: Path, live: Live, broker: Broker, models: Path, pack: Path) -> Iterator[tuple[Board, Edge]]:
    with Edge(live.settings.site, broker.port, models) as edge:
        running = Board(tmp_path, live, broker.port, models, pack)
        running.keep_running()
        try:
            edge.wait(lambda: bool(edge.telemetry), "the client")
            yield running, edge
        finally:
            running.stop()
        edge.assert_every_frame_once()


def publish(live: Live, kind: str, data: bytes) -> Bundle:
    out = live.settings.bundle("").parent
    return Bundle(make_file_bundle(kind, data, out, Signer.of_site(live.site_folder), 0), live.key.read_bytes())


def wheel(folder: Path, version: str, more: str = "") -> bytes:
    """Return the client's wheel with another version, and something more in its process's first module."""
    folder.mkdir()
    made, changed = build_wheel(folder), folder / "changed.whl"
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "device_client/__init__.py":
                data = data.replace(device_client.__version__.encode(), version.encode())
            if name == "device_client/client.py":
                data += f"\n\n{more}\n".encode()
            new.writestr(name, data)
    return changed.read_bytes()


def test_settings_come_over_the_air_and_go_over_those_that_were_flashed(
    tmp_path: Path, live: Live, mosquitto: Broker, models: Path, pack: Path
) -> None:
    with board(tmp_path, live, mosquitto, models, pack) as (running, edge):
        bundle = publish(live, SETTINGS, b'deadline_ms = 777.0\ntags = ["belt"]\n[camera]\nfps = 25.0\n')
        pid = running.pid
        live.wait_status(live.begin(bundle), Status.DONE)
        edge.wait(lambda: edge.capabilities[-1].deadline_ms == 777.0, "the new deadline")
        told = edge.capabilities[-1]
        assert (told.tags, told.fps) == (("belt",), 25.0)
        assert (running.pid, running.starts) == (pid, 1), "the process became itself anew"


@pytest.mark.parametrize(
    ("fragment", "reason"),
    [
        (b"deadline_ms = -1\n", "deadline_ms is -1"),
        (b'name = "other"\n', "an update may not change name"),
        (b'safe_plan = "nothing/output/none"\n', "cannot run here"),
        (b"[[[\n", "is not TOML"),
        (b"frames = 3\n", "unknown setting frames"),
    ],
)
def test_settings_that_no_client_would_start_with_fail_before_anything_changes(
    tmp_path: Path, live: Live, models: Path, pack: Path, fragment: bytes, reason: str
) -> None:
    running = Board(tmp_path, live, 1, models, pack)
    over = tmp_path / "settings.toml"
    over.write_bytes(fragment)
    command = [sys.executable, "-m", "device_client", "--check", str(running.file), "--over", str(over)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and reason in done.stderr and "Traceback" not in done.stderr
    if "safe_plan" not in fragment.decode():
        with pytest.raises(SettingsError):
            laid_over(running.file, over)


def test_settings_that_cost_a_board_its_broker_are_left_again(
    tmp_path: Path, live: Live, mosquitto: Broker, models: Path, pack: Path
) -> None:
    bundle = publish(live, SETTINGS, b"[link]\nport = 1\n")
    with board(tmp_path, live, mosquitto, models, pack) as (running, edge):
        text = running.file.read_text().replace("trial_limit_s = 30.0", "trial_limit_s = 3.0")
        running.file.write_text(text)
        rollout = live.begin(bundle)
        live.wait_fates(rollout, **{DEVICE: Fate.ROLLED_BACK})
        (member,) = live.store.members(rollout)
        assert member.reason == "the broker was not reached in 3 s"
        edge.wait(lambda: edge.states[-1].state == "ready", "the old settings")


def test_a_release_that_cannot_start_fails_its_self_test(
    tmp_path: Path, live: Live, mosquitto: Broker, models: Path, pack: Path
) -> None:
    bundle = publish(live, CLIENT, wheel(tmp_path / "wheel", "9.9.9", "raise ImportError('a package is missing')"))
    with board(tmp_path, live, mosquitto, models, pack) as (running, edge):
        rollout = live.begin(bundle)
        live.wait_fates(rollout, **{DEVICE: Fate.FAILED})
        (member,) = live.store.members(rollout)
        assert "a package is missing" in member.reason
        assert running.starts == 1 and edge.capabilities[-1].client_version == device_client.__version__


def test_a_release_comes_over_the_air_and_one_that_dies_at_work_gives_way_to_it_again(
    tmp_path: Path, live: Live, mosquitto: Broker, models: Path, pack: Path
) -> None:
    good = publish(live, CLIENT, wheel(tmp_path / "good", "9.9.9"))
    bad = publish(
        live, CLIENT, wheel(tmp_path / "bad", "9.9.10", "def run(*_: object) -> bool:\n    raise SystemExit(7)")
    )
    with board(tmp_path, live, mosquitto, models, pack) as (running, edge):
        pid = running.pid
        live.wait_status(live.begin(good), Status.DONE)
        edge.wait(lambda: edge.capabilities[-1].client_version == "9.9.9", "the new release")
        assert (running.pid, running.starts) == (pid, 1), "the process became the new release"

        rollout = live.begin(bad)

        def back() -> bool:
            running.keep_running()
            return live.store.fates(rollout).get(DEVICE) is Fate.ROLLED_BACK

        until(back, "the release before")
        assert running.starts == 4, "one by which it came, two that a power cut may cost, and the one that goes back"
        session = edge.capabilities[-1].session
        assert edge.capabilities[-1].client_version == "9.9.9"
        running.stop()
        running.keep_running()
        edge.wait(lambda: edge.capabilities[-1].session > session, "the next start")
        assert edge.capabilities[-1].client_version == "9.9.9"
        held = Shelf(running.state / "updates", models).held
        assert held.ended is not None and held.ended.stage is UpdateStage.ROLLED_BACK
        assert held.kept == {"@client": good.manifest.bundle}


def test_a_board_without_updates_starts_as_ever(tmp_path: Path, models: Path) -> None:
    from device_client.updates.start import begin

    path = tmp_path / "device.toml"
    path.write_bytes(tomli_w.dumps({"site": "s", "name": "n", "models": str(models), "state": str(tmp_path)}).encode())
    start = begin(path)
    assert isinstance(start.settings, DeviceSettings) and start.shelf is None
