"""The states of an update: what leads to a version that is kept, and what never does. The old version serves on."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from device_client.updates.shelf import Shelf
from device_client.updates.trial import Board, Trial
from tests.device_client.updates.board import Client, Disk, PowerCut
from tests.device_client.updates.bundles import Made, Site, bundle_of, contents_of
from tflite_models.catalog import load_folder
from wire.messages import Chunk, Fetch, Installed, Update, UpdateStage

S = UpdateStage


@pytest.fixture
def client(tmp_path: Path, models: Path, signer: Site) -> Client:
    return Client(tmp_path / "updates", models, signer.public)


@pytest.fixture
def old(models: Path) -> str:
    return load_folder(models / "tiny").version.sha256


def test_a_version_is_fetched_proved_tried_out_and_kept(client: Client, newer: Made, old: str) -> None:
    assert client.want(newer.update(frames=3)).stage is S.QUEUED and client.serves() == old
    told = client.until_ended(newer)
    assert client.stages() == [S.IDLE, S.QUEUED, S.DOWNLOADING, S.VERIFYING, S.TESTING, S.TRIAL, S.ACTIVE]
    assert (told.done_bytes, told.size_bytes) == (len(newer.payload), len(newer.payload))
    assert told.installed == (Installed("tiny", newer.manifest.bundle),)
    assert client.serves() == newer.manifest.sha256
    assert set(client.catalog.folders) == {"tiny", "big"}


def test_a_newer_one_takes_its_place_and_leaves_nothing_behind(
    client: Client, newer: Made, newest: Made, tmp_path: Path
) -> None:
    client.want(newer.update())
    client.until_ended(newer)
    client.want(newest.update(rev=2))
    assert client.until_ended(newest).stage is S.ACTIVE
    assert client.serves() == newest.manifest.sha256
    assert [path.name for path in (tmp_path / "updates" / "bundles").iterdir()] == [newest.manifest.bundle]


def test_what_is_kept_survives_a_restart_and_is_not_fetched_again(
    client: Client, newer: Made, models: Path, signer: Site, tmp_path: Path
) -> None:
    client.want(newer.update())
    client.until_ended(newer)
    again = Client(tmp_path / "updates", models, signer.public)
    assert again.serves() == newer.manifest.sha256 and again.told[-1].stage is S.ACTIVE
    again.carry_out(again.updater.wanted(newer.update(), 0.0))
    assert again.want(newer.update(rev=9)).stage is S.ACTIVE  # another attempt at what is here
    again.turn(newer)
    assert again.asked == [] and again.serves() == newer.manifest.sha256


def test_a_download_goes_on_where_it_was(
    client: Client, newer: Made, models: Path, signer: Site, tmp_path: Path
) -> None:
    client.want(newer.update())
    client.turn(newer)
    client.turn(newer)
    again = Client(tmp_path / "updates", models, signer.public)
    told = again.want(newer.update())
    assert told.stage is S.QUEUED and told.done_bytes == 8192
    again.carry_out(again.updater.tend(1.0))
    assert again.asked[0].offset == 8192
    again.turn(newer)
    assert again.until_ended(newer).stage is S.ACTIVE


def crash_in_self_test(client: Client, made: Made) -> None:
    """Go on until the self-test begins, which the client does not outlive."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "_prove", crash)
        with pytest.raises(PowerCut):
            client.until_ended(made)


def crash(_: object) -> str:
    raise PowerCut


def test_a_self_test_that_takes_the_board_down_twice_is_not_begun_again(
    client: Client, newer: Made, models: Path, signer: Site, tmp_path: Path, old: str
) -> None:
    client.want(newer.update())
    crash_in_self_test(client, newer)
    for _ in range(3):  # starts at which nothing is heard of the broker are not the bundle's fault
        again = Client(tmp_path / "updates", models, signer.public)
    again.carry_out(again.updater.wanted(newer.update(), 0.0))
    crash_in_self_test(again, newer)
    for _ in range(2):
        last = Client(tmp_path / "updates", models, signer.public)
        told = last.told[-1]
        assert (told.stage, told.rev, told.bundle) == (S.FAILED, 1, newer.manifest.bundle)
        assert told.reason == "the board started anew during the self-test"
        assert last.updater.wanted(newer.update(), 0.0) == []
        last.turn(newer)
        assert last.asked == [] and last.serves() == old
    assert last.want(newer.update(rev=2)).stage is S.QUEUED, "another attempt is one"
    assert last.until_ended(newer).stage is S.ACTIVE


