"""Verifies a bundle's signature with the system's OpenSSL, so that a board needs no further package."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from wire.bundle import BundleError

SIGNATURE_BYTES = 64
TIMEOUT_S = 30


def verify(key: Path, manifest: bytes, signature: bytes) -> None:
    """Raise ``BundleError`` unless the signature over ``manifest`` is one of the site's public key (PEM)."""
    if len(signature) != SIGNATURE_BYTES:
        raise BundleError("the bundle is not signed" if not signature else "the bundle's signature is damaged")
    if not key.is_file():
        raise BundleError(f"the site's public key {key} is not on this board: updates.key must name it")
    with tempfile.TemporaryDirectory(prefix="splitfleet-") as folder:
        said, signed = Path(folder) / "manifest", Path(folder) / "signature"
        said.write_bytes(manifest)
        signed.write_bytes(signature)
        command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", str(key), "-in", str(said)]
        try:
            done = subprocess.run(
                [*command, "-sigfile", str(signed)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
        except FileNotFoundError as error:
            raise BundleError(
                "openssl is not installed, so no signature can be verified: apt install openssl"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise BundleError(f"openssl gave no answer in {TIMEOUT_S} s") from error
    if done.returncode == 0:
        return
    if "Verification Failure" in done.stdout + done.stderr:
        raise BundleError("the signature is not that of this site's key: tampered with, or of another site")
    words = " ".join((done.stderr or done.stdout).split())[:200]
    raise BundleError(f"openssl cannot verify with {key} (OpenSSL 3 and an Ed25519 key are needed): {words}")
