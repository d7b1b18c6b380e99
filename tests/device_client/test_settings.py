"""Settings that are refused name the key, the value and what is allowed; the process ends with code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from device_client.settings import DeviceSettings
from wire.settings import SettingsError, load_settings

GOOD = """
site = "lab"
name = "cam-1"
models = "models"
state = "state"
"""


def load(tmp_path: Path, text: str) -> DeviceSettings:
    """Load settings from a file that holds this text."""
    path = tmp_path / "device.toml"
    path.write_text(text)
    return load_settings(DeviceSettings, path)


def test_little_needs_to_be_said(tmp_path: Path) -> None:
    settings = load(tmp_path, GOOD)
    assert settings.broker
    assert settings.camera.kind == "pack"
    assert settings.models == Path("models")


def test_everything_can_be_said(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        GOOD
        + """
safe_plan = "resnet-light/output/none"
deadline_ms = 500
tags = ["roof", "north"]
slowdown = 8.5
[camera]
kind = "folder"
path = "/pictures"
fps = 0
changes = [{at_s = 10, fps = 4}, {at_s = 20.5, fps = 0.5}]
[link]
host = "edge.local"
port = 8883
[link.tls]
ca = "ca.pem"
""",
    )
    assert settings.deadline_ms == 500.0
    assert settings.tags == ("roof", "north")
    assert [change.fps for change in settings.camera.changes] == [4.0, 0.5]
    assert settings.link.tls is not None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('colour = "red"', ["colour", "red", "deadline_ms"]),
        ('deadline_ms = "soon"', ["deadline_ms", "soon", "a number"]),
        ("deadline_ms = 0", ["deadline_ms", "0", "1 to"]),
        ("deadline_ms = nan", ["deadline_ms", "nan", "1 to"]),
        ("slowdown = inf", ["slowdown", "inf", "1 to"]),
        ("max_in_flight = 0", ["max_in_flight", "0", "1 to"]),
        ("ledger_rows = 5", ["ledger_rows", "5", "100 to"]),
        ("telemetry_period_s = 0", ["telemetry_period_s", "0", "0.1 to"]),
        ('safe_plan = "local"', ["local", "version/cut/codec"]),
        ('log_level = "LOUD"', ["log_level", "LOUD", "DEBUG"]),
        ('[camera]\nkind = "webcam"', ["camera.kind", "webcam", "v4l2"]),
        ("[camera]\nfps = -1", ["camera.fps", "-1", "0 "]),
        ("[camera]\nqueue = 0", ["camera.queue", "0", "1 or more"]),
        ("[camera]\nlimit = 0", ["camera.limit", "0", "1 or more"]),
        ('[camera]\nkind = "folder"', ["camera.path", "folder"]),
        ("[camera]\nspeed = 3", ["camera.speed", "3", "fps"]),
        ("[camera]\nchanges = [{at_s = 1, fps = 0}]", ["camera.changes.fps", "0", "above 0"]),
        ("[link]\nport = 70000", ["port", "70000", "65535"]),
        ("models = ", ["device.toml", "TOML"]),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, line: str, words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, GOOD + line + "\n")
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["Cam", "a/b", "", "ü", "x" * 65])
def test_names_outside_the_contract_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="name"):
        load(tmp_path, GOOD.replace("cam-1", name))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (GOOD + "colour = 1\n", "colour"),
        (GOOD, "models"),
        (GOOD.replace('"models"', '"{models}"') + 'safe_plan = "huge/output/none"\n', "safe_plan"),
        (GOOD.replace('"models"', '"{models}"') + 'safe_plan = "tiny/input/raw8"\nmay_ship_input = false\n', "picture"),
        (GOOD.replace('"models"', '"{models}"') + '[camera]\nkind = "folder"\npath = "nowhere"\n', "nowhere"),
        (GOOD.replace('"models"', '"{models}"') + 'profile = "nowhere.json"\n', "nowhere.json"),
    ],
)
def test_the_process_says_it_in_one_line_and_ends_with_2(tmp_path: Path, models: Path, text: str, word: str) -> None:
    path = tmp_path / "device.toml"
    path.write_text(text.replace("{models}", str(models)))
    done = subprocess.run(
        [sys.executable, "-m", "device_client", str(path)], capture_output=True, text=True, timeout=60, check=False,
        cwd=tmp_path, env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith("INFO: Created TensorFlow")]
    assert len(said) == 1
    assert word in said[0]
