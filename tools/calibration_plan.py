"""What ``splitfleet policy calibrate`` compares: which plans, from which profiles, and what the model says of each."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from device_client.meters import find_power_meter
from device_client.profiling import profile_device, sample_frames
from edge_broker_side.profiling import profile_edge
from policy.costs import CostModel
from policy.errors import PolicyError
from policy.interface import DeviceObservation, EdgeObservation, FleetObservation, Prediction, Weights
from tflite_models.catalog import Catalog, load_catalog
from tflite_models.profile import DeviceProfile, EdgeProfile, load_device_profile, load_edge_profile
from tools.calibration_site import DEADLINE_MS, DEVICE, WORKER_THREADS, BoardSetup
from tools.demo_site import prepare_store
from tools.home import demo_store_folder
from wire.messages import Telemetry
from wire.plan import Plan, parse_plan

Progress = Callable[[str, int, int], None]

ALL = "all"
PROFILE_RUNS = 30
EDGE_BATCHES = (1, 2, 4)
"""One device never fills a larger batch."""
KINDS: Mapping[str, str] = {
    "raw8": "picture", "png": "picture", "f32": "floats", "f16": "floats", "q8": "bytes", "i8": "bytes",
    "q4": "bits", "q2": "bits",
}  # fmt: skip
"""Codecs that cost alike; every other one is a compressed picture."""


def models_to_use(folder: Path | None, progress: Progress) -> tuple[Catalog, Path]:
    """Return the catalog and the folder with heads and tails; the demo's, cut on first use, where none is named."""
    if folder is not None:
        return load_catalog(folder), folder
    return prepare_store(progress), demo_store_folder()


def choose_plans(catalog: Catalog, asked: str) -> tuple[Plan, ...]:
    """Return the plans that ``asked`` (``all``, a number, or plans with commas between) names, each once.

    Raises ``PolicyError`` for a plan that the catalog does not have, or for none at all.
    """
    macs = {version.name: version.macs for version in catalog}
    there = sorted((plan for plan, _ in catalog.plans()), key=lambda plan: (macs[plan.version], not plan.is_local))
    if asked == ALL:
        return tuple(there)
    if asked.isdecimal() and int(asked) > 0:
        return spread(there, int(asked))
    try:
        named = tuple(dict.fromkeys(parse_plan(text.strip()) for text in asked.split(",")))
    except ValueError as error:
        raise PolicyError(f"--plans {asked}: {error}; or write {ALL}, or how many plans") from None
    for plan in named:
        if plan not in there:
            raise PolicyError(f"--plans: no version here has the plan {plan}: see splitfleet models list")
    return named


def spread(plans: Iterable[Plan], count: int) -> tuple[Plan, ...]:
    """Pick plans of every kind (local, picture, compressed picture, tensors of each width) by turns.

    ``plans`` are in order of their version's work. By turns the lightest and the heaviest of a kind is taken, of the
    versions that have been taken least so far.
    """
    kinds: dict[str, list[Plan]] = {}
    for plan in plans:
        kinds.setdefault("local" if plan.is_local else KINDS.get(plan.codec, "compressed"), []).append(plan)
    picked: list[Plan] = []
    turn = 0
    while len(picked) < count and any(kinds.values()):
        for left in kinds.values():
            if left and len(picked) < count:
                taken = Counter(plan.version for plan in picked)
                least = min(taken[plan.version] for plan in left)
                fresh = [plan for plan in left if taken[plan.version] == least]
                picked.append(fresh[0 if turn % 2 == 0 else -1])
                left.remove(picked[-1])
        turn += 1
    return tuple(picked)


def profiles_to_use(
    device: Path | None, edge: Path | None, catalog: Catalog, plans: Iterable[Plan], progress: Progress
) -> tuple[DeviceProfile, EdgeProfile]:
    """Read the profiles, or measure what the plans need of this machine.

    Raises ``ProfileError`` for a file that cannot be used and ``PolicyError`` for one of an emulated board.
    """
    needed = Catalog({name: catalog.folder(name) for name in dict.fromkeys(plan.version for plan in plans)})
    if device is not None:
        board = load_device_profile(device)
        if board.slowdown != 1:
            raise PolicyError(f"{device} is of an emulated board: give the profile of this machine and --slowdown")
    else:
        board = profile_device(
            needed, sample_frames(None, PROFILE_RUNS), device_class="this-machine", runs=PROFILE_RUNS,
            meter=find_power_meter(), progress=lambda what, done, total: progress(f"head of {what}", done, total),
        )  # fmt: skip
    if edge is not None:
        return board, load_edge_profile(edge)
    return board, profile_edge(
        needed, batches=EDGE_BATCHES, threads=WORKER_THREADS,
        progress=lambda what, done, total: progress(f"tail of {what}", done, total),
    )  # fmt: skip


def emulated(board: DeviceProfile, slowdown: float) -> DeviceProfile:
    """Return the profile of the board that the device emulates.

    The client models energy above idle, so the idle power is left out of what is compared.
    """
    if slowdown == 1:
        return board
    return dataclasses.replace(board.slowed(slowdown, f"emulated-{slowdown:g}x"), idle_power_mw=0.0)


def predict(model: CostModel, setup: BoardSetup, plan: Plan, before: Telemetry) -> Prediction:
    """Return what the model says of a plan from the profiles and the device's last report before it followed it."""
    if before.uplink_bps is None or before.rtt_ms is None:
        raise PolicyError("the device has not measured its link yet")
    versions = frozenset(each.version for each in model.table.plans)
    device = DeviceObservation(
        DEVICE, setup.profile, versions, frozenset({plan.codec}), Weights(), DEADLINE_MS, setup.fps,
        before.uplink_bps, before.rtt_ms, calibration=before.head_ms_per_plan_ms or 1.0,
    )  # fmt: skip
    costs = model.costs(FleetObservation((device,), EdgeObservation(1, WORKER_THREADS, versions)))
    index = model.table.index[plan]
    return costs.prediction(0, index, costs.load[0, index])


def check_covered(model: CostModel, board: DeviceProfile, plans: Iterable[Plan]) -> None:
    """Raise ``PolicyError`` naming the first plan that the profiles do not cover."""
    known = model.row(board).known & model.edge.known
    for plan in plans:
        if not known[model.table.index[plan]]:
            raise PolicyError(
                f"the profiles do not cover {plan}: measure them again with splitfleet profile device|edge"
            )
