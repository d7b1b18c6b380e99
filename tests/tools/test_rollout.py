"""The commands of roll-outs as an operator types them: publish, start, watch, hold, take back, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_client.updates.signature import verify
from edge_broker_side.identity.signing import public_key_path
from edge_broker_side.rollout.bundles import Bundle
from tools.cli import build
from wire.bundle import BundleError
from wire.errors import WireError

VERSION = "vgg-light-int8"
Splitfleet = Callable[..., Any]


@pytest.fixture
def splitfleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Splitfleet:
    """Run a command in this process, in a home of the test's own, and return what it printed as JSON."""
    monkeypatch.setenv("SPLITFLEET_HOME", str(tmp_path / "home"))

    def run(*words: str) -> Any:
        capsys.readouterr()
        build().main([*words, "--json"], prog_name="splitfleet", standalone_mode=False)
        return json.loads(capsys.readouterr().out)

    run("site", "init", "plant-1")
    return run


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "home" / "sites" / "plant-1"


def test_from_a_version_to_a_roll_out_and_back(splitfleet: Splitfleet, site: Path, tmp_path: Path) -> None:
    made = splitfleet("models", "publish", VERSION)
    bundle = Bundle(Path(made["path"]), public_key_path(site).read_bytes())
    bundle.verify_files()
    assert bundle.manifest.name == VERSION and made["bundle"] == bundle.manifest.bundle
    verify(public_key_path(site), bundle.manifest_bytes, bundle.signature)

    begun = splitfleet("rollout", "start", made["bundle"], "--where", "tag=line-3", "--stages", "10%,100%")
    assert begun == {"rollout": 1, "bundle": made["bundle"], "slot": VERSION}
    told = splitfleet("rollout", "status")
    assert (told["status"], told["stage"], told["where"], told["devices"]) == (
        "running",
        "1 of 2 (10 %)",
        "tag=line-3",
        [],
    )
    assert told["silent"] is True, "no server runs here"
    assert splitfleet("rollout", "pause")["status"] == "paused"
    assert splitfleet("rollout", "resume", "1")["status"] == "running"
    assert splitfleet("rollout", "abort")["status"] == "aborted"

    elsewhere = tmp_path / "copied.tar"
    bundle.path.rename(elsewhere)
    assert splitfleet("rollout", "start", str(elsewhere))["rollout"] == 2
    assert bundle.path.read_bytes() == elsewhere.read_bytes(), "the server has its own copy"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("rollout", "status"), "no roll-out yet: begin one with splitfleet rollout start"),
        (("rollout", "pause", "7"), "no roll-out yet"),
        (("rollout", "start", "nothing"), "there is no bundle nothing (published here: none)"),
        (("rollout", "start", "nothing", "--where", "colour=red"), "'colour' at character 1 is no key"),
        (("rollout", "start", "nothing", "--stages", "50%,10%"), "shares that rise"),
        (("rollout", "start", "nothing", "--success", "0.9"), "success '0.9' is not a share: write such as 5%"),
        (("rollout", "status", "--site", "nowhere"), "nowhere"),
        (("models", "publish", "nothing"), "there is no version 'nothing'"),
        (("models", "publish", VERSION, "--golden", "/nowhere.npz"), "no .npz file with input-0"),
    ],
)
def test_what_cannot_be_is_told_in_words(splitfleet: Splitfleet, words: tuple[str, ...], told: str) -> None:
    with pytest.raises(Exception) as caught:  # which of them reach the user as one line is for the next test
        splitfleet(*words)
    assert told in str(caught.value)


def test_a_bundle_of_another_site_is_not_rolled_out(splitfleet: Splitfleet) -> None:
    splitfleet("site", "init", "plant-2")
    made = splitfleet("models", "publish", VERSION, "--site", "plant-2")
    with pytest.raises(BundleError, match="not signed by this site") as caught:
        splitfleet("rollout", "start", made["path"], "--site", "plant-1")
    assert isinstance(caught.value, WireError), "a root error that the command line tells in one line"
