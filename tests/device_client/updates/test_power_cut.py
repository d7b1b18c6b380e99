"""The power goes at any step of an update: what starts next has exactly one whole version, and comes to the new one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.device_client.updates.board import Client, Disk, PowerCut
from tests.device_client.updates.bundles import Made, Site
from tflite_models.catalog import load_folder
from wire.messages import UpdateStage


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a real disk would do is done by ``Disk``; thousands of real syncs would only take time."""
    monkeypatch.setattr("os.fsync", lambda _: None)


def believe(_manifest: bytes, _signature: bytes) -> None:
    """Signatures are proved elsewhere; here hundreds of starts would each call openssl."""


def start(folder: Path, models: Path, key: Path, disk: Disk) -> Client:
    return Client(folder, models, key, disk, signature=believe, chunk_bytes=2048)


def go(folder: Path, models: Path, key: Path, disk: Disk, bundles: list[Made]) -> Client:
    """Run one update after the other to its end."""
    client = start(folder, models, key, disk)
    for rev, made in enumerate(bundles, 1):
        client.want(made.update(rev=rev, frames=2))
        client.until_ended(made)
    return client


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory, models: Path, signer: Site, newer: Made, newest: Made) -> int:
    """How many durable steps two updates take."""
    disk = Disk()
    go(tmp_path_factory.mktemp("whole") / "updates", models, signer.public, disk, [newer, newest])
    return disk.steps


def cuts(steps: int) -> Iterator[tuple[int, bool]]:
    return ((step, lazy) for step in range(steps) for lazy in (False, True))


def test_a_power_cut_at_any_step_leaves_one_whole_version_and_a_client_that_goes_on(
    tmp_path: Path, models: Path, signer: Site, newer: Made, newest: Made, steps: int
) -> None:
    old = load_folder(models / "tiny").version.sha256
    versions = {old, newer.manifest.sha256, newest.manifest.sha256}
    assert steps > 30
    for step, lazy in cuts(steps):
        folder = tmp_path / f"{step}-{lazy}"
        with pytest.raises(PowerCut):
            go(folder, models, signer.public, Disk(step, lazy=lazy), [newer, newest])
        client = start(folder, models, signer.public, Disk())
        assert client.serves() in versions
        client.carry_out(client.updater.wanted(newest.update(rev=2, frames=2), client.now_s))
        client.until_ended(newest)
        assert (client.updater.stage, client.serves()) == (UpdateStage.ACTIVE, newest.manifest.sha256), (step, lazy)
        assert [path.name for path in (folder / "bundles").iterdir()] == [newest.manifest.bundle]


def test_the_power_may_go_again_and_again(tmp_path: Path, models: Path, signer: Site, newer: Made, steps: int) -> None:
    """Every start gets a few steps further; none begins from nothing, or the download would never end."""
    folder, starts = tmp_path / "updates", 0
    while True:
        starts += 1
        assert starts < steps
        disk = Disk(cut_at=4)
        try:
            client = start(folder, models, signer.public, disk)
            client.carry_out(client.updater.wanted(newer.update(frames=2), client.now_s))
            client.until_ended(newer)
        except PowerCut:
            continue
        break
    assert starts > 5 and client.serves() == newer.manifest.sha256
