"""The register of a site: a folder with its authority, everybody's certificate, whom it revoked, and the ACL."""

from __future__ import annotations

import datetime
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import tomli_w

from edge_broker_side.identity.authority import Authority, IdentityError, Pair, Revocation, facts
from wire.acl import acl_file
from wire.channels import Role, check_name
from wire.settings import load_settings

ACCOUNT_DAYS = 825
SERVER = "broker"
"""The account of the broker itself: a certificate for its hosts, no role."""


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who may connect."""

    role: str
    serial: str = ""
    """Of its certificate, in digits: it has more bits than an integer of TOML. Empty at a plain site."""
    expires_s: int = 0
    """Unix seconds, as all times here."""
    revoked_s: int | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replaced:
    """A certificate that no longer holds because its account has a newer one."""

    serial: str
    at_s: int


@dataclass(frozen=True, slots=True)
class Register:
    """Who belongs to a site, as the register's file holds it."""

    site: str
    hosts: tuple[str, ...]
    """Names and addresses by which the broker is reached, the usual one first."""
    port: int
    secure: bool = True
    """False: a plain site, without certificates, where everybody may do everything."""
    accounts: Mapping[str, Account] = field(default_factory=dict)
    replaced: tuple[Replaced, ...] = ()


class SiteRegister:
    """The folder. A change holds a lock, and replaces each file as a whole: a power cut leaves the old or the new."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "authority" / "ca.pem"
        """The authority's certificate: what everybody gets."""
        self.revoked = folder / "authority" / "revoked.pem"
        """The list of revoked certificates, for the broker."""
        self.acl = folder / "acl"
        """The broker's ACL file."""
        self._authority_key = folder / "authority" / "ca.key"
        self._file = folder / "register.toml"

    def certificate(self, account: str) -> Path:
        """Return the path of an account's certificate."""
        return self.folder / "accounts" / account / "certificate.pem"

    def key(self, account: str) -> Path:
        """Return the path of an account's private key."""
        return self.folder / "accounts" / account / "key.pem"

    def read(self) -> Register:
        """Return who belongs to the site; raises ``IdentityError`` where there is none, ``SettingsError``."""
        if not self._file.is_file():
            raise IdentityError(f"no site in {self.folder}: make one with splitfleet site init NAME --host ADDRESS")
        return load_settings(Register, self._file)

    def create(
        self, site: str, hosts: Sequence[str], port: int, now: datetime.datetime, *, secure: bool = True
    ) -> Register:
        """Make the site's authority and the broker's certificate; raises ``IdentityError`` where a site is already.

        A site that is not ``secure`` has neither.
        """
        check_name(site, "site")
        with self._locked():
            if self._file.exists():
                raise IdentityError(f"{self.folder} holds a site already: see splitfleet site status")
            register = Register(site, tuple(hosts), port, secure)
            if not secure:
                _replace(self._file, _toml(register))
                return register
            authority = Authority.create(site, now)
            _replace(self._authority_key, authority.pair.key, 0o600)
            _replace(self.ca, authority.pair.certificate)
            self._sign(authority, SERVER, now, register.hosts)
            self._write(register, authority, now)
            return register

    def add(self, name: str, role: Role, now: datetime.datetime, tags: Sequence[str] = ()) -> Account:
        """Give an account a certificate, or a new one: the one before is then revoked.

        Raises ``TopicError`` for a name that cannot be, ``IdentityError`` for one that is somebody else's.
        """
        check_name(name, "account")
        if name == SERVER:
            raise IdentityError(f"'{SERVER}' is the broker's own account: choose another name")
        with self._locked():
            register = self.read()
            held = register.accounts.get(name)
            if held is not None and held.role != role:
                raise IdentityError(f"{name} is a {held.role} of this site already: choose another name")
            kept = tuple(tags) or (held.tags if held else ())
            if not register.secure:
                account = Account(str(role), tags=kept)
                _replace(self._file, _toml(replace(register, accounts={**register.accounts, name: account})))
                return account
            authority, replaced = self._authority(register), register.replaced
            if held is not None:
                replaced += (Replaced(held.serial, held.revoked_s or int(now.timestamp())),)
            told = facts(self._sign(authority, name, now).certificate)
            account = Account(str(role), str(told.serial), int(told.expires.timestamp()), None, kept)
            accounts = {**register.accounts, name: account}
            self._write(replace(register, accounts=accounts, replaced=replaced), authority, now)
            return account

    def revoke(self, name: str, now: datetime.datetime) -> Account:
        """Take an account's rights: its certificate is listed as revoked, its lines in the ACL and its key are gone."""
        with self._locked():
            register = self.read()
            authority = self._authority(register)
            held = register.accounts.get(name)
            if held is None:
                known = ", ".join(sorted(register.accounts)) or "nobody"
                raise IdentityError(f"there is no account {name}; there are {known}")
            account = replace(held, revoked_s=held.revoked_s or int(now.timestamp()))
            self._write(replace(register, accounts={**register.accounts, name: account}), authority, now)
            self.key(name).unlink(missing_ok=True)
            return account

    def renew_server(self, now: datetime.datetime, hosts: Sequence[str] = ()) -> Register:
        """Give the broker a new certificate, for other ``hosts`` where they are told."""
        with self._locked():
            register = self.read()
            authority = self._authority(register)
            register = replace(register, hosts=tuple(hosts) or register.hosts)
            self._sign(authority, SERVER, now, register.hosts)
            self._write(register, authority, now)
            return register

    @property
    def up_to_date(self) -> bool:
        """Whether the ACL says what today's channel table says."""
        register = self.read()
        return not register.secure or (self.acl.is_file() and self.acl.read_bytes() == _acl(register))

    def refresh(self) -> bool:
        """Bring the ACL up to date with the channel table, which grows with releases; return whether it was not."""
        if self.up_to_date:
            return False
        with self._locked():
            _replace(self.acl, _acl(self.read()))
        return True

    # -- inside ----------------------------------------------------------------------------------------------------

    def _authority(self, register: Register) -> Authority:
        if not register.secure:
            raise IdentityError("a plain site has no certificates, so nobody can be shut out: make one without --plain")
        try:
            return Authority(Pair(self.ca.read_bytes(), self._authority_key.read_bytes()))
        except OSError as error:
            raise IdentityError(f"the site's authority cannot be read: {error.filename}: {error.strerror}") from error

    def _sign(self, authority: Authority, name: str, now: datetime.datetime, hosts: Sequence[str] = ()) -> Pair:
        pair = authority.sign(name, ACCOUNT_DAYS, now, hosts)
        _replace(self.key(name), pair.key, 0o600)
        _replace(self.certificate(name), pair.certificate)
        return pair

    def _write(self, register: Register, authority: Authority, now: datetime.datetime) -> None:
        """Write what follows from the register first, the register itself last: it is what the next change reads."""
        gone = [Revocation(int(one.serial), _utc(one.at_s)) for one in register.replaced]
        for account in register.accounts.values():
            if account.revoked_s is not None:
                gone.append(Revocation(int(account.serial), _utc(account.revoked_s)))
        _replace(self.revoked, authority.revoked(gone, now))
        _replace(self.acl, _acl(register))
        _replace(self._file, _toml(register))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _replace(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Put a whole file in place, never readable by more than ``mode`` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _acl(register: Register) -> bytes:
    live = {name: Role(account.role) for name, account in register.accounts.items() if account.revoked_s is None}
    return acl_file(register.site, live).encode()


def _toml(register: Register) -> bytes:
    return tomli_w.dumps(_without_none(asdict(register))).encode()


def _without_none(value: Any) -> Any:
    """TOML has no null: what is not known is left out."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list | tuple) else value


def _utc(at_s: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at_s, datetime.UTC)
