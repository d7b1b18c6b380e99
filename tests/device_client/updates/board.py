"""A board as its updater sees it, without broker or threads: a server that answers, and a disk that fails."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path

from device_client.settings import UpdateSettings
from device_client.updates.files import Files
from device_client.updates.selftest import check
from device_client.updates.shelf import Shelf
from device_client.updates.signature import verify
from device_client.updates.trial import Board
from device_client.updates.updater import UNDER_WAY, Effect, Restart, SelfTest, Switch, Updater
from tests.device_client.updates.bundles import Made
from tflite_models.catalog import Catalog, ModelsError, load_folder, sha256_of
from wire.bundle import VERSION
from wire.messages import Chunk, Fetch, Update, UpdateStage, UpdateState

X86 = Board("x86_64", "tflite-runtime 2.14.0")


class PowerCut(BaseException):
    """The board is without power from here on."""


class Disk(Files):
    """Counts durable steps; at step ``cut_at`` the power goes, with the write of that step half done.

    A ``lazy`` disk loses what was not made to last: the newest names, and bytes that were not synced.
    """

    def __init__(self, cut_at: int | None = None, *, lazy: bool = False, free: int | None = None) -> None:
        self.steps = 0
        self.free = free
        self._cut_at = cut_at
        self._lazy = lazy

    def write(self, path: Path, offset: int, data: bytes) -> None:
        if self.free is not None and len(data) > self.free:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        if self._cuts():
            torn = b"" if self._lazy else data[: len(data) // 2]
            super().write(path, offset, torn)
            raise PowerCut
        super().write(path, offset, data)
        if self.free is not None:
            self.free -= len(data)

    def rename(self, source: Path, target: Path) -> None:
        if self._cuts():
            if not self._lazy:
                source.replace(target)  # the name changed, and nobody synced it
            raise PowerCut
        super().rename(source, target)

    def make_folder(self, path: Path) -> None:
        if self._cuts():
            raise PowerCut
        super().make_folder(path)

    def remove(self, path: Path) -> None:
        if self._cuts():
            for inside in sorted(path.rglob("*"))[:1]:  # half of a folder is gone
                inside.unlink()
            raise PowerCut
        super().remove(path)

    def free_bytes(self, path: Path) -> int:
        return super().free_bytes(path) if self.free is None else self.free

    def _cuts(self) -> bool:
        self.steps += 1
        return self._cut_at is not None and self.steps > self._cut_at


class Client:
    """What stands around an updater: carries out effects and keeps what was told."""

    def __init__(
        self,
        folder: Path,
        models: Path,
        key: Path,
        files: Files | None = None,
        *,
        board: Board = X86,
        signature: Callable[[bytes, bytes], None] | None = None,
        chunk_bytes: int = 4096,
    ) -> None:
        self.shelf = Shelf(folder, models, files)
        self.shelf.begin()
        self.told: list[UpdateState] = []
        self.asked: list[Fetch] = []
        self.frame_ok = True
        self.restarts = 0
        self.now_s = 0.0
        settings = UpdateSettings(key, chunk_bytes=chunk_bytes, spread_s=0.0)
        check_signature = signature or (lambda manifest, signed: verify(key, manifest, signed))
        self.updater = Updater(self.shelf, board, settings, check_signature, 1, random.Random(0), lambda: 0)
        self.catalog: Catalog = self.shelf.catalog()
        if self.shelf.held.trial is not None:
            self.updater.switched(0.0, self.now_s)
        self.carry_out(self.updater.connected(self.now_s))

    def carry_out(self, effects: list[Effect]) -> None:
        """Do what the agent's thread would."""
        for effect in effects:
            match effect:
                case UpdateState():
                    self.told.append(effect)
                case Fetch():
                    self.asked.append(effect)
                case SelfTest():
                    self.carry_out(self.updater.tested(self._prove(effect), self.now_s))
                case Restart():
                    self.restarts += 1
                case Switch():
                    self.catalog = self.shelf.catalog()
                    if effect.trial is not None:
                        self.updater.switched(0.0, self.now_s)

    def _prove(self, wanted: SelfTest) -> str:
        if wanted.kind != VERSION:
            return ""
        try:
            check(load_folder(wanted.folder), wanted.tolerance)
        except ModelsError as error:
            return str(error)
        return ""

    def want(self, update: Update) -> UpdateState:
        """Tell what is wanted."""
        self.carry_out(self.updater.wanted(update, self.now_s))
        return self.told[-1]

    def turn(self, made: Made | None) -> None:
        """Let a second pass: the server answers what was asked, and a frame is served."""
        self.now_s += 1.0
        self.carry_out(self.updater.tend(self.now_s))
        while self.asked and made is not None:
            asked = self.asked.pop(0)
            data = made.payload[asked.offset : asked.offset + asked.length]
            self.carry_out(self.updater.arrived(Chunk(asked.bundle, asked.offset, data), self.now_s))
        self.carry_out(self.updater.served(ok=self.frame_ok, now_s=self.now_s))

    def until_ended(self, made: Made | None, turns: int = 200) -> UpdateState:
        """Go on until the update is over."""
        for _ in range(turns):
            if self.updater.stage not in UNDER_WAY:
                break
            self.turn(made)
        assert self.updater.stage not in UNDER_WAY, self.told[-1]
        return self.told[-1]

    def stages(self) -> list[UpdateStage]:
        """Return the stages gone through, each once."""
        stages = [told.stage for told in self.told]
        return [stage for n, stage in enumerate(stages) if n == 0 or stage != stages[n - 1]]

    def serves(self) -> str:
        """Return the sha256 of the ``tiny`` that serves, after proving that its files are whole."""
        folder = load_folder(self.catalog.folder("tiny").path, check_hash=True)
        for cut in folder.version.cuts:
            if cut.head_sha256:
                assert sha256_of(folder.head(cut.name)) == cut.head_sha256
        return folder.version.sha256
