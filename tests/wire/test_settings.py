"""Settings files: what is wrong is refused with the key, the value and what is allowed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from wire.errors import WireError
from wire.link import LinkSettings, TlsSettings
from wire.settings import SettingsError, load_settings


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera of the example."""

    kind: Literal["folder", "v4l2"] = "folder"
    fps: float = 10.0


@dataclass(frozen=True, slots=True)
class Example:
    """Settings as a process has them."""

    site: str
    link: LinkSettings = field(default_factory=LinkSettings)
    camera: Camera = field(default_factory=Camera)
    folder: Path = Path()
    versions: tuple[str, ...] = ()
    threads: int = 1
    quiet: bool = False


def load(tmp_path: Path, text: str) -> Example:
    file = tmp_path / "device.toml"
    file.write_text(text, encoding="utf-8")
    return load_settings(Example, file)


def test_a_full_file_is_read(tmp_path: Path) -> None:
    text = """
        site = "plant"
        folder = "models"
        versions = ["light", "heavy"]
        [link]
        port = 8883
        backoff_max_s = 5
        [link.tls]
        ca = "ca.pem"
        [camera]
        kind = "v4l2"
        fps = 2.5
    """
    assert load(tmp_path, text) == Example(
        site="plant",
        folder=Path("models"),
        versions=("light", "heavy"),
        link=LinkSettings(port=8883, backoff_max_s=5.0, tls=TlsSettings(ca="ca.pem")),
        camera=Camera("v4l2", 2.5),
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "site is missing"),
        ('site = "a"\nsiet = "b"', "unknown setting siet = 'b'; allowed are site, link, camera, folder, versions"),
        ('site = "a"\n[link]\nprot = 1', "unknown setting link.prot = 1; allowed are host, port, keepalive_s"),
        ('site = "a"\n[link.tls]\nca = "x"\ncert = "y"', "unknown setting link.tls.cert = 'y'; allowed are ca, cert"),
        ("site = 5", "site = 5 is not text"),
        ('site = "a"\nthreads = "two"', "threads = 'two' is not a whole number"),
        ('site = "a"\nthreads = 1.5', "threads = 1.5 is not a whole number"),
        ('site = "a"\nthreads = true', "threads = True is not a whole number"),
        ('site = "a"\nquiet = 1', "quiet = 1 is not true or false"),
        ('site = "a"\n[camera]\nfps = "fast"', "camera.fps = 'fast' is not a number"),
        ('site = "a"\n[camera]\nfps = true', "camera.fps = True is not a number"),
        ('site = "a"\n[camera]\nkind = "usb"', "camera.kind = 'usb' is not one of 'folder', 'v4l2'"),
        ('site = "a"\nversions = "light"', "versions = 'light' is not a list of text"),
        ('site = "a"\nversions = [1]', "is not a list of text"),
        ('site = "a"\nlink = 5', "link = 5 is not"),
        ('site = "a"\n[link]\nport = 70000', "port is 70000, allowed is 1 to 65535"),
        ('site = "a"\n[link]\nbackoff_min_s = 0', "backoff_min_s must be above 0 and at most backoff_max_s"),
        ('site = "a', "is not TOML"),
        ("[link]\n[link]", "is not TOML"),
    ],
)
def test_a_refusal_names_key_value_and_what_is_allowed(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    assert problem in str(caught.value)
    assert "device.toml" in str(caught.value)
    assert isinstance(caught.value, WireError)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*absent\.toml: No such file"):
        load_settings(Example, tmp_path / "absent.toml")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "device.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="is not TOML"):
        load_settings(Example, file)
