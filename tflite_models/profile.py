"""Profiles: the measured costs of plans on one class of device, and of tails on an edge worker."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import dacite

SCHEMA = 1
P = TypeVar("P", "DeviceProfile", "EdgeProfile")


class ProfileError(Exception):
    """A profile file is missing, malformed, or lacks what is asked of it."""


@dataclass(frozen=True, slots=True)
class HeadCost:
    """What the head at one cut of one version costs a device; at cut ``output`` the head is the whole network."""

    version: str
    cut: str
    head_ms_p50: float
    head_ms_p95: float
    energy_mj: float
    """Per frame, above idle."""


@dataclass(frozen=True, slots=True)
class CodecCost:
    """What encoding the tensors at one cut costs a device, per frame."""

    version: str
    cut: str
    codec: str
    encode_ms_p50: float


@dataclass(frozen=True)
class DeviceProfile:
    """Costs of every plan on one device class. Plans at cut ``input`` have a codec cost and no head cost."""

    device_class: str
    board: str
    runtime: str
    energy_source: str
    """``measured`` by a power meter, or ``modelled`` as active power times time."""
    idle_power_mw: float
    active_power_mw: float
    """Drawn above idle while computing."""
    tx_power_mw: float
    """Drawn above idle while sending."""
    heads: tuple[HeadCost, ...]
    codecs: tuple[CodecCost, ...]
    slowdown: float = 1.0
    """Above 1: an emulated board, times of heads and codecs multiplied by this."""
    frame_overhead_ms: float = 0.0
    """The client's own time per frame beside head and codec: taking the picture over, ledger, closing. Not slowed."""
    schema: int = SCHEMA

    @cached_property
    def _heads(self) -> Mapping[tuple[str, str], HeadCost]:
        return {(h.version, h.cut): h for h in self.heads}

    @cached_property
    def _codecs(self) -> Mapping[tuple[str, str, str], CodecCost]:
        return {(c.version, c.cut, c.codec): c for c in self.codecs}

    def head(self, version: str, cut: str) -> HeadCost:
        """Return the head's cost (zero at cut ``input``); raises ``ProfileError`` when it was not measured."""
        if cut == "input":
            return HeadCost(version, cut, 0.0, 0.0, 0.0)
        try:
            return self._heads[version, cut]
        except KeyError:
            raise ProfileError(
                f"profile {self.device_class} has no head {version}/{cut}: profile the device again"
            ) from None

    def encode_ms(self, version: str, cut: str, codec: str) -> float:
        """Return the encoding time (zero at cut ``output``); raises ``ProfileError`` when it was not measured."""
        if cut == "output":
            return 0.0
        try:
            return self._codecs[version, cut, codec].encode_ms_p50
        except KeyError:
            raise ProfileError(
                f"profile {self.device_class} has no codec {version}/{cut}/{codec}: profile the device again"
            ) from None

    def slowed(self, factor: float, device_class: str) -> DeviceProfile:
        """Return the profile of an emulated board that takes ``factor`` times as long for heads and codecs."""
        return dataclasses.replace(
            self,
            device_class=device_class,
            board=f"emulated: {self.board} slowed {factor:g}x",
            energy_source="modelled",
            heads=tuple(
                dataclasses.replace(
                    h,
                    head_ms_p50=h.head_ms_p50 * factor,
                    head_ms_p95=h.head_ms_p95 * factor,
                    energy_mj=h.head_ms_p50 * factor * self.active_power_mw / 1000,
                )
                for h in self.heads
            ),
            codecs=tuple(dataclasses.replace(c, encode_ms_p50=c.encode_ms_p50 * factor) for c in self.codecs),
            slowdown=self.slowdown * factor,
        )


@dataclass(frozen=True, slots=True)
class TailCost:
    """Median time of one tail by batch size, on one interpreter thread of an edge worker."""

    version: str
    cut: str
    batch_ms: tuple[tuple[int, float], ...]
    """(batch size, time of the whole batch), batch sizes rising from 1."""

    def ms(self, batch: float) -> float:
        """Return the time of a batch, between and beyond the measured sizes by straight lines."""
        points = self.batch_ms
        if len(points) == 1:
            return points[0][1] * batch / points[0][0]
        for (b0, t0), (b1, t1) in itertools.pairwise(points):
            if batch <= b1 or (b1, t1) == points[-1]:
                return t0 + (t1 - t0) * (batch - b0) / (b1 - b0)
        return points[-1][1]


@dataclass(frozen=True)
class EdgeProfile:
    """Costs of every tail on one kind of edge worker; at cut ``input`` the tail is the whole network."""

    machine: str
    runtime: str
    threads: int
    """Interpreter threads of one worker: how many batches it computes at once."""
    overhead_ms: float
    """Per frame beside the tail and the round trip to the broker: its hops, receive, decode, answer, cold caches."""
    tails: tuple[TailCost, ...]
    schema: int = SCHEMA

    @cached_property
    def _tails(self) -> Mapping[tuple[str, str], TailCost]:
        return {(t.version, t.cut): t for t in self.tails}

    def tail(self, version: str, cut: str) -> TailCost:
        """Return a tail's cost; raises ``ProfileError`` when it was not measured."""
        try:
            return self._tails[version, cut]
        except KeyError:
            raise ProfileError(f"the edge profile has no tail {version}/{cut}: profile the edge again") from None


def save_profile(profile: DeviceProfile | EdgeProfile, path: Path) -> None:
    """Write a profile as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(dataclasses.asdict(profile), indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)


def load_device_profile(path: Path) -> DeviceProfile:
    """Read the profile of a device class; raises ``ProfileError``."""
    return _load(DeviceProfile, path)


def load_edge_profile(path: Path) -> EdgeProfile:
    """Read the profile of an edge worker; raises ``ProfileError``."""
    return _load(EdgeProfile, path)


def _load(cls: type[P], path: Path) -> P:
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ProfileError(f"{path} is not JSON: {error}") from error
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        raise ProfileError(f"{path} is not a profile of schema {SCHEMA}")
    try:
        return dacite.from_dict(cls, raw, dacite.Config(cast=[tuple, float], strict=True))
    except (dacite.DaciteError, TypeError, ValueError) as error:
        kind = "a device" if cls is DeviceProfile else "an edge machine"
        raise ProfileError(f"{path} is not the profile of {kind}: {error}") from error