def test_one_power_cut_in_the_self_test_costs_nothing(
    client: Client, newer: Made, newest: Made, models: Path, signer: Site, tmp_path: Path
) -> None:
    client.want(newer.update())
    crash_in_self_test(client, newer)
    again = Client(tmp_path / "updates", models, signer.public)
    again.want(newest.update(rev=2))
    crash_in_self_test(again, newest)
    last = Client(tmp_path / "updates", models, signer.public)
    last.carry_out(last.updater.wanted(newest.update(rev=2), 0.0))
    assert last.until_ended(newest).stage is S.ACTIVE, "the other bundle's test was counted with this one's"
    assert last.shelf.held.testing is None


def test_the_state_of_an_older_client_is_read(client: Client, newer: Made, models: Path, tmp_path: Path) -> None:
    client.want(newer.update())
    client.until_ended(newer)
    file = tmp_path / "updates" / "state.json"
    raw = json.loads(file.read_bytes())
    del raw["testing"]
    file.write_text(json.dumps(raw))
    assert Shelf(tmp_path / "updates", models).held.kept == {"tiny": newer.manifest.bundle}


def test_the_next_bytes_are_asked_for_when_the_last_are_on_disk_and_not_faster_than_allowed(
    client: Client, newer: Made
) -> None:
    client.want(newer.update())
    client.carry_out(client.updater.tend(0.0))
    client.carry_out(client.updater.tend(1.0))
    (asked,) = client.asked
    assert asked == Fetch(newer.manifest.bundle, 0, 4096)
    client.carry_out(client.updater.arrived(Chunk(asked.bundle, 0, newer.payload[:4096]), 1.0))
    client.carry_out(client.updater.tend(1.0))
    assert len(client.asked) == 1, "4 KiB at 256 KiB/s take 16 ms"
    client.carry_out(client.updater.tend(1.016))
    assert client.asked[1] == Fetch(newer.manifest.bundle, 4096, 4096)


def test_bytes_that_do_not_come_are_asked_for_again_ever_more_rarely_and_that_is_told(
    client: Client, newer: Made
) -> None:
    client.want(newer.update())
    times = []
    for second in range(400):
        before = len(client.asked)
        client.carry_out(client.updater.tend(float(second)))
        times += [second] * (len(client.asked) - before)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps[0] <= 7 and all(gap <= 73 for gap in gaps) and gaps[-1] >= 48
    assert {asked.offset for asked in client.asked} == {0}
    assert client.told[-1].reason == "waits for the roll-out server"


def test_bytes_nobody_asked_for_are_counted_and_forgotten(client: Client, newer: Made) -> None:
    bundle = newer.manifest.bundle
    client.carry_out(client.updater.arrived(Chunk(bundle, 0, b"x"), 0.0))
    client.want(newer.update())
    client.carry_out(client.updater.tend(0.0))
    for bad in (Chunk(bundle, 1, b"x"), Chunk("other", 0, b"x"), Chunk(bundle, 0, b""), Chunk(bundle, 0, bytes(4097))):
        client.carry_out(client.updater.arrived(bad, 0.0))
    assert client.updater.counters["update_chunks_unasked"] == 5
    assert client.until_ended(newer).stage is S.ACTIVE


def test_a_file_that_comes_damaged_is_fetched_again_but_not_for_ever(client: Client, newer: Made, old: str) -> None:
    wrong = dataclasses.replace(newer, payload=newer.payload[:5000] + b"!" + newer.payload[5001:])
    client.want(newer.update())
    while client.updater.counters["update_files_damaged"] < 1:
        client.turn(wrong)
    assert client.until_ended(newer).stage is S.ACTIVE
    again = client.want(newer.update(rev=2))
    assert again.stage is S.ACTIVE


def test_tampered_bytes_never_serve(client: Client, newer: Made, old: str) -> None:
    wrong = dataclasses.replace(newer, payload=newer.payload[:5000] + b"!" + newer.payload[5001:])
    client.want(newer.update())
    told = client.until_ended(wrong)
    assert told.stage is S.FAILED and "sha256 differs" in told.reason and client.serves() == old


