"""A site as its owner makes it: from `site init` to frames that cross over mutual TLS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_broker_side.broker import BrokerSettings
from edge_broker_side.recorder import RecorderSettings
from edge_broker_side.worker import WorkerSettings
from policy.settings import PolicySettings
from tools.operator_link import OperatorSettings
from wire.settings import load_settings


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def splitfleet(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.cli", *arguments],
        env={**os.environ, "SPLITFLEET_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def told(home: Path, *arguments: str) -> Any:
    done = splitfleet(home, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_site_is_made_with_every_settings_file(home: Path) -> None:
    made = told(home, "site", "init", "plant-1", "--host", "edge.example", "--host", "127.0.0.1")
    kinds: dict[str, type[Any]] = {
        "broker": BrokerSettings,
        "edge-1": WorkerSettings,
        "recorder": RecorderSettings,
        "policy": PolicySettings,
        "operator": OperatorSettings,
        "viewer": OperatorSettings,
    }
    assert {Path(path).stem for path in made["files"]} == set(kinds)
    for path in map(Path, made["files"]):
        settings = load_settings(kinds[path.stem], path)
        tls = getattr(settings, "tls", None) or settings.link.tls
        assert all(Path(file).is_file() for file in (tls.certificate, tls.key))
    accounts = {row["account"]: row for row in told(home, "site", "status")["accounts"]}
    assert accounts["edge-1"]["role"] == "worker" and accounts["authority"]["days_left"] > 7000
    again = splitfleet(home, "site", "init", "plant-1")
    assert again.returncode == 2 and "holds a site already" in again.stderr


def test_devices_come_and_go(home: Path) -> None:
    told(home, "site", "init", "plant-1")
    added = told(home, "devices", "add", "cam-01", "--tag", "line-3")
    assert Path(added["key"]).is_file() and added["tags"] == ["line-3"]
    told(home, "devices", "revoke", "cam-01")
    revoked = {row["account"]: row["revoked"] for row in told(home, "site", "status", "plant-1")["accounts"]}
    assert revoked["cam-01"] and not revoked["viewer"]
    refused = splitfleet(home, "devices", "revoke", "nobody")
    assert refused.returncode == 2 and "cam-01" in refused.stderr and "Traceback" not in refused.stderr


def test_a_command_without_a_site_says_how_to_make_one(home: Path) -> None:
    for command in (["site", "status"], ["devices", "add", "cam-01"]):
        done = splitfleet(home, *command)
        assert done.returncode == 2 and "name the site" in done.stderr
    done = splitfleet(home, "devices", "add", "cam-01", "--site", "nowhere")
    assert done.returncode == 2 and "splitfleet site init" in done.stderr
