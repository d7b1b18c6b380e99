"""What a board holds of updates: versions that are kept, one that is on trial, one that is coming in.

``state.json`` alone says which folders count. It is replaced as a whole, so that at every moment, however the power
goes, each version has exactly one folder that serves: the one kept, the one on trial, or the one that was flashed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import dacite

from device_client.errors import DeviceError
from device_client.settings import DeviceSettings
from device_client.updates.files import Files
from tflite_models.catalog import MANIFEST as VERSION_FILE
from tflite_models.catalog import Catalog, ModelsError, load_catalog, load_folder, sha256_of
from wire.bundle import BundleError, Manifest, manifest_bytes, read_manifest
from wire.messages import UpdateStage

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
STARTS = 2
"""How often the client may start anew during a trial: once is a power cut, again and again is the version's fault."""
TESTS = 2
"""How often a self-test begins that the client does not outlive: once is a power cut, twice is the bundle's fault."""
SPARE_BYTES = 8 * 1024 * 1024
"""Left free on the disk: the ledger lives there too."""


class DiskFull(BundleError):
    """There is no room for a bundle."""


@dataclass(frozen=True, slots=True)
class OnTrial:
    """What serves but may have to go again."""

    slot: str
    bundle: str
    rev: int
    frames: int
    starts_left: int = STARTS


@dataclass(frozen=True, slots=True)
class InTest:
    """What is in its self-test, which may take the client or the whole board down with it."""

    rev: int
    bundle: str
    begun: int = 1
    """How often the self-test was begun: each time but the last, the client started anew during it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How the last attempt ended, so that it is not begun again."""

    rev: int
    bundle: str
    stage: UpdateStage
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """``state.json``."""

    kept: Mapping[str, str] = field(default_factory=dict)
    """Bundle by slot: a version, ``@settings`` or ``@client``."""
    trial: OnTrial | None = None
    ended: Ended | None = None
    testing: InTest | None = None


