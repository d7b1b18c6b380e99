"""A bundle: whole or not there, the same bytes each time, its key for nobody else, and clear words for the rest."""

from __future__ import annotations

import resource
import shutil
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from device_client.settings import DeviceSettings
from edge_broker_side.identity.authority import facts
from edge_broker_side.identity.register import SiteRegister
from edge_broker_side.identity.signing import Signer
from tests.tools.flash.conftest import NOW, contents, make
from tflite_models.catalog import CatalogError, load_catalog
from tflite_models.pack import load_pack
from tools.flash.bundle import SUMS, Bundle
from tools.flash.camera import CameraChoice
from tools.flash.errors import FlashError
from wire.channels import Role
from wire.settings import load_settings


def test_it_holds_what_the_board_needs(bundle: Bundle, site: Path) -> None:
    settings = load_settings(DeviceSettings, bundle.folder / "device.toml")
    assert (settings.site, settings.name, settings.tags) == ("plant-1", "cam-01", ("line-3",))
    assert (settings.link.host, settings.link.port) == ("edge.example", 8883)
    assert settings.safe_plan == "resnet-light/output/none"
    assert settings.link.tls and settings.link.tls.key == "/etc/splitfleet/tls/key.pem"
    told = facts((bundle.folder / "tls" / "certificate.pem").read_bytes())
    assert (told.name, told.issuer) == ("cam-01", "plant-1 authority")
    assert settings.updates and settings.updates.key == Path("/etc/splitfleet/tls/bundles.pem")
    assert (bundle.folder / "tls" / "bundles.pem").read_bytes() == Signer.of_site(site).public_pem()
    (version,) = load_catalog(bundle.folder / "models", check_hash=True)
    heads = {f"{cut.name}.head.tflite" for cut in version.cuts if cut.name not in ("input", "output")}
    assert {path.name for path in (bundle.folder / "models" / version.name).iterdir()} == {
        "version.json",
        "model.tflite",
        *heads,
    }
    _, labels, names = load_pack(bundle.folder / "frames.npz")
    assert [list(labels).count(label) for label in range(len(names))] == [6] * 10
    assert subprocess.run(["sha256sum", "--check", "--quiet", SUMS], cwd=bundle.folder, check=False).returncode == 0
    assert sum(path.stat().st_size for path in bundle.folder.rglob("*") if path.is_file()) == bundle.size_of()


