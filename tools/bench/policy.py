"""The command ``splitfleet bench policy``: how long a decision for a whole site takes."""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np

    from policy.costs import CostModel
    from policy.interface import FleetObservation, Policy
    from tflite_models.profile import DeviceProfile

SLOWDOWNS = (2.0, 5.0, 12.0, 30.0, 80.0)
"""Boards of the fleet, as multiples of the machine on which the shipped zoo was profiled."""
EVERY = "a2c,pricing,sequential,greedy"
DEAR = {"sequential": 200}
"""Devices on one edge beyond which a policy takes minutes and is left out."""


@dataclass(frozen=True, slots=True)
class Load:
    """A number of edges, each with its devices and workers, decided one behind the other."""

    name: str
    sites: int
    devices: int
    """Of all sites."""
    workers: int
    """Per site."""
    target_ms: float | None = None


LOADS = (
    Load("8 devices on one edge", 1, 8, 1),
    Load("64 devices on one edge", 1, 64, 1, 50.0),
    Load("1,000 devices, one site of 16 workers", 1, 1000, 16, 100.0),
    Load("1,000 devices, 16 sites of one worker", 16, 1000, 1, 100.0),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One policy on one load."""

    load: str
    policy: str
    decide_ms: tuple[float, ...]
    """Per repeat: from observations to choices for every device of all sites."""
    target_ms: float | None


def policy(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure to this file.")] = None,
    policies: Annotated[str, typer.Option(help="Policies, with commas between them.")] = EVERY,
    repeats: Annotated[int, typer.Option(min=1, help="Decisions of each, after two that are not counted.")] = 15,
    seed: Annotated[int, typer.Option(help="Of links, boards, rates and weights.")] = 0,
) -> None:
    """Measure how long policies take to decide, from what is observed of a site to a plan for every device.

    Devices of five classes run the shipped zoo; links and rates are drawn, and drift between two decisions. a2c is
    timed as it serves, behind its guard. Keep the machine idle, and one thread: OMP_NUM_THREADS=1.

    Example: splitfleet bench policy --policies a2c,pricing --json policy.json
    """
    from tools.output import check_writable, console

    check_writable(json_file)
    runs = list(measure([name.strip() for name in policies.split(",")], repeats, seed))
    _print(runs)
    if json_file is not None:
        told = {"measured": True, "seed": seed, "runs": [dataclasses.asdict(run) for run in runs]}
        json_file.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        console().print(f"written to {json_file}")


def measure(policies: Sequence[str], repeats: int, seed: int, loads: Sequence[Load] = LOADS) -> Iterator[Run]:
    """Yield every policy on every load; raises ``PolicyError`` for a policy that is none."""
    import numpy as np

    from policy.choosing import Chosen
    from policy.costs import CostModel
    from policy.guard import GuardSettings
    from policy.rules import SiteRules
    from policy.simulation.tables import FOLDER
    from tflite_models.catalog import load_catalog, shipped_zoo
    from tflite_models.profile import load_device_profile, load_edge_profile

    model = CostModel(load_catalog(shipped_zoo()), load_edge_profile(FOLDER / "zoo_edge.json"))
    zoo = load_device_profile(FOLDER / "zoo_device.json")
    boards = [zoo.slowed(factor, f"{factor:g}x") for factor in SLOWDOWNS]
    for load in loads:
        for name in policies:
            if load.devices / load.sites > DEAR.get(name, load.devices):
                continue
            rng = np.random.default_rng(seed)
            sizes = [load.devices // load.sites + (i < load.devices % load.sites) for i in range(load.sites)]
            sites = [_site(model, boards, size, load.workers, rng) for size in sizes]
            deciding: list[Policy] = []
            for _ in sites:
                chosen = Chosen(name, "", model, SiteRules(), GuardSettings())
                chosen.refresh(0.0)
                assert chosen.policy is not None, "what acts is guarded"
                deciding.append(chosen.policy)
            times = [_round(deciding, sites, rng) for _ in range(repeats + 2)]
            yield Run(load.name, name, tuple(times[2:]), load.target_ms)


def _round(deciding: Sequence[Policy], sites: list[FleetObservation], rng: np.random.Generator) -> float:
    """Decide for every site once; return the time in ms. Afterwards devices follow their plans and links drift."""
    begun = time.perf_counter()
    told = [policy.decide(site, rng) for policy, site in zip(deciding, sites, strict=True)]
    spent_ms = (time.perf_counter() - begun) * 1000
    for i, (choices, site) in enumerate(zip(told, sites, strict=True)):
        drift = rng.normal(0, 0.1, len(site.devices))
        devices = tuple(
            dataclasses.replace(d, current=choices[d.name].plan, uplink_bps=d.uplink_bps * float(2.0**step))
            for d, step in zip(site.devices, drift, strict=True)
        )
        sites[i] = dataclasses.replace(site, devices=devices)
    return spent_ms


def _site(
    model: CostModel, boards: Sequence[DeviceProfile], count: int, workers: int, rng: np.random.Generator
) -> FleetObservation:
    from policy.interface import DeviceObservation, EdgeObservation, FleetObservation, Weights

    versions = frozenset(plan.version for plan in model.table.plans)
    codecs = frozenset(plan.codec for plan in model.table.plans)
    devices = []
    for i in range(count):
        accuracy, latency, energy = rng.dirichlet((2.0, 2.0, 2.0))
        devices.append(
            DeviceObservation(
                f"cam-{i}", boards[int(rng.integers(len(boards)))], versions, codecs,
                Weights(float(accuracy), float(latency), float(energy)),
                deadline_ms=float(rng.choice([150.0, 300.0, 600.0])), fps=float(rng.uniform(0.5, 10.0)),
                uplink_bps=float(2.0 ** rng.uniform(17, 25)), rtt_ms=float(rng.uniform(2, 60)),
                telemetry_age_ms=500.0, late_share=0.0, may_ship_input=bool(rng.random() < 0.8),
            )
        )  # fmt: skip
    return FleetObservation(tuple(devices), EdgeObservation(workers, workers, versions, utilisation=0.6))


def _print(runs: Sequence[Run]) -> None:
    from tools.output import print_table

    print_table(
        "one decision for every device, one process (measured; median and range of the repeats)",
        ["load", "policy", "ms", "per device, µs", "target, ms"],
        [
            [
                run.load, run.policy,
                f"{statistics.median(run.decide_ms):.1f} [{min(run.decide_ms):.1f}–{max(run.decide_ms):.1f}]",
                f"{1000 * statistics.median(run.decide_ms) / _devices(run.load):.0f}",
                None if run.target_ms is None else f"< {run.target_ms:g}",
            ]
            for run in runs
        ],
    )  # fmt: skip


def _devices(name: str) -> int:
    return next(load.devices for load in LOADS if load.name == name)
