"""Every message that crosses the broker, as frozen dataclasses.

How messages evolve: on the wire a message is an array in field order behind its major version, so a new field is
appended at the end with a default, older readers ignore what they do not know, and a change that cannot be made this
way raises ``MAJOR``. Fields are never reordered, renamed in meaning, or removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from wire.plan import Plan
from wire.tensor import EncodedTensor

MAJOR = 1
MODEL_DIGITS = 12
"""Of a sha256 in an activation: enough to tell two models of one name apart."""


class DeviceState(StrEnum):
    """Life of a device or worker as its retained ``state`` tells it."""

    INIT = "init"
    READY = "ready"
    SLEEPING = "sleeping"
    STOPPED = "stopped"
    LOST = "lost"


class Outcome(StrEnum):
    """How a frame ended; every captured frame ends in exactly one."""

    EDGE = "edge"
    DEVICE = "device"
    FALLBACK = "fallback"
    DROPPED = "dropped"


class EnergySource(StrEnum):
    """Where a figure of energy comes from; the two are never mixed silently."""

    MEASURED = "measured"
    MODELLED = "modelled"


class Status(StrEnum):
    """What became of one activation at the edge, or who else answered the frame."""

    OK = "ok"
    BUSY = "busy"
    EXPIRED = "expired"
    UNKNOWN_PLAN = "unknown-plan"
    BAD_TENSOR = "bad-tensor"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class State:
    """Birth message and last will; of two, the one with the higher session is the truth."""

    state: DeviceState
    session: int
    """Rises with every start of the sender, so that a late will cannot bury a newer session."""
    reason: str = ""
    at_ms: int = 0
    """Wall clock of the sender in Unix milliseconds; information only, nothing is timed by it."""


@dataclass(frozen=True, slots=True)
class CachedVersion:
    """A version that a device or worker holds."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a device can do; sent at birth and whenever it changes."""

    session: int
    client_version: str
    board: str
    device_class: str
    """Names the profile (measured costs of plans) that holds for this board."""
    runtime: str
    cores: int
    memory_mb: int
    versions: tuple[CachedVersion, ...]
    codecs: tuple[str, ...]
    energy_source: EnergySource
    fps: float
    """Frames per second the camera is set to; 0 means as fast as possible."""
    deadline_ms: float
    may_ship_input: bool = True
    """False: the picture itself must not leave the device (plans at cut ``input`` are forbidden)."""
    slowdown: float = 1.0
    """Above 1 the board is emulated: every head takes this many times its real time."""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a device reports of itself, once per period; ``None`` means not known."""

    session: int
    seq: int
    at_ms: int
    plan: Plan
    decision_rev: int
    fps: float
    """Frames captured per second since the last telemetry."""
    in_flight: int
    queued: int
    head_ms: float | None = None
    """Mean head time of the frames since the last telemetry, at the current plan."""
    head_ms_per_plan_ms: float | None = None
    """Measured head time over the profile's, averaged: the calibration of this board."""
    rtt_ms: float | None = None
    uplink_bps: float | None = None
    estimate_age_ms: int | None = None
    cpu_share: float | None = None
    memory_mb: float | None = None
    temperature_c: float | None = None
    battery_share: float | None = None
    power_mw: float | None = None
    energy_source: EnergySource = EnergySource.MODELLED
    counters: Mapping[str, int] = field(default_factory=dict)
    """Everything dropped, refused, retried or late since the session began, by name."""
    replayed: bool = False
    """True: kept while offline and sent later; not to be steered by."""
    disk_free_mb: float | None = None
    """MiB that the client may still write where it keeps its ledger."""
    throttled: int | None = None
    """A Raspberry Pi's own bits: 0 voltage too low, 1 frequency capped, 2 slowed down, 3 near the heat limit; the same
    from 16 on: happened since it was switched on."""
    uptime_s: float | None = None
    """Since the client began; a board that restarts again and again shows here."""


@dataclass(frozen=True, slots=True)
class Activation:
    """The tensors at the cut of one frame."""

    session: int
    frame: int
    plan: Plan
    tensors: tuple[EncodedTensor, ...]
    budget_ms: float
    """Time left until the frame's deadline when it was sent."""
    stamp_ns: int
    """The device's own monotonic clock at sending; echoed, never compared with another clock."""
    model: str = ""
    """Beginning of the sha256 of the version's file as the device holds it; a worker with another file must not answer.
    Empty: not told."""