def test_the_key_is_for_its_owner_alone_and_in_one_place(bundle: Bundle) -> None:
    assert stat.S_IMODE(bundle.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((bundle.folder / "tls" / "key.pem").stat().st_mode) == 0o600
    holders = [p.name for p in bundle.folder.rglob("*") if p.is_file() and b"PRIVATE KEY" in p.read_bytes()]
    assert holders == ["key.pem"]


def test_made_again_it_keeps_every_byte(home: Path, site: Path, tmp_path: Path) -> None:
    first = make(tmp_path / "cam", site)
    before = contents(first.folder)
    assert len(first.changed) == len(before) - 1  # all but the list of hashes
    second = make(tmp_path / "cam", site)
    assert second.changed == () and contents(second.folder) == before
    (first.folder / "install.sh").write_text("broken")
    (first.folder / "user-data").unlink()
    with (first.folder / SUMS).open("a") as file:
        file.write("more\n")
    third = make(tmp_path / "cam", site)
    assert set(third.changed) == {"install.sh", "user-data"} and contents(third.folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["cam"]


def test_a_new_certificate_changes_the_certificate_alone(home: Path, tmp_path: Path) -> None:
    held = SiteRegister(tmp_path / "site")
    held.create("plant-2", ["127.0.0.1"], 8883, NOW)
    held.add("cam-01", Role.DEVICE, NOW)
    make(tmp_path / "cam", tmp_path / "site")
    held.add("cam-01", Role.DEVICE, NOW)
    again = make(tmp_path / "cam", tmp_path / "site")
    assert set(again.changed) == {"tls/certificate.pem", "tls/key.pem"}


def test_several_versions_the_first_is_safe(home: Path, site: Path, tmp_path: Path) -> None:
    made = make(tmp_path / "cam", site, versions="vgg-light resnet-light")
    settings = load_settings(DeviceSettings, made.folder / "device.toml")
    assert settings.safe_plan == "vgg-light/output/none"
    assert {version.name for version in load_catalog(made.folder / "models")} == {"vgg-light", "resnet-light"}


def test_a_32_bit_board_takes_debians_packages(home: Path, site: Path, tmp_path: Path) -> None:
    made = make(tmp_path / "cam", site, target="pi32", camera="/srv/pictures")
    wanted = ["python3-numpy", "python3-msgpack", "python3-pil"]
    assert yaml.safe_load((made.folder / "user-data").read_text())["packages"] == wanted
    assert f'DEBIAN="{" ".join(wanted)}"\n' in (made.folder / "bundle.env").read_text()
    assert "numpy" not in (made.folder / "requirements.txt").read_text()
    assert tomllib.loads((made.folder / "device.toml").read_text())["camera"] == {
        "kind": "folder",
        "path": "/srv/pictures",
    }
    assert "frames.npz" not in made.sizes


def test_a_board_of_a_plain_site_has_no_certificate(home: Path, tmp_path: Path) -> None:
    held = SiteRegister(tmp_path / "site")
    held.create("plant-3", ["127.0.0.1"], 1883, NOW, secure=False)
    held.add("cam-01", Role.DEVICE, NOW)
    made = make(tmp_path / "cam", tmp_path / "site")
    assert load_settings(DeviceSettings, made.folder / "device.toml").link.tls is None
    assert {path.name for path in (made.folder / "tls").iterdir()} == {"bundles.pem"}


def test_the_user_data_is_a_cloud_config(bundle: Bundle) -> None:
    text = (bundle.folder / "user-data").read_text(encoding="utf-8")
    assert text.startswith("#cloud-config\n")
    assert yaml.safe_load(text) == {"runcmd": [["sh", "/boot/firmware/splitfleet/first-boot.sh"]]}


def test_a_profile_of_the_class_goes_along(home: Path, site: Path, tmp_path: Path) -> None:
    copy = tmp_path / "site"
    shutil.copytree(site, copy)
    (copy / "data" / "profiles").mkdir(parents=True)
    (copy / "data" / "profiles" / "unprofiled.json").write_text("{}")
    made = make(tmp_path / "cam", copy)
    assert (made.folder / "profile.json").read_text() == "{}"
    settings = load_settings(DeviceSettings, made.folder / "device.toml")
    assert settings.profile == Path("/var/lib/splitfleet/profile.json")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cam-09", "is no device of site plant-1 yet: splitfleet devices add cam-09"),
        ("cam-02", "cam-02 is revoked: splitfleet devices add"),
        ("edge-1", "edge-1 is a worker"),
    ],
)
def test_who_is_no_device_of_the_site_is_refused(home: Path, site: Path, tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(FlashError, match=words):
        make(tmp_path / "cam", site, name=name)
    assert not list(tmp_path.iterdir())


def test_an_unknown_version_is_refused(home: Path, site: Path, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no version 'resnet'"):
        make(tmp_path / "cam", site, versions="resnet")
    assert not list(tmp_path.iterdir())


def test_other_peoples_files_are_left_alone(bundle: Bundle, home: Path, site: Path, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine").write_text("mine")
    with pytest.raises(FlashError, match="other things than a bundle"):
        make(tmp_path / "letters", site, target="x86")
    copy = tmp_path / "copy"
    shutil.copytree(bundle.folder, copy)
    (copy / "models" / "notes").write_text("mine")
    with pytest.raises(FlashError, match="such as models/notes"):
        make(copy, site, target="x86")
    (copy / "models" / "notes").unlink()
    (copy / "bundle.env").write_text((copy / "bundle.env").read_text().replace("cam-01", "cam-03"))
    with pytest.raises(FlashError, match="of another device"):
        make(copy, site, target="x86")
    assert (tmp_path / "letters" / "mine").read_text() == "mine"


@contextmanager
def files_end_at(room_bytes: int) -> Iterator[None]:
    """Let no file grow beyond this, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("room_bytes", [0, 10_000, 200_000])
def test_a_full_disk_leaves_the_bundle_as_it_was(home: Path, site: Path, tmp_path: Path, room_bytes: int) -> None:
    folder = tmp_path / "cam"
    make(folder, site)
    before = contents(folder)
    with files_end_at(room_bytes), pytest.raises(FlashError, match="as it was"):
        make(folder, site, versions="vgg-light")
    assert contents(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["cam"]


@pytest.mark.parametrize("text", ["video0", "", "/a b", '/x"', "/x$(y)", "../x", "Pack"])
def test_a_camera_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(FlashError, match="--camera"):
        CameraChoice(text)
