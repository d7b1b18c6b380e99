"""The operator's KPI sheet: what latency, energy and accuracy are worth, and the policy's weights that follow. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from policy.interface import Weights
from wire.errors import WireError
from wire.settings import load_settings

MJ_PER_KWH = 3.6e9
CURRENCY = re.compile(r"\S{1,8}\Z")


class PilotError(WireError):
    """The pilot cannot begin, or a sheet makes no sense; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Worth:
    """Prices, in the sheet's currency."""

    second_of_latency: float = 0.0
    """Of one answer that comes a second later: currency per frame and second."""
    kilowatt_hour: float = 0.0
    """Of the devices' energy."""
    wrong_answer: float = 0.0
    """Of one wrong answer; a point of accuracy is ten wrong answers in a thousand frames."""
    lost_frame: float | None = None
    """Of a frame without any answer; left out: as a wrong answer."""
    gigabyte: float = 0.0
    """Of what devices send (10^9 bytes)."""

    def __post_init__(self) -> None:
        for one in fields(self):
            price = getattr(self, one.name)
            if price is not None and not 0 <= price <= 1e9:
                raise PilotError(f"worth.{one.name} = {price:g}: allowed is 0 to 1e9")
        if not (self.second_of_latency or self.kilowatt_hour or self.wrong_answer):
            raise PilotError("worth: at least one of second_of_latency, kilowatt_hour and wrong_answer must be above 0")

    @property
    def no_answer(self) -> float:
        """What a frame without any answer costs."""
        return self.wrong_answer if self.lost_frame is None else self.lost_frame


@dataclass(frozen=True, slots=True)
class Operation:
    """How much the site works."""

    devices: int
    hours_per_month: float = 730.0
    frames_per_device_month: float | None = None
    """Left out: as many per hour as the pilot has seen."""

    def __post_init__(self) -> None:
        if not 1 <= self.devices <= 10_000_000:
            raise PilotError(f"operation.devices = {self.devices}: allowed is 1 to 10,000,000")
        if not 0 < self.hours_per_month <= 744:
            raise PilotError(f"operation.hours_per_month = {self.hours_per_month:g}: allowed is above 0 to 744")
        frames = self.frames_per_device_month
        if frames is not None and not 0 < frames <= 1e12:
            raise PilotError(f"operation.frames_per_device_month = {frames:g}: allowed is above 0 to 1e12")


@dataclass(frozen=True, slots=True)
class Adoption:
    """What adopting costs beyond what is spent today."""

    once: float = 0.0
    """Edge machine, installation."""
    monthly: float = 0.0
    """Power of the edge machine, upkeep."""

    def __post_init__(self) -> None:
        if not (0 <= self.once <= 1e12 and 0 <= self.monthly <= 1e12):
            raise PilotError(f"adoption once = {self.once:g}, monthly = {self.monthly:g}: allowed is 0 to 1e12")


@dataclass(frozen=True, slots=True)
class KpiSheet:
    """One sheet."""

    worth: Worth
    operation: Operation
    adoption: Adoption = field(default_factory=Adoption)
    currency: str = "EUR"
    deadline_ms: float | None = None
    """Of every frame; left out: each device's own."""
    accuracy: Literal["labels", "catalog"] = "labels"
    """Share of right answers: of frames whose true label is known, or the catalog's for the plans that answered."""

    def __post_init__(self) -> None:
        if not CURRENCY.match(self.currency):
            raise PilotError(f"currency = '{self.currency}': write a short word such as EUR")
        if self.deadline_ms is not None and not 1 <= self.deadline_ms <= 600_000:
            raise PilotError(f"deadline_ms = {self.deadline_ms:g}: allowed is 1 to 600,000")


def load_sheet(path: Path) -> KpiSheet:
    """Read a sheet; raises ``SettingsError`` or ``PilotError``."""
    return load_settings(KpiSheet, path)


def weights(worth: Worth, accuracy_span: float, deadline_ms: float, heavy_mj: float) -> Weights:
    """Return the policy's weights under which it wants of a device what the prices want.

    The policy weighs terms without units (``policy.reward``): A = (accuracy − least)/span, L = 1 − latency/deadline,
    E = 1 − energy/heavy. By the chain rule a weight is worth price × scale: w_acc/span must be to w_lat/deadline to
    w_en/heavy as the prices of accuracy, of a millisecond and of a millijoule are to each other.
    """
    money = (
        worth.wrong_answer * accuracy_span,
        worth.second_of_latency / 1000 * deadline_ms,
        worth.kilowatt_hour / MJ_PER_KWH * heavy_mj,
    )
    total = sum(money)
    if total <= 0:
        raise PilotError("the prices that are not 0 weigh nothing here: all plans are equally accurate")
    accuracy, latency = round(money[0] / total, 4), round(money[1] / total, 4)
    return Weights(accuracy, latency, max(0.0, round(1 - accuracy - latency, 4)))


def weights_toml(of: Mapping[str, Weights]) -> str:
    """Return tables for the policy's settings file: the commonest weights for all, and what differs by device."""
    told = list(of.values())
    usual = max(dict.fromkeys(told), key=told.count)
    tables = {"defaults": usual} | {f"devices.{name}": one for name, one in of.items() if one != usual}
    return "\n".join(
        f"[{table}.weights]\naccuracy = {one.accuracy:g}\nlatency = {one.latency:g}\nenergy = {one.energy:g}"
        for table, one in tables.items()
    )