@dataclass(frozen=True, slots=True)
class ScoredLabel:
    """One answer of a classifier."""

    label: int
    score: float


@dataclass(frozen=True, slots=True)
class Result:
    """The answer for one frame, from the worker or from the device itself."""

    session: int
    frame: int
    plan: Plan
    status: Status
    outcome: Outcome
    computed_by: str
    best: ScoredLabel | None = None
    """The highest score, where the version has one output of class scores."""
    outputs: tuple[EncodedTensor, ...] = ()
    """The raw outputs, where it has not."""
    stamp_ns: int = 0
    wait_ms: float = 0.0
    """From arrival at the worker to the start of the batch."""
    tail_ms: float = 0.0
    """Time of the batch's tail; all frames of a batch wait for all of it."""
    batch: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FrameOutcome:
    """One frame's line in the ledger."""

    frame: int
    outcome: Outcome
    plan: int
    """Index into ``Outcomes.plans``: the plan the frame was captured under."""
    captured_ms: int
    """Wall clock of the device in Unix milliseconds."""
    latency_ms: float
    """Capture to answer; for a dropped frame, capture to drop."""
    head_ms: float = 0.0
    encode_ms: float = 0.0
    network_ms: float = 0.0
    """Sent to answered, less wait and tail: both directions, on the device's own clock."""
    wait_ms: float = 0.0
    tail_ms: float = 0.0
    batch: int = 0
    sent_bytes: int = 0
    energy_mj: float = 0.0
    energy_source: EnergySource = EnergySource.MODELLED
    label: int | None = None
    score: float | None = None
    truth: int | None = None
    """The true label, where the camera plays labelled frames."""
    reason: str = ""
    """Why the frame was dropped or fell back."""


