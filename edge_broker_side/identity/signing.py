"""The key that a site signs its bundles with; boards hold the public half and take nothing else."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge_broker_side.identity.authority import IdentityError


def private_key_path(site: Path) -> Path:
    """Return where a site keeps the key: beside that of its authority, readable by its owner alone."""
    return site / "authority" / "bundles.key"


def public_key_path(site: Path) -> Path:
    """Return the half that every board of the site gets."""
    return site / "authority" / "bundles.pem"


class Signer:
    """The private key in memory."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def __repr__(self) -> str:  # a key must not reach a log
        return "Signer(…)"

    @classmethod
    def of_site(cls, site: Path) -> Signer:
        """Read the site's key, or make it where there is none yet; raises ``IdentityError`` or ``OSError``."""
        path = private_key_path(site)
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except FileNotFoundError:
            key = Ed25519PrivateKey.generate()
            _write_new(path, key)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise IdentityError(f"{path} is no private key: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise IdentityError(f"{path} is no Ed25519 key")
        signer = cls(key)
        public_key_path(site).write_bytes(signer.public_pem())
        return signer

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of the signature."""
        return self._key.sign(data)

    def public_pem(self) -> bytes:
        """Return the public half as PEM."""
        public = self._key.public_key()
        return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def is_signed(public_pem: bytes, data: bytes, signature: bytes) -> bool:
    """Whether a signature is one of that key; raises ``IdentityError`` for what is no key."""
    try:
        key = serialization.load_pem_public_key(public_pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise IdentityError(f"this is no public key: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise IdentityError("this is no Ed25519 key")
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _write_new(path: Path, key: Ed25519PrivateKey) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
