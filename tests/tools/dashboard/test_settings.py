"""Where the dashboard listens, and what it refuses to do without a password."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.dashboard.settings import DashboardError, DashboardSettings, is_loopback, read_password
from wire.settings import SettingsError, load_settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1", "[::1]"])
def test_loopback_needs_no_password(host: str) -> None:
    assert is_loopback(host) and DashboardSettings(host=host).password_file is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "edge.plant-1.example", ""])
def test_what_others_can_reach_needs_one(host: str) -> None:
    with pytest.raises(DashboardError, match="name a file with a password"):
        DashboardSettings(host=host)
    assert DashboardSettings(host=host, password_file="p").host == host


def test_passwords_that_protect_nothing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "password"
    for text in ("", "   \n", "1234567"):
        path.write_text(text)
        with pytest.raises(DashboardError, match="use 8 or more"):
            read_password(str(path))
    path.write_text("correct horse \n")
    assert read_password(str(path)) == "correct horse"
    path.write_bytes(b"\xff\xfe\xfd\xff\xff\xff\xff\xff\xff")
    with pytest.raises(DashboardError, match="it is no text"):
        read_password(str(path))
    with pytest.raises(DashboardError, match="No such file"):
        read_password(str(tmp_path / "absent"))


def test_the_settings_file_of_the_documents_loads(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "dashboard.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```\n(site = .*?)^```", page, re.MULTILINE | re.DOTALL)
    path = tmp_path / "dashboard.toml"
    path.write_text(shown)
    chosen = load_settings(DashboardSettings, path)
    assert chosen.tls is not None and chosen.link.tls is not None and chosen.password_file is not None


def test_a_settings_file_may_say_it_all(tmp_path: Path) -> None:
    path = tmp_path / "dashboard.toml"
    path.write_text(
        'site = "plant-1"\nhost = "0.0.0.0"\nport = 8443\npassword_file = "pw"\n'
        '[link]\nhost = "edge"\nusername = "viewer"\n[tls]\ncertificate = "c.pem"\nkey = "k.pem"\n'
    )
    chosen = load_settings(DashboardSettings, path)
    assert (chosen.site, chosen.host, chosen.port, chosen.link.username) == ("plant-1", "0.0.0.0", 8443, "viewer")
    assert chosen.tls is not None and chosen.tls.key == "k.pem"
    path.write_text('host = "0.0.0.0"\n')
    with pytest.raises(SettingsError, match="password"):
        load_settings(DashboardSettings, path)
