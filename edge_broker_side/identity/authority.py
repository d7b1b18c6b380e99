"""A site's certificate authority: makes its own certificate, signs those of accounts, lists what is revoked."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_broker_side.errors import EdgeError

AUTHORITY_DAYS = 7300
EARLIEST = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
"""From when certificates hold. A board without a clock wakes up years in the past, and must be let in all the same;
an early begin gives nobody anything, since the key did not exist then."""
LIST_DAYS = 3650
"""A list of revoked certificates that has run out would lock everybody out; it is made anew at every change."""


class IdentityError(EdgeError):
    """A certificate, key or account cannot be used as asked."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, as PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:  # a key must not reach a log
        return "Pair(…)"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a certificate says."""

    name: str
    issuer: str
    serial: int
    expires: datetime.datetime
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Revocation:
    """One certificate that no longer holds."""

    serial: int
    at: datetime.datetime


class Authority:
    """A certificate authority in memory."""

    def __init__(self, pair: Pair) -> None:
        """Raises ``IdentityError`` for what is no certificate with its key."""
        self.pair = pair
        try:
            self._certificate = x509.load_pem_x509_certificate(pair.certificate)
            key = serialization.load_pem_private_key(pair.key, password=None)
        except ValueError as error:
            raise IdentityError(f"the authority's certificate or key cannot be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != self._certificate.public_key():
            raise IdentityError("the authority's key does not belong to its certificate")
        self._key = key

    @classmethod
    def create(cls, site: str, now: datetime.datetime) -> Authority:
        """Make the authority of a site."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"{site} authority")
        built = (
            _builder(name, name, key.public_key(), now + datetime.timedelta(days=AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(Pair(_pem(built), _private(key)))

    def sign(self, name: str, days: int, now: datetime.datetime, hosts: Sequence[str] = ()) -> Pair:
        """Make a key and a certificate for an account; with ``hosts`` (names or addresses), for a server at these."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        ends = min(now + datetime.timedelta(days=days), self._certificate.not_valid_after_utc)
        issuer = self._certificate.subject
        built = (
            _builder(_name(name), issuer, key.public_key(), ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if hosts:
            built = built.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        return Pair(_pem(built.sign(self._key, hashes.SHA256())), _private(key))

    def revoked(self, revocations: Iterable[Revocation], now: datetime.datetime) -> bytes:
        """Return the list of revoked certificates, as PEM."""
        built = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(now)
            .next_update(now + datetime.timedelta(days=LIST_DAYS))
        )
        for one in revocations:
            built = built.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(one.serial).revocation_date(one.at).build()
            )
        return built.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def facts(certificate: bytes) -> Facts:
    """Return what a certificate (PEM) says; raises ``IdentityError``."""
    try:
        read = x509.load_pem_x509_certificate(certificate)
    except ValueError as error:
        raise IdentityError(f"this is no certificate: {error}") from error
    try:
        names = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = tuple(str(entry.value) for entry in names)
    except x509.ExtensionNotFound:
        hosts = ()
    common = (_common(read.subject), _common(read.issuer))
    return Facts(*common, read.serial_number, read.not_valid_after_utc, hosts)


def _common(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, ends: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(EARLIEST)
        .not_valid_after(ends)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