@dataclass(frozen=True, slots=True)
class FoldedCount:
    """Frames whose lines outgrew the device's ledger: the count stays, the details went."""

    outcome: Outcome
    reason: str
    frames: int
    """Total of this session so far, so that a repeated message changes nothing."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """A batch of the device's ledger, repeated until the recorder has stored it."""

    session: int
    batch: int
    captured: int
    """Frames captured in that session so far."""
    plans: tuple[Plan, ...] = ()
    rows: tuple[FrameOutcome, ...] = ()
    folded: tuple[FoldedCount, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """The recorder has stored this batch: the device may forget it."""

    session: int
    batch: int


@dataclass(frozen=True, slots=True)
class Decision:
    """The plan a device is told to follow from now on."""

    rev: int
    plan: Plan
    deadline_ms: float
    policy: str
    reason: str
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class WorkerState:
    """Birth message and last will of an edge worker."""

    state: DeviceState
    session: int
    runtime: str = ""
    threads: int = 0
    versions: tuple[CachedVersion, ...] = ()
    reason: str = ""
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """How busy a worker was over the last period: the policy's view of the edge."""

    session: int
    at_ms: int
    period_ms: float
    queued: int
    arrived: int
    served: int
    busy: int
    """Activations answered at once with ``busy`` because the queue was full."""
    utilisation: float
    """Busy interpreter time over available interpreter time, 0 to 1."""
    batch_mean: float = 0.0
    wait_ms_mean: float = 0.0
    service_ms: Mapping[str, float] = field(default_factory=dict)
    """Mean time per frame by ``version/cut``: batch time over batch size."""
    counters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Probe:
    """Padding of a known size whose acknowledgement times the uplink."""

    padding: bytes


@dataclass(frozen=True, slots=True)
class PlanShare:
    """How many devices were told one plan."""

    plan: Plan
    devices: int
    share: float
    """Of all devices and rounds of the window, 0 to 1."""


@dataclass(frozen=True, slots=True)
class PolicyState:
    """How a decision service fared over the last period: who decides, why not another, and how varied the plans are."""

    session: int
    """Rises with every start of the service."""
    at_ms: int
    period_ms: float
    policy: str
    """The policy that was asked for."""
    deciding: str
    """The policy that chose for most devices in the last round."""
    devices: int
    """Decided for in the last round."""
    decisions: int
    """Published in this period."""
    fallback: Mapping[str, int] = field(default_factory=dict)
    """Device rounds of this period in which the fallback chose, by reason in words."""
    plans: tuple[PlanShare, ...] = ()
    """The commonest ones of the window, most devices first."""
    entropy: float = 0.0
    """Of the plans of the window, in nats."""
    entropy_share: float = 0.0
    """The same over its maximum for so many devices."""
    switches_per_minute: float = 0.0
    """Per device."""
    collapsed: bool = False
    """Whether nearly all devices follow one plan although the fallback policy would vary them."""
    collapse: str = ""
    """The same in words."""
    decide_ms_mean: float = 0.0
    decide_ms_max: float = 0.0
    weights: str = ""
    """The beginning of the sha256 of the weights that act; empty where the policy has none."""
    edge_calibration: float = 1.0
    """Measured over predicted busy time of the workers."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """Totals since the service began, by name."""
    problems: tuple[str, ...] = ()
    """What was refused lately (rules, settings, weights), in words."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One device under two policies."""

    device: str
    acting_plan: int
    """Index into ``Shadow.plans``."""
    shadow_plan: int
    acting_reward: float | None = None
    """Predicted by the cost model with every device following that policy; ``None``: the device has no profile."""
    shadow_reward: float | None = None


@dataclass(frozen=True, slots=True)
class Shadow:
    """What the acting policy chose and what another one would have chosen at the same moment, before hysteresis."""

    at_ms: int
    acting: str
    shadow: str
    plans: tuple[Plan, ...] = ()
    devices: tuple[Compared, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What an operator wants of a device, or of all; ``None`` leaves it to the service's file, then to the device."""

    rev: int
    """Rises with every change; an empty retained payload takes the rules back."""
    weights: tuple[float, ...] | None = None
    """Accuracy, latency, energy; they sum to 1."""
    deadline_ms: float | None = None
    may_ship_input: bool | None = None
    battery_floor: float | None = None
    """Below this share of charge only the plans that cost least energy are left."""
    plan: Plan | None = None
    """For policy `fixed`."""
    battery_wh: float | None = None
    """What the battery holds when full."""
    battery_hours: float | None = None
    """How long a charge must last."""
    at_ms: int = 0
    policy: str | None = None
    """In the rules of ``defaults``: the policy that decides for the site instead of the service's own."""
    policy_for_s: float | None = None
    """How long it decides, from when the service hears it: a trial whose operator vanishes ends by itself."""


@dataclass(frozen=True, slots=True)
class RecorderState:
    """How a recorder fared over the last period: what it stored, and what still waits for the metrics server."""

    session: int
    """Rises with every start of the recorder."""
    at_ms: int
    period_ms: float
    points: int
    """Stored in this period."""
    store_bytes: int
    server: str = ""
    """Of the metrics server, without credentials; empty: none is configured."""
    reachable: bool = False
    """Whether the last write reached it."""
    problem: str = ""
    """Why the last write did not, in words that say what to do."""
    waiting: int = 0
    """The backlog: points stored here and not yet on the server."""
    oldest_s: float = 0.0
    """Age of the oldest of them, since it was stored."""
    forwarded: int = 0
    """In this period."""
    dead: int = 0
    """Points that the server refused for good, kept with its reason."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """Totals since the recorder began, by name."""


class UpdateStage(StrEnum):
    """How far a device is with the bundle it should have."""

    IDLE = "idle"
    """Nothing is wanted of it."""
    QUEUED = "queued"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    TESTING = "testing"
    TRIAL = "trial"
    """Switched to and serving frames, but not settled: what was there before is kept."""
    ACTIVE = "active"
    FAILED = "failed"
    """Never switched to; what was there serves on."""
    ROLLED_BACK = "rolled-back"
    """Switched to, found worse, and left again."""


@dataclass(frozen=True, slots=True)
class Update:
    """What a device should have; an empty retained payload takes it back."""

    rev: int
    """Names the attempt: with another one, a bundle that failed is tried again."""
    bundle: str
    manifest: bytes
    """JSON, exactly as it was signed."""
    signature: bytes
    """Ed25519 over ``manifest``."""
    trial_frames: int = 30
    """Frames the new version must serve before it is kept."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What came by an update and was kept: a version, ``@settings`` or ``@client``."""

    slot: str
    bundle: str


@dataclass(frozen=True, slots=True)
class UpdateState:
    """How far a device is with its update; sent at birth and whenever it changes."""

    session: int
    rev: int
    bundle: str
    stage: UpdateStage
    done_bytes: int = 0
    size_bytes: int = 0
    reason: str = ""
    installed: tuple[Installed, ...] = ()
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Fetch:
    """A device asks for the next bytes of its bundle: the files of the manifest, one after the other."""

    bundle: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of a bundle."""

    bundle: str
    offset: int
    data: bytes
