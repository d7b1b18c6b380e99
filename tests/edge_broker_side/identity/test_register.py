"""The register: who belongs to a site, and what is on disk."""

from __future__ import annotations

import datetime
import stat
import subprocess
from pathlib import Path

import pytest

from edge_broker_side.identity.authority import Authority, IdentityError, Pair, facts
from edge_broker_side.identity.register import SERVER, SiteRegister
from wire.channels import Role
from wire.errors import TopicError

NOW = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)


@pytest.fixture
def register(tmp_path: Path) -> SiteRegister:
    made = SiteRegister(tmp_path / "site")
    made.create("plant", ["edge.example", "10.0.0.7"], 8883, NOW)
    return made


def verified(register: SiteRegister, certificate: Path, *options: str) -> bool:
    command = ["openssl", "verify", "-CAfile", str(register.ca), *options, str(certificate)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_openssl_agrees_with_every_certificate(register: SiteRegister) -> None:
    register.add("cam-01", Role.DEVICE, NOW)
    strict = ("-x509_strict", "-crl_check", "-CRLfile", str(register.revoked))
    assert verified(
        register, register.certificate(SERVER), *strict, "-purpose", "sslserver", "-verify_hostname", "edge.example"
    )
    assert verified(register, register.certificate(SERVER), *strict, "-verify_ip", "10.0.0.7")
    assert not verified(register, register.certificate(SERVER), *strict, "-verify_hostname", "elsewhere.example")
    assert verified(register, register.certificate("cam-01"), *strict, "-purpose", "sslclient")
    assert not verified(register, register.certificate("cam-01"), *strict, "-purpose", "sslserver")
    register.revoke("cam-01", NOW)
    assert not verified(register, register.certificate("cam-01"), *strict)


def test_a_board_without_a_clock_finds_them_valid_a_clock_far_ahead_does_not(register: SiteRegister) -> None:
    in_2001 = ("-attime", str(int(datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC).timestamp())))
    in_2050 = ("-attime", str(int(datetime.datetime(2050, 1, 1, tzinfo=datetime.UTC).timestamp())))
    assert verified(register, register.certificate(SERVER), *in_2001)
    assert not verified(register, register.certificate(SERVER), *in_2050)


def test_private_keys_are_for_their_owner_alone(register: SiteRegister) -> None:
    register.add("cam-01", Role.DEVICE, NOW)
    keys = [path for path in register.folder.rglob("*key*") if path.is_file()]
    assert len(keys) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    assert all(b"PRIVATE KEY" not in path.read_bytes() for path in register.folder.rglob("*.pem") if path not in keys)


def test_a_key_is_in_no_repr(register: SiteRegister) -> None:
    pair = Authority.create("plant", NOW).pair
    assert "PRIVATE" not in repr(pair) and "PRIVATE" not in f"{pair}"


def test_the_acl_has_everybody_who_is_not_revoked(register: SiteRegister) -> None:
    register.add("cam-01", Role.DEVICE, NOW, tags=("line-3",))
    register.add("viewer", Role.SUBSCRIBER, NOW)
    assert "user cam-01" in register.acl.read_text() and "user viewer" in register.acl.read_text()
    register.revoke("cam-01", NOW)
    assert "user cam-01" not in register.acl.read_text() and "user viewer" in register.acl.read_text()
    assert not register.key("cam-01").exists()
    assert register.read().accounts["cam-01"].revoked_s == int(NOW.timestamp())
    again = register.add("cam-01", Role.DEVICE, NOW)
    assert again.revoked_s is None and again.tags == ("line-3",)
    assert "user cam-01" in register.acl.read_text()


def test_what_cannot_be_is_refused_and_changes_nothing(register: SiteRegister) -> None:
    register.add("cam-01", Role.DEVICE, NOW)
    before = register.read()
    for refused in (
        lambda: register.create("plant", ["x"], 1, NOW),
        lambda: register.add("cam-01", Role.POLICY, NOW),
        lambda: register.add(SERVER, Role.DEVICE, NOW),
        lambda: register.revoke("nobody", NOW),
    ):
        with pytest.raises(IdentityError):
            refused()
    with pytest.raises(TopicError):
        register.add("../../etc/passwd", Role.DEVICE, NOW)
    assert register.read() == before
    with pytest.raises(IdentityError, match="site init"):
        SiteRegister(register.folder / "nowhere").read()


def test_a_key_of_somebody_else_makes_no_authority() -> None:
    one, other = (Authority.create("plant", NOW).pair for _ in range(2))
    with pytest.raises(IdentityError, match="does not belong"):
        Authority(Pair(one.certificate, other.key))
    with pytest.raises(IdentityError, match="no certificate"):
        facts(b"nonsense")
