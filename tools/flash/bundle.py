"""A board's bundle: one folder that holds all it needs. Made beside its place and moved there whole."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

import device_client
from device_client.settings import DeviceSettings
from edge_broker_side.identity.register import Account, Register, SiteRegister
from edge_broker_side.identity.signing import Signer, public_key_path
from tflite_models.catalog import sha256_of
from tools.flash.camera import CameraChoice, sample_pack
from tools.flash.errors import FlashError
from tools.flash.paths import MODELS, PROFILE, STATE, TLS
from tools.flash.targets import Target
from tools.flash.wheel import build_wheel
from tools.flash.wheelhouse import Wheelhouse, wheelhouse
from tools.prepared import Progress, prepare_versions
from wire.channels import Role
from wire.plan import NO_CODEC, OUTPUT, Plan
from wire.settings import settings_from

BOARD = Path(__file__).parent / "board"
SUMS = "SHA256SUMS"
MARK = "bundle.env"
STEPS = 5


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be flashed."""

    name: str
    target: Target
    python: str
    versions: tuple[str, ...]
    """The first one is the safe plan, whole."""
    camera: CameraChoice
    device_class: str = "unprofiled"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that is whole."""

    folder: Path
    order: Order
    site: str
    release: str
    """Of the client with its packages; another one means another folder on the board."""
    sizes: Mapping[str, int]
    """Bytes of every file by its path."""
    changed: tuple[str, ...]
    """Files that were not there before, or other ones."""
    fetched: bool
    """Whether wheels came over the network."""

    def size_of(self, *starts: str) -> int:
        """Return the bytes of all files whose path begins with one of these; of all where none is named."""
        return sum(size for path, size in self.sizes.items() if not starts or path.startswith(starts))


def make_bundle(order: Order, site: Path, out: Path, progress: Progress) -> Bundle:
    """Make ``out`` the bundle of a device of a site; made again from the same, it keeps every byte.

    Raises ``FlashError`` for a device the site does not know or has revoked, a folder with other things in it, a
    full disk, wheels that cannot be fetched; ``CatalogError`` for an unknown version. ``out`` is then what it was.
    """
    held = SiteRegister(site)
    register = held.read()
    account = _account(register, order.name, site)
    before = _kept(out, order.name)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as name:
            fresh = Path(name) / "bundle"
            fresh.mkdir(mode=0o700)
            release, wheels = _fill(fresh, order, held, register, account, progress)
            after = _sums(fresh)
            changed = tuple(sorted(path for path, sha256 in after.items() if before.get(path) != sha256))
            same = not changed and before.keys() == after.keys()
            if not same or (out / SUMS).read_bytes() != (fresh / SUMS).read_bytes():
                _exchange(out, fresh, Path(name) / "before")
    except OSError as error:
        where = error.filename or out
        raise FlashError(f"cannot write {where}: {error.strerror or error}; {out} is as it was") from error
    sizes = {path: (out / path).stat().st_size for path in [*after, SUMS]}
    return Bundle(out, order, register.site, release, sizes, changed, wheels.fetched)


def _exchange(out: Path, fresh: Path, aside: Path) -> None:
    """Put ``fresh`` into the place of ``out``; what was there goes aside, and back where that fails."""
    there = out.exists()
    if there:
        out.rename(aside)
    try:
        fresh.rename(out)
    except OSError:
        if there:
            aside.rename(out)
        raise


def _account(register: Register, name: str, site: Path) -> Account:
    account = register.accounts.get(name)
    if account is None:
        raise FlashError(
            f"{name} is no device of site {register.site} yet: splitfleet devices add {name} --folder {site}"
        )
    if account.role != Role.DEVICE:
        raise FlashError(f"{name} is a {account.role} of site {register.site}, no device")
    if account.revoked_s is not None:
        raise FlashError(f"{name} is revoked: splitfleet devices add {name} --folder {site} gives it a new certificate")
    return account


def _kept(out: Path, name: str) -> dict[str, str]:
    """Return path → SHA-256 of the bundle that is there; raises ``FlashError`` for a folder of anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return {}
    marked = out / MARK
    if not marked.is_file():
        raise FlashError(f"{out} holds other things than a bundle: choose an empty or a new folder")
    if f"NAME={name}\n" not in marked.read_text(encoding="utf-8"):
        raise FlashError(f"{out} holds the bundle of another device: choose a folder of its own for {name}")
    listed = {SUMS} | {line.split("  ", 1)[-1] for line in (out / SUMS).read_text(encoding="utf-8").splitlines()}
    found = _sums(out)
    foreign = sorted(found.keys() - listed)
    if foreign:
        raise FlashError(f"{out} holds files that flash did not make, such as {foreign[0]}: move them away first")
    return found


def _sums(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / SUMS)
    return {str(path.relative_to(folder)): sha256_of(path) for path in files}


