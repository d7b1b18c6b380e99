"""The seam between what is known of a site and what decides: observations in, choices out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from policy.errors import PolicyError
from tflite_models.profile import DeviceProfile
from wire.plan import Plan


@dataclass(frozen=True, slots=True)
class Weights:
    """How much accuracy, latency and energy count for a device; they sum to 1."""

    accuracy: float = 0.34
    latency: float = 0.33
    energy: float = 0.33

    def __post_init__(self) -> None:
        values = (self.accuracy, self.latency, self.energy)
        if min(values) < 0 or not math.isclose(sum(values), 1.0, abs_tol=1e-6):
            raise PolicyError(
                f"weights accuracy = {self.accuracy:g}, latency = {self.latency:g}, energy = {self.energy:g} "
                f"sum to {sum(values):g}: none may be negative and they must sum to 1"
            )


@dataclass(frozen=True, slots=True)
class DeviceObservation:
    """What is known of one device when plans are decided."""

    name: str
    profile: DeviceProfile | None
    """Measured costs of its class; ``None``: nobody profiled it, only a local plan can be justified."""
    versions: frozenset[str]
    codecs: frozenset[str]
    weights: Weights
    deadline_ms: float
    fps: float
    """Frames offered per second; 0: as fast as the plan allows."""
    uplink_bps: float
    rtt_ms: float
    uplink_known: bool = True
    """False: the device has not measured its uplink yet and ``uplink_bps`` is an assumption."""
    calibration: float = 1.0
    """Measured head time over the profile's."""
    telemetry_age_ms: float | None = None
    """``None``: no telemetry yet."""
    battery_share: float | None = None
    battery_floor: float = 0.0
    """Below this share of charge only the plans that cost least energy are left."""
    may_ship_input: bool = True
    current: Plan | None = None
    """The plan last decided."""
    hold: bool = False
    """True: nothing fresh is known, the device stays at ``current`` and still counts as load."""
    battery_mj: float | None = None
    """Energy left, where the battery's capacity is known."""
    horizon_s: float | None = None
    """Time that energy must last, where the operator set one."""
    uplink_age_ms: float | None = None
    """Since the uplink was last measured; ``None``: not known."""
    late_share: float | None = None
    """Of the frames that ended between the last two telemetry messages, those that the edge did not answer in time;
    ``None``: none ended."""
    refuses: frozenset[Plan] = frozenset()
    """Plans that the device was told and did not follow."""


@dataclass(frozen=True, slots=True)
class EdgeObservation:
    """What is known of the workers of the site together."""

    workers: int
    """Those that are ready."""
    threads: int
    """Interpreters of all ready workers."""
    versions: frozenset[str]
    """Held by every ready worker: a shared subscription may hand a frame to any of them."""
    utilisation: float | None = None
    """Measured share of busy interpreter time; ``None``: not reported lately."""
    calibration: float = 1.0
    """Measured over predicted busy time: scales every tail."""
    backlog_ms: float = 0.0
    """Time the frames queued at the workers will take."""
    wait_ms: float | None = None
    """Measured mean time from arrival to the start of a tail; ``None``: not reported lately."""


@dataclass(frozen=True, slots=True)
class FleetObservation:
    """One site at one moment. Device names are unique."""

    devices: tuple[DeviceObservation, ...]
    edge: EdgeObservation


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the cost model expects of one plan on one device; modelled, never measured."""

    latency_ms: float
    latency_p95_ms: float
    head_ms: float
    encode_ms: float
    tx_ms: float
    rtt_ms: float
    wait_ms: float
    tail_ms: float
    energy_mj: float
    accuracy: float | None
    bytes_mean: float
    edge_busy_ms_per_s: float
    device_utilisation: float
    link_utilisation: float
    late_share: float
    dropped_share: float
    reward: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The plan a policy wants for one device."""

    plan: Plan
    reason: str
    """What made this plan the choice, in words."""
    gain: float
    """Reward the policy expects from leaving the current plan; infinite where staying is no option."""
    predicted: Prediction | None = None
    """``None`` where the device has no profile."""
    staying: Prediction | None = None
    """The same for the current plan, where it is allowed and another."""
    refused: str = ""
    """Why the current plan is not allowed any more, in words; empty where it is."""
    policy: str = ""
    """The policy that chose, where it is not the one that was asked."""
    fallback: str = ""
    """Why another policy than the one that was asked chose, in words; empty where none did."""


class Policy(Protocol):
    """Decides for all devices of a site at once, since they share its edge."""

    @property
    def name(self) -> str:
        """Name by which settings ask for it."""

    def decide(self, fleet: FleetObservation, rng: np.random.Generator) -> Mapping[str, Choice]:
        """Return a choice for every device of the fleet; no plan is chosen that ``policy.mask`` refuses.

        Policies bound to a kind of plan may keep to it in spite of a predicted deadline miss, never of another refusal.
        """