def _unsigned(made: Made, _: Site) -> Update:
    return made.update(signature=b"")


def _tampered(made: Made, _: Site) -> Update:
    return made.update(manifest=made.said.replace(b'"tolerance": 0.0001', b'"tolerance": 9999.0'))


def _of_another_site(made: Made, other: Site) -> Update:
    return made.update(signature=other.sign(made.said))


def _cut_short(made: Made, _: Site) -> Update:
    return made.update(manifest=made.said[:-40])


def _renamed(made: Made, _: Site) -> Update:
    return made.update(bundle="tiny-000000000000")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_unsigned, "not signed"),
        (_tampered, "not that of this site's key"),
        (_of_another_site, "not that of this site's key"),
        (_cut_short, "not that of this site's key"),
        (_renamed, "the manifest is of tiny-"),
    ],
)
def test_what_the_site_did_not_sign_is_refused_before_a_byte_is_fetched(
    client: Client, newer: Made, tmp_path: Path, old: str, spoil: Callable[[Made, Site], Update], words: str
) -> None:
    told = client.want(spoil(newer, Site(tmp_path / "other")))
    assert told.stage is S.FAILED and words in told.reason
    client.turn(newer)
    assert client.asked == [] and client.serves() == old


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "bundle format 2: this release reads 1"),
        ({"kind": "firmware"}, "kind 'firmware': this client takes version, settings, client"),
        ({"kind": "client"}, "a bundle of kind 'client' holds client.whl alone"),
        ({"kind": "settings"}, "a bundle of kind 'settings' holds settings.toml alone"),
        ({"architectures": ("aarch64",)}, "for aarch64, this board is x86_64"),
        ({"least_runtime": "2.17"}, "needs runtime 2.17, this board has tflite-runtime 2.14.0"),
        ({"least_runtime": "ai-edge-litert 2.3.0"}, "needs runtime ai-edge-litert 2.3.0"),
        ({"files": [{"path": "../state.json", "sha256": "0" * 64, "size": 1}]}, "'../state.json' cannot be a file"),
        ({"files": [{"path": "/etc/passwd", "sha256": "0" * 64, "size": 1}]}, "cannot be a file"),
        ({"files": [{"path": "a/b", "sha256": "0" * 64, "size": 1}]}, "cannot be a file"),
        ({"files": [{"path": "Manifest.json", "sha256": "0" * 64, "size": 1}]}, "cannot be a file"),
        ({"files": [{"path": ".hidden", "sha256": "0" * 64, "size": 1}]}, "cannot be a file"),
        ({"files": [{"path": "mod\u0435l", "sha256": "0" * 64, "size": 1}]}, "cannot be a file"),
        ({"files": [{"path": p, "sha256": "0" * 64, "size": 1} for p in ("a", "A")]}, "two files are called A"),
        ({"files": [{"path": "a", "sha256": "0" * 64, "size": 2**40}]}, "a size of 1099511627776"),
        ({"files": [{"path": "a", "sha256": "0" * 64, "size": -1}]}, "a size of -1"),
        ({"files": [{"path": f"f{n}", "sha256": "0" * 64, "size": 2**28} for n in range(3)]}, "allowed are 536870912"),
        ({"files": []}, "a bundle of 0 files"),
        ({"tolerance": float("nan")}, "tolerance is nan"),
        ({"name": "../tiny"}, "not a valid name"),
    ],
)
def test_a_signed_manifest_that_cannot_be_used_is_refused_with_its_reason(
    client: Client, newer: Made, signer: Site, old: str, changes: dict[str, object], words: str
) -> None:
    """Even the site itself may make no bundle that climbs, collides, lies about sizes or fits another board."""
    said = json.dumps({**json.loads(newer.said), **changes}).encode()
    bundle = newer.manifest.bundle
    told = client.want(Update(1, bundle, said, signer.sign(said)))
    assert told.stage is S.FAILED and words in told.reason
    client.turn(newer)
    assert client.asked == [] and client.serves() == old


