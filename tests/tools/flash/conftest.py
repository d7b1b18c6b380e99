"""A site with a device, and a folder of small wheels that stands in for the package index: pip itself is real."""

from __future__ import annotations

import datetime
import hashlib
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_broker_side.identity.register import SiteRegister
from tools.flash.bundle import Bundle, Order, make_bundle
from tools.flash.camera import CameraChoice
from tools.flash.targets import PIP, target_named
from tools.flash.wheelhouse import CONSTRAINTS
from wire.channels import Role

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
PURE = {"pip", "paho-mqtt", "dacite", "linuxpy"}
TAGS = {
    "tflite-runtime": "cp311-cp311-manylinux_2_34_{0}",
    "numpy": "cp311-cp311-manylinux_2_17_{0}.manylinux2014_{0}",
    "msgpack": "cp311-cp311-manylinux_2_28_{0}",
    "pillow": "cp311-cp311-manylinux_2_27_{0}.manylinux_2_28_{0}",
}
"""As the real ones are tagged."""


def pinned(name: str) -> str:
    """Return the version of a package that constraints.txt tells."""
    found = re.search(rf"(?m)^{name}==(.+)$", f"{PIP}\n{CONSTRAINTS.read_text(encoding='utf-8')}", re.IGNORECASE)
    assert found, name
    return found[1]


def write_wheel(folder: Path, name: str, tag: str, *requires: str) -> None:
    """Write an empty wheel."""
    stem = f"{name.replace('-', '_')}-{pinned(name)}"
    needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
    with zipfile.ZipFile(folder / f"{stem}-{tag}.whl", "w") as wheel:
        wheel.writestr(
            f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {pinned(name)}\n{needs}"
        )
        wheel.writestr(f"{stem}.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{stem}.dist-info/RECORD", "")


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All wheels there are in this test's world; armv7l has what it has in ours."""
    folder = tmp_path_factory.mktemp("index")
    for name in PURE:
        write_wheel(folder, name, "py3-none-any")
    for processor in ("x86_64", "aarch64", "armv7l"):
        for name, tag in TAGS.items():
            if processor != "armv7l" or name == "tflite-runtime":
                needs = ["numpy>=1.23"] if name == "tflite-runtime" else []
                write_wheel(folder, name, tag.format(processor), *needs)
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pip finds nothing anywhere."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Home of this test's world, shared so that each wheelhouse is fetched once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def home(cache: Path, index: Path, offline: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use that home and that index."""
    monkeypatch.setenv("SPLITFLEET_HOME", str(cache))
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return cache


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with device cam-01, a revoked cam-02 and a worker."""
    folder = tmp_path_factory.mktemp("site")
    held = SiteRegister(folder)
    held.create("plant-1", ["edge.example", "10.0.0.7"], 8883, NOW)
    held.add("cam-01", Role.DEVICE, NOW, ["line-3"])
    held.add("cam-02", Role.DEVICE, NOW)
    held.revoke("cam-02", NOW)
    held.add("edge-1", Role.WORKER, NOW)
    return folder


def order(name: str = "cam-01", *, target: str = "pi64", camera: str = "pack", versions: str = "resnet-light") -> Order:
    """Return an order."""
    return Order(name, target_named(target), "3.11", tuple(versions.split()), CameraChoice(camera))


def make(folder: Path, site: Path, **what: str) -> Bundle:
    """Make a bundle."""
    return make_bundle(order(**what), site, folder, lambda *_: None)


def contents(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="session")
def _kept() -> Iterator[dict[str, Bundle]]:
    yield {}


@pytest.fixture
def bundle(home: Path, site: Path, _kept: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle for x86, made once: look at it, change nothing."""
    if "x86" not in _kept:
        _kept["x86"] = make(tmp_path_factory.mktemp("bundle") / "cam-01", site, target="x86")
    return _kept["x86"]