class Shelf:
    """The folder ``updates`` of the client's state, with a folder per bundle. For one thread at a time."""

    def __init__(self, folder: Path, shipped: Path, files: Files | None = None) -> None:
        """Open it; a state that cannot be read counts as none, and is told in the log. Raises ``DeviceError``."""
        self._folder = folder
        self._bundles = folder / "bundles"
        self._state = folder / "state.json"
        self._shipped = shipped
        self._files = files or Files()
        try:
            self._files.make_folder(self._bundles)
        except OSError as error:
            raise DeviceError(f"cannot use {folder}: {error.strerror}: check the setting 'state'") from error
        self.held = self._read()

    # -- what serves -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take stock at a start of the client: a trial has one start less, or is over; what is damaged counts no more.

        A self-test that took the client down again is over too, or the board would start anew for ever.

        Raises ``OSError`` where that cannot be written down.
        """
        trial = self.held.trial
        if trial is not None:
            problem = self._damage(trial.bundle)
            if problem is None and trial.starts_left <= 0:
                problem = f"the client started anew {STARTS + 1} times during the trial"
            if problem is None:
                self._write(replace(self.held, trial=replace(trial, starts_left=trial.starts_left - 1)))
            else:
                self.end(trial.rev, trial.bundle, UpdateStage.ROLLED_BACK, problem)
        sound = {}
        for slot, bundle in self.held.kept.items():
            problem = self._damage(bundle)
            if problem is None:
                sound[slot] = bundle
            else:
                log.error(
                    "the update %s is damaged, so what was flashed serves until it comes anew: %s", bundle, problem
                )
        if sound != self.held.kept:
            self._write(Held(sound, self.held.trial, testing=self.held.testing))
        testing = self.held.testing
        if testing is not None and testing.begun >= TESTS:
            self.end(testing.rev, testing.bundle, UpdateStage.FAILED, "the board started anew during the self-test")

    def _damage(self, bundle: str) -> str | None:
        folder = self._bundles / bundle
        try:
            manifest = read_manifest((folder / MANIFEST).read_bytes())
            bad = [file.path for file in manifest.files if sha256_of(folder / file.path) != file.sha256]
        except (OSError, BundleError) as error:
            return str(error)
        return f"{', '.join(bad)} differ from the manifest (sha256)" if bad else None

    def in_use(self, slot: str) -> Path | None:
        """Return the folder of the bundle that serves in a slot, if an update brought one."""
        bundle = self._in_use().get(slot)
        return None if bundle is None else self._bundles / bundle

    def catalog(self) -> Catalog:
        """Return the versions that count now: those flashed, and in their place what updates brought.

        Raises ``CatalogError`` where there is none, or one cannot be read.
        """
        in_use = self._in_use().items()
        brought = {slot: load_folder(self._bundles / bundle) for slot, bundle in in_use if not slot.startswith("@")}
        if brought and not any(self._shipped.glob(f"*/{VERSION_FILE}")):
            return Catalog(brought)
        return Catalog(dict(sorted({**load_catalog(self._shipped).folders, **brought}.items())))

    def _in_use(self) -> dict[str, str]:
        trial = self.held.trial
        return {**self.held.kept, **({trial.slot: trial.bundle} if trial else {})}

    # -- what comes in ---------------------------------------------------------------------------------------------

    def receive(self, manifest: Manifest) -> int:
        """Make room for a bundle, drop what does not count, and return how many bytes are here from before.

        Raises ``DiskFull``, or ``OSError``.
        """
        self.tidy(manifest.bundle)
        here = self.offset(manifest)
        free, needed = self._files.free_bytes(self._folder), manifest.size - here + SPARE_BYTES
        if free < needed:
            raise DiskFull(f"{needed >> 20} MiB are needed and {free >> 20} MiB free on {self._folder}: make room")
        said = self._bundles / manifest.bundle / MANIFEST
        if not said.is_file():
            self._files.make_folder(said.parent)
            self._files.replace(said, manifest_bytes(manifest))
        return here

    def offset(self, manifest: Manifest) -> int:
        """Return where in the bundle's bytes to go on."""
        done = 0
        for file in manifest.files:
            path = self._bundles / manifest.bundle / file.path
            size = path.stat().st_size if path.is_file() else 0
            if size < file.size:
                return done + size
            done += file.size
        return done

    def store(self, manifest: Manifest, offset: int, data: bytes) -> None:
        """Write bytes that begin where the last ended; raises ``OSError``."""
        end = 0
        for file in manifest.files:
            start, end = end, end + file.size
            if start <= offset < end and data:
                part, data = data[: end - offset], data[end - offset :]
                self._files.write(self._bundles / manifest.bundle / file.path, offset - start, part)
                offset += len(part)

    def damaged(self, manifest: Manifest) -> str | None:
        """Return the first file whose bytes are not those of the manifest; it is removed, to be fetched again."""
        folder = self._bundles / manifest.bundle
        for file in manifest.files:
            path = folder / file.path
            if path.stat().st_size != file.size or sha256_of(path) != file.sha256:
                self._files.remove(path)
                return file.path
        return None

    def folder(self, manifest: Manifest) -> Path:
        """Return the folder of a whole bundle; raises ``BundleError`` where it holds another version than it says."""
        folder = self._bundles / manifest.bundle
        if manifest.restarts:
            return folder
        try:
            found = load_folder(folder, check_hash=True)
        except ModelsError as error:
            raise BundleError(str(error)) from error
        told = (found.version.name, found.version.sha256)
        if told != (manifest.name, manifest.sha256):
            raise BundleError(f"the bundle is of {manifest.name}, and holds {told[0]} with sha256 {told[1][:12]}…")
        return folder

    def test(self, manifest: Manifest, rev: int) -> None:
        """Note that a self-test begins; raises ``OSError``."""
        there = self.held.testing
        same = there is not None and (there.rev, there.bundle) == (rev, manifest.bundle)
        begun = there.begun + 1 if there is not None and same else 1
        self._write(replace(self.held, testing=InTest(rev, manifest.bundle, begun)))

    # -- the switch ------------------------------------------------------------------------------------------------

    def try_out(self, manifest: Manifest, rev: int, frames: int) -> None:
        """Let a whole bundle serve for now."""
        self._files.sync_folder(self._bundles / manifest.bundle)
        starts = STARTS + manifest.restarts  # the one that brings it into the client is meant to be
        trial = OnTrial(manifest.slot, manifest.bundle, rev, frames, starts)
        self._write(replace(self.held, trial=trial, testing=None))

    def keep(self) -> None:
        """Keep what is on trial; what was kept before goes."""
        trial = self.held.trial
        assert trial is not None
        ended = Ended(trial.rev, trial.bundle, UpdateStage.ACTIVE)
        self._write(Held({**self.held.kept, trial.slot: trial.bundle}, None, ended))
        self.tidy()

    def end(self, rev: int, bundle: str, stage: UpdateStage, reason: str = "") -> None:
        """Remember how an attempt ended and remove what is left of it; whatever was on trial no longer serves.

        On a full disk the folder goes first: at the next start its lack tells the same as the note would have.
        """
        held = replace(self.held, trial=None, ended=Ended(rev, bundle, stage, reason), testing=None)
        try:
            self._write(held)
        except OSError as error:
            log.error("cannot note that %s is %s: %s", bundle, stage, error)
            self.held = held
        self.tidy()

    def tidy(self, wanted: str = "") -> None:
        """Remove the folders of bundles that do not count, such as a power cut leaves behind."""
        counting = {*self._in_use().values(), wanted}
        for folder in self._bundles.iterdir():
            if folder.name not in counting:
                self._files.remove(folder)

    def _write(self, held: Held) -> None:
        self._files.replace(self._state, json.dumps(asdict(held)).encode())
        self.held = held

    def _read(self) -> Held:
        try:
            raw: Any = json.loads(self._state.read_bytes())
            return dacite.from_dict(Held, raw, dacite.Config(cast=[UpdateStage]))
        except FileNotFoundError:
            return Held()
        except (OSError, ValueError, TypeError, dacite.DaciteError) as error:
            log.error("%s cannot be read, so the flashed versions serve: %s", self._state, error)
            return Held()


def stocked(settings: DeviceSettings) -> Shelf:
    """Return the shelf of a board, taken stock of for this start; raises ``DeviceError``."""
    shelf = Shelf(settings.state / "updates", settings.models)
    try:
        shelf.begin()
    except OSError as error:
        raise DeviceError(f"cannot write below {settings.state}: {error.strerror}: make room there") from error
    return shelf