def test_a_bundle_without_golden_samples_is_refused(client: Client, signer: Site, contents: dict[str, bytes]) -> None:
    told = client.want(bundle_of(signer, {k: v for k, v in contents.items() if k != "golden.npz"}).update())
    assert told.stage is S.FAILED and "brings no golden.npz" in told.reason


def test_another_answer_than_the_golden_one_fails_the_self_test(
    client: Client, signer: Site, tmp_path: Path, old: str
) -> None:
    made = bundle_of(signer, contents_of(tmp_path / "off", seed=11, golden_off=0.5))
    client.want(made.update())
    told = client.until_ended(made)
    assert told.stage is S.FAILED and "0.5 off here, allowed is 0.0001" in told.reason and client.serves() == old


def test_a_bundle_of_another_version_than_it_says_fails(
    client: Client, signer: Site, contents: dict[str, bytes], old: str
) -> None:
    made = bundle_of(signer, contents, name="big")
    client.want(made.update())
    told = client.until_ended(made)
    assert told.stage is S.FAILED and "of big, and holds tiny" in told.reason and client.serves() == old


@pytest.mark.parametrize("free", [0, 8 * 1024 * 1024])
def test_a_disk_without_room_fails_the_update_before_it_begins(
    tmp_path: Path, models: Path, signer: Site, newer: Made, old: str, free: int
) -> None:
    client = Client(tmp_path / "updates", models, signer.public, Disk(free=free))
    told = client.want(newer.update())
    assert told.stage is S.FAILED and "make room" in told.reason and client.serves() == old


def test_a_disk_that_fills_up_meanwhile_fails_the_update(
    tmp_path: Path, models: Path, signer: Site, newer: Made, old: str
) -> None:
    disk = Disk(free=2**30)
    client = Client(tmp_path / "updates", models, signer.public, disk)
    client.want(newer.update())
    client.turn(newer)
    disk.free = 100
    told = client.until_ended(newer)
    assert told.stage is S.FAILED and "No space left" in told.reason and client.serves() == old
    disk.free = 2**30
    client.want(newer.update(rev=2))
    assert client.until_ended(newer).stage is S.ACTIVE


def test_a_version_that_fails_on_frames_is_left_again(client: Client, newer: Made, old: str) -> None:
    client.frame_ok = False
    client.want(newer.update(frames=5))
    told = client.until_ended(newer)
    assert told.stage is S.ROLLED_BACK and "1 of 1 frames failed in the model" in told.reason
    assert client.serves() == old and told.installed == ()


def test_a_client_that_cannot_switch_goes_back(client: Client, newer: Made, old: str) -> None:
    client.want(newer.update(frames=50))
    while client.updater.stage is not S.TRIAL:
        client.turn(newer)
    client.carry_out(client.updater.cannot_switch("no memory", client.now_s))
    assert client.told[-1].stage is S.ROLLED_BACK and client.serves() == old


def test_a_trial_without_frames_ends(client: Client, newer: Made, old: str) -> None:
    client.want(newer.update(frames=50))
    while client.updater.stage is not S.TRIAL:
        client.turn(newer)
    client.now_s += 900
    client.carry_out(client.updater.tend(client.now_s))
    assert client.told[-1].stage is S.ROLLED_BACK and "of 50 frames came in 900 s" in client.told[-1].reason
    assert client.serves() == old


def test_a_trial_survives_two_restarts_and_not_a_third(
    client: Client, newer: Made, models: Path, signer: Site, tmp_path: Path, old: str
) -> None:
    client.want(newer.update(frames=50))
    while client.updater.stage is not S.TRIAL:
        client.turn(newer)
    for _ in range(2):
        client = Client(tmp_path / "updates", models, signer.public)
        client.carry_out(client.updater.wanted(newer.update(), 0.0))
        assert client.updater.stage is S.TRIAL and client.serves() == newer.manifest.sha256
    client = Client(tmp_path / "updates", models, signer.public)
    assert client.told[-1].stage is S.ROLLED_BACK and client.serves() == old
    client.carry_out(client.updater.wanted(newer.update(), 0.0))
    assert client.updater.stage is S.ROLLED_BACK, "the same attempt is not begun again"
    assert client.want(newer.update(rev=2)).stage is S.QUEUED


