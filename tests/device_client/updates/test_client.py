"""A client whose next version would not let it start, or not let it start again: it goes back and serves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from device_client.engine import Engine
from device_client.following import Following
from device_client.settings import CameraSettings, DeviceSettings, UpdateSettings
from device_client.updates.shelf import Shelf
from tests.device_client.edge import device_settings, eventually, running
from tests.device_client.stores import LOCAL
from tests.device_client.updates.bundles import Made, Site, bundle_of
from tflite_models.catalog import CatalogError, load_catalog
from wire.messages import UpdateStage
from wire.settings import SettingsError


@pytest.fixture
def uncut(signer: Site, contents: dict[str, bytes]) -> Made:
    """A newer ``tiny`` that is cut nowhere, though the board's safe plan needs it cut."""
    version = json.loads(contents["version.json"])
    version["cuts"] = [cut for cut in version["cuts"] if cut["name"] != "conv"]
    version["plans"] = [plan for plan in version["plans"] if plan["cut"] != "conv"]
    kept = {name: data for name, data in contents.items() if name != "conv.head.tflite"}
    return bundle_of(signer, {**kept, "version.json": json.dumps(version).encode()})


@pytest.fixture
def settings(tmp_path: Path, site: str, models: Path, pictures: Path, signer: Site) -> DeviceSettings:
    return device_settings(
        tmp_path, site, None, models, pictures, updates=UpdateSettings(signer.public), safe_plan="tiny/conv/f32",
        camera=CameraSettings(kind="folder", path=pictures, fps=0, limit=4),
    )  # fmt: skip


def put_on_trial(settings: DeviceSettings, made: Made) -> None:
    """Leave the disk as a power cut in the middle of a trial would."""
    shelf = Shelf(settings.state / "updates", settings.models)
    shelf.receive(made.manifest)
    shelf.store(made.manifest, 0, made.payload)
    shelf.try_out(made.manifest, 1, frames=100)


def test_a_trial_that_lets_no_client_start_is_left_at_once(settings: DeviceSettings, uncut: Made) -> None:
    put_on_trial(settings, uncut)
    with running(settings) as client:
        eventually(lambda: client.frames_closed == 4, "every frame")
    ended = Shelf(settings.state / "updates", settings.models).held.ended
    assert ended is not None and ended.stage is UpdateStage.ROLLED_BACK
    assert "safe_plan = 'tiny/conv/f32' cannot run here" in ended.reason


def test_a_trial_that_a_power_cut_ended_goes_on_at_the_next_start(settings: DeviceSettings, newer: Made) -> None:
    put_on_trial(settings, newer)
    with running(settings) as client:
        assert client.frames_closed <= 4
    trial = Shelf(settings.state / "updates", settings.models).held.trial
    assert trial is not None and trial.bundle == newer.manifest.bundle and trial.starts_left == 1


def test_a_version_without_what_the_next_start_needs_is_not_switched_to(
    settings: DeviceSettings, uncut: Made, models: Path
) -> None:
    catalog = load_catalog(models)
    engine = Engine(catalog)
    following = Following(settings, catalog, engine)
    put_on_trial(settings, uncut)
    without = Shelf(settings.state / "updates", settings.models).catalog()
    engine.renew(without)
    with pytest.raises((SettingsError, CatalogError), match="has no cut 'conv'"):
        following.renew(without, "tiny")
    engine.renew(catalog)
    following.renew(catalog, "tiny")
    assert following.plan == following.trial == LOCAL
    following.renew(catalog, None)
    assert str(following.plan) == "tiny/conv/f32" and following.trial is None