def _fill(
    fresh: Path, order: Order, held: SiteRegister, register: Register, account: Account, progress: Progress
) -> tuple[str, Wheelhouse]:
    """Write everything into an empty folder; return the release and whose wheels it took."""
    progress("wheels", 0, STEPS)
    others = wheelhouse(order.target, order.python, camera=order.camera.is_v4l2)
    wheels = fresh / "wheels"
    wheels.mkdir()
    for name in others.sha256:
        shutil.copyfile(others.folder / name, wheels / name)
    progress("client", 1, STEPS)
    ours = build_wheel(wheels)
    (fresh / "requirements.txt").write_text(_requirements({**others.sha256, ours.name: sha256_of(ours)}))
    release = _release(fresh / "requirements.txt", order)
    progress("models", 2, STEPS)
    prepare_versions(fresh / "models", order.versions, progress=lambda *_: None, tails=False)
    progress("settings", 3, STEPS)
    _copy_identity(held, register, order.name, fresh / "tls")
    profile = held.folder / "data" / "profiles" / f"{order.device_class}.json"
    if profile.is_file():
        shutil.copyfile(profile, fresh / "profile.json")
    document = device_settings(order, register, account, profile=profile.is_file())
    settings_from(DeviceSettings, document, "device.toml")  # what the board would refuse is refused here
    (fresh / "device.toml").write_bytes(tomli_w.dumps(document).encode())
    if order.camera.text == "pack":
        (fresh / "frames.npz").write_bytes(sample_pack())
    progress("installer", 4, STEPS)
    for path in sorted(BOARD.glob("*.sh")) + sorted(BOARD.glob("*.service")):
        shutil.copyfile(path, fresh / path.name)
    (fresh / "user-data").write_text(_user_data(order.target))
    (fresh / MARK).write_text(_environment(order, release))
    (fresh / SUMS).write_text("".join(f"{sha256}  {path}\n" for path, sha256 in _sums(fresh).items()))
    progress("done", STEPS, STEPS)
    return release, others


def _copy_identity(held: SiteRegister, register: Register, name: str, folder: Path) -> None:
    """Copy who the board is, and by which keys it knows its site: the authority's and that of updates."""
    Signer.of_site(held.folder)  # made where there is none yet: what is flashed today is to take updates later
    files = {"bundles.pem": public_key_path(held.folder)}
    if register.secure:
        files |= {"ca.pem": held.ca, "certificate.pem": held.certificate(name), "key.pem": held.key(name)}
    folder.mkdir(mode=0o700)
    for target, source in files.items():
        if not source.is_file():
            raise FlashError(f"{source} is missing: splitfleet devices add {name} --folder {held.folder} makes it anew")
        path = folder / target
        path.touch(mode=0o600)  # before there is anything to read in it
        path.write_bytes(source.read_bytes())


def device_settings(order: Order, register: Register, account: Account, *, profile: bool) -> dict[str, Any]:
    """Return the board's device.toml."""
    link: dict[str, Any] = {"host": register.hosts[0], "port": register.port}
    if register.secure:
        link["tls"] = {"ca": f"{TLS}/ca.pem", "certificate": f"{TLS}/certificate.pem", "key": f"{TLS}/key.pem"}
    document: dict[str, Any] = {
        "site": register.site,
        "name": order.name,
        "models": MODELS,
        "state": STATE,
        "device_class": order.device_class,
        "safe_plan": str(Plan(order.versions[0], OUTPUT, NO_CODEC)),
        "tags": list(account.tags),
        "camera": order.camera.settings(),
        "updates": {"key": f"{TLS}/bundles.pem"},
        "link": link,
    }
    return {**document, "profile": PROFILE} if profile else document


def _requirements(sha256: Mapping[str, str]) -> str:
    """Return what pip installs on the board, each file by its hash; pip itself stays in its wheel."""
    lines = []
    for file in sorted(sha256):
        name, version, *_ = file.split("-")
        if name != "pip":
            lines.append(f"{name}=={version} --hash=sha256:{sha256[file]}\n")
    return "".join(lines)


def _release(requirements: Path, order: Order) -> str:
    made_of = f"{order.python} {sorted(order.target.from_debian)}\n".encode() + requirements.read_bytes()
    return f"{device_client.__version__}-{hashlib.sha256(made_of).hexdigest()[:12]}"


def _environment(order: Order, release: str) -> str:
    """Return what install.sh has to know, as a shell reads it."""
    debian = " ".join(order.target.from_debian.values())
    return (
        f"NAME={order.name}\nTARGET={order.target.name}\nPYTHON={order.python}\nRELEASE={release}\n"
        f'DEBIAN="{debian}"\nPICTURES="{order.camera.pictures}"\n'
    )


def _user_data(target: Target) -> str:
    """Return cloud-init's user data, for images that have it; Debian's packages need a network at the first boot."""
    lines = ["#cloud-config", "# The bundle lies as folder 'splitfleet' on the boot partition."]
    if target.from_debian:
        lines += ["packages:", *(f"  - {package}" for package in target.from_debian.values())]
    lines += ["runcmd:", '  - ["sh", "/boot/firmware/splitfleet/first-boot.sh"]']
    return "\n".join(lines) + "\n"