def test_what_is_withdrawn_stops_at_once(client: Client, newer: Made, old: str, tmp_path: Path) -> None:
    client.want(newer.update())
    client.turn(newer)
    client.carry_out(client.updater.withdrawn(1.0))
    assert (client.told[-1].reason, client.told[-1].stage) == ("withdrawn", S.FAILED)
    assert list((tmp_path / "updates" / "bundles").iterdir()) == []
    client.want(newer.update(rev=2, frames=50))
    while client.updater.stage is not S.TRIAL:
        client.turn(newer)
    client.carry_out(client.updater.withdrawn(2.0))
    assert client.told[-1].stage is S.ROLLED_BACK and client.serves() == old


def test_another_bundle_ends_the_one_under_way(client: Client, newer: Made, newest: Made) -> None:
    client.want(newer.update(frames=50))
    while client.updater.stage is not S.TRIAL:
        client.turn(newer)
    assert client.want(newest.update(rev=2)).stage is S.QUEUED
    assert client.until_ended(newest).stage is S.ACTIVE and client.serves() == newest.manifest.sha256


def test_a_version_the_board_never_had_comes_beside_the_others(
    client: Client, signer: Site, contents: dict[str, bytes]
) -> None:
    version = json.loads(contents["version.json"]) | {"name": "tiny-2"}
    made = bundle_of(signer, {**contents, "version.json": json.dumps(version).encode()}, name="tiny-2")
    client.want(made.update())
    assert client.until_ended(made).stage is S.ACTIVE
    assert set(client.catalog.folders) == {"tiny", "big", "tiny-2"}


def test_a_refused_bundle_is_told_without_the_figures_of_the_one_before(client: Client, newer: Made) -> None:
    client.want(newer.update())
    assert client.until_ended(newer).size_bytes == len(newer.payload)
    told = client.want(newer.update(rev=2, signature=b"x" * 64))
    assert (told.stage, told.done_bytes, told.size_bytes) == (S.FAILED, 0, 0)


def test_a_board_without_the_sites_key_takes_nothing(tmp_path: Path, models: Path, newer: Made, old: str) -> None:
    client = Client(tmp_path / "updates", models, tmp_path / "nowhere.pem")
    told = client.want(newer.update())
    assert told.stage is S.FAILED and "updates.key must name it" in told.reason and client.serves() == old


def test_a_damaged_update_is_left_out_at_the_next_start_and_comes_anew(
    client: Client, newer: Made, models: Path, signer: Site, tmp_path: Path, old: str
) -> None:
    client.want(newer.update())
    client.until_ended(newer)
    (tmp_path / "updates" / "bundles" / newer.manifest.bundle / "model.tflite").write_bytes(b"rotten")
    again = Client(tmp_path / "updates", models, signer.public)
    assert again.serves() == old
    again.want(newer.update())
    assert again.until_ended(newer).stage is S.ACTIVE and again.serves() == newer.manifest.sha256


@pytest.mark.parametrize("content", [b"", b"{", b'{"kept": 3}', b'{"trial": {"version": "x"}}', b"\xff"])
def test_a_state_that_cannot_be_read_counts_as_none(
    tmp_path: Path, models: Path, signer: Site, old: str, content: bytes
) -> None:
    (tmp_path / "updates").mkdir()
    (tmp_path / "updates" / "state.json").write_bytes(content)
    assert Client(tmp_path / "updates", models, signer.public).serves() == old


def test_a_board_with_the_fast_runtime_takes_what_the_light_one_can(
    tmp_path: Path, models: Path, signer: Site, newer: Made
) -> None:
    board = Board("aarch64", "ai-edge-litert 2.3.0")
    client = Client(tmp_path / "updates", models, signer.public, board=board)
    assert client.want(newer.update()).stage is S.QUEUED


def test_a_trial_may_fail_as_often_as_before_and_not_more() -> None:
    trial = Trial(10, failed_before=0.2, began_s=0.0, limit_s=60.0)
    for ok in (False, True, False):
        trial.note(ok=ok)
    assert trial.verdict(1.0) is None
    for _ in range(7):
        trial.note(ok=True)
    assert trial.verdict(1.0) == ""
    trial.note(ok=False)
    assert "3 of 11 frames failed in the model, 20 % before" in str(trial.verdict(1.0))
