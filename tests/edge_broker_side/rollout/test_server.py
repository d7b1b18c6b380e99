"""The roll-out server on a real broker, with devices that do what a test wants."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_broker_side.broker import Broker
from edge_broker_side.rollout.bundles import Bundle
from edge_broker_side.rollout.campaign import Fate, RolloutError, Status
from edge_broker_side.rollout.server import RolloutSettings
from edge_broker_side.rollout.store import RolloutStore
from tests.edge_broker_side.rollout.live import EVERYBODY, Live, Puppet, rolling_out, serving, until
from wire.messages import CachedVersion, UpdateStage

S = UpdateStage


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


@pytest.fixture
def live(tmp_path: Path, site: str, mosquitto: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    monkeypatch.setattr("edge_broker_side.rollout.server.QUIET_S", 0.3)
    monkeypatch.setattr("edge_broker_side.rollout.server.STEP_EVERY_S", 0.05)
    with rolling_out(tmp_path / "site", site, mosquitto.port) as running:
        yield running


@pytest.fixture
def bundle(live: Live, tmp_path: Path) -> Bundle:
    return live.publish(tmp_path / "made", seed=3)


def held(bundle: Bundle) -> tuple[CachedVersion, ...]:
    return (CachedVersion("tiny", bundle.manifest.sha256),)


def test_a_device_is_told_is_handed_every_byte_and_is_believed_when_its_capabilities_agree(
    live: Live, bundle: Bundle, site: str, mosquitto: Broker
) -> None:
    with Puppet(site, "cam-1", mosquitto.port) as cam:
        rollout = live.begin(bundle)
        update = cam.wait_update()
        assert (update.rev, update.bundle, update.trial_frames) == (rollout.id, bundle.manifest.bundle, 3)
        assert (update.manifest, update.signature) == (bundle.manifest_bytes, bundle.signature)
        size, got = bundle.manifest.size, b""
        while len(got) < size:
            cam.fetch(update.bundle, len(got), 5000)
            until(lambda: bool(cam.heard().chunks), "a chunk")
            chunk = cam.chunks.pop()
            assert (chunk.bundle, chunk.offset, len(chunk.data)) == (
                update.bundle,
                len(got),
                min(5000, size - len(got)),
            )
            got += chunk.data
        assert got == bundle.read(0, size)
        cam.is_at(update, S.ACTIVE, size, size)
        live.wait_fates(rollout, cam_1=Fate.UNDER_WAY)
        assert live.status(rollout) is Status.RUNNING
        cam.be(holds=held(bundle))
        live.wait_status(rollout, Status.DONE)
        live.wait_fates(rollout, cam_1=Fate.ACTIVE)


def test_a_device_that_lies_about_its_progress_is_not_believed(
    live: Live, bundle: Bundle, site: str, mosquitto: Broker
) -> None:
    with Puppet(site, "liar", mosquitto.port) as cam:
        rollout = live.begin(bundle, replace(EVERYBODY, limit_s=1.0))
        update, size = cam.wait_update(), bundle.manifest.size
        for done, of in ((size + 1, size), (-1, size), (10, size * 2), (2**62, 2**62)):
            cam.is_at(update, S.DOWNLOADING, done, of)
        until(lambda: live.server.counters["refused_progress"] == 4, "refusals")
        cam.is_at(update, S.ACTIVE, size, size)
        stopped = live.wait_status(rollout, Status.STOPPED)
        assert "1 overdue of 1 devices" in stopped.reason


def test_only_what_a_device_is_to_have_is_handed_to_it(
    live: Live, bundle: Bundle, site: str, mosquitto: Broker
) -> None:
    with Puppet(site, "cam-1", mosquitto.port) as cam, Puppet(site, "other", mosquitto.port) as other:
        cam.be(tags=("line-3",))
        live.begin(bundle, where="tag=line-3")
        update, size = cam.wait_update(), bundle.manifest.size
        other.fetch(update.bundle, 0, 100)
        for wrong in (("tiny-0", 0, 100), (update.bundle, size, 1), (update.bundle, -1, 10), (update.bundle, 0, 0)):
            cam.fetch(*wrong)
        cam.fetch(update.bundle, 0, 10**9)
        until(lambda: live.server.counters["refused_fetches"] == 5, "refusals")
        until(lambda: bool(cam.heard().chunks), "the chunk that is allowed")
        assert [len(chunk.data) for chunk in cam.chunks] == [min(size, 256 * 1024)]
        other.hear()
        assert other.chunks == [] and not any(other.updates)


def test_stages_go_on_as_devices_succeed_and_stop_where_one_fails(
    live: Live, bundle: Bundle, site: str, mosquitto: Broker
) -> None:
    cams = {name: Puppet(site, name, mosquitto.port) for name in ("a", "b", "c", "d")}
    rollout = live.begin(bundle, replace(EVERYBODY, stages=(0.25, 0.5, 1.0)))

    def heard() -> set[str]:
        for cam in cams.values():
            cam.hear()
        return {name for name, cam in cams.items() if cam.updates}

    until(lambda: len(heard()) == 1, "the first stage")
    (first,) = heard()
    cams[first].be(holds=held(bundle))
    cams[first].is_at(cams[first].wait_update(), S.ACTIVE)
    until(lambda: len(heard()) == 2, "the second stage")
    (second,) = heard() - {first}
    cams[second].is_at(cams[second].wait_update(), S.ROLLED_BACK, reason="3 of 3 frames failed")
    stopped = live.wait_status(rollout, Status.STOPPED)
    assert stopped.reason == "1 rolled back of 2 devices, at most 2 % may fail" and stopped.stage == 1
    assert heard() == {first, second}
    for cam in cams.values():
        cam.__exit__()


def test_an_absent_device_catches_up_when_it_returns(live: Live, bundle: Bundle, site: str, mosquitto: Broker) -> None:
    with Puppet(site, "away", mosquitto.port, online=False), Puppet(site, "here", mosquitto.port) as here:
        rollout = live.begin(bundle)
        here.is_at(here.wait_update(), S.ACTIVE)
        here.be(holds=held(bundle))
        live.wait_status(rollout, Status.DONE)
        live.wait_fates(rollout, away=Fate.OFFLINE)
    with Puppet(site, "away", mosquitto.port) as back:
        update = back.wait_update()
        back.fetch(update.bundle, 0, 10)
        until(lambda: bool(back.heard().chunks), "a chunk")
        back.be(holds=held(bundle))
        back.is_at(update, S.ACTIVE)
        live.wait_fates(rollout, away=Fate.ACTIVE)


def test_what_is_aborted_is_taken_back_from_those_who_have_not_kept_it(
    live: Live, bundle: Bundle, site: str, mosquitto: Broker
) -> None:
    with Puppet(site, "kept", mosquitto.port) as kept, Puppet(site, "going", mosquitto.port) as going:
        rollout = live.begin(bundle)
        kept.is_at(kept.wait_update(), S.ACTIVE)
        kept.be(holds=held(bundle))
        update = going.wait_update()
        live.wait_fates(rollout, kept=Fate.ACTIVE)
        live.store.turn(rollout, Status.ABORTED, "by a test", 0.0)
        until(lambda: going.heard().updates[-1] is None, "the withdrawal")
        going.fetch(update.bundle, 0, 10)
        until(lambda: live.server.counters["refused_fetches"] == 1, "a refusal")
        live.wait_fates(rollout, going=Fate.UNTOLD, kept=Fate.ACTIVE)
        kept.hear()
        assert len(kept.updates) == 1


def test_a_paused_roll_out_tells_nobody_new_and_one_is_open_at_a_time(
    live: Live, bundle: Bundle, site: str, mosquitto: Broker
) -> None:
    with Puppet(site, "a", mosquitto.port) as first:
        rollout = live.begin(bundle)
        with pytest.raises(RolloutError, match="let it end, or splitfleet rollout abort"):
            live.begin(bundle)
        first.wait_update()
        paused = live.store.turn(rollout, Status.PAUSED, "", 0.0)
        with pytest.raises(RolloutError, match="is paused, so it cannot be paused"):
            live.store.turn(paused, Status.PAUSED, "", 0.0)
        with Puppet(site, "b", mosquitto.port) as second:
            first.is_at(first.wait_update(), S.ACTIVE)
            first.be(holds=held(bundle))
            live.wait_fates(rollout, a=Fate.ACTIVE)
            second.hear()
            assert second.updates == []
            live.store.turn(paused, Status.RUNNING, "", 0.0)
            second.wait_update()


def test_a_server_that_was_away_goes_on_where_it_was(
    tmp_path: Path, site: str, mosquitto: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_broker_side.rollout.server.QUIET_S", 0.3)
    with Puppet(site, "cam-1", mosquitto.port) as cam:
        with rolling_out(tmp_path / "site", site, mosquitto.port) as live:
            bundle = live.publish(tmp_path / "made", seed=3)
            rollout = live.begin(bundle)
            update = cam.wait_update()
            settings: RolloutSettings = live.settings
        cam.is_at(update, S.ACTIVE)
        cam.be(holds=held(bundle))
        with serving(settings):
            store = RolloutStore(settings.store)
            until(lambda: store.get(rollout.id).status is Status.DONE, "the end")
            # What is retained may come after the end: of a device that counts as offline until then.
            until(lambda: store.fates(rollout) == {"cam-1": Fate.ACTIVE}, "the device's word")
            store.close()


def test_a_bundle_that_was_spoiled_on_the_disk_stops_its_roll_out(
    live: Live, bundle: Bundle, site: str, mosquitto: Broker
) -> None:
    bundle.path.write_bytes(bundle.path.read_bytes()[:3000])
    with Puppet(site, "cam-1", mosquitto.port) as cam:
        rollout = live.begin(bundle)
        assert "does not hold the files that its manifest names" in live.wait_status(rollout, Status.STOPPED).reason
        cam.hear()
        assert cam.updates == []


def test_a_newer_roll_out_of_the_same_version_takes_the_place_of_an_older(
    live: Live, bundle: Bundle, site: str, mosquitto: Broker, tmp_path: Path
) -> None:
    newer = live.publish(tmp_path / "newer", seed=4)
    with Puppet(site, "cam-1", mosquitto.port) as cam, Puppet(site, "cam-2", mosquitto.port, online=False) as other:
        first = live.begin(bundle)
        cam.is_at(cam.wait_update(), S.ACTIVE)
        cam.be(holds=held(bundle))
        live.wait_status(first, Status.DONE)
        second = live.begin(newer)
        until(lambda: cam.wait_update().rev == second.id, "the newer bundle")
        until(lambda: other.wait_update().rev == second.id, "the newer bundle for the absent one")
        cam.is_at(cam.wait_update(), S.ACTIVE)
        cam.be(holds=held(newer))
        live.wait_status(second, Status.DONE)
        assert cam.wait_update().rev == second.id, "nobody is sent back"
