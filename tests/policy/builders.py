"""Small catalogs, profiles and observations, so that a test states only what it is about."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from policy.costs import CostModel
from policy.interface import DeviceObservation, EdgeObservation, FleetObservation, Weights
from tflite_models.catalog import MODEL, Catalog, Cut, ModelFolder, PlanFacts, Provenance, Version
from tflite_models.profile import CodecCost, DeviceProfile, EdgeProfile, HeadCost, TailCost
from wire.plan import INPUT, NO_CODEC, OUTPUT, Plan

TX2 = Path(__file__).parent / "data" / "infer_edge_tx2.csv"

LIGHT_LOCAL = Plan("light", OUTPUT, NO_CODEC)
HEAVY_LOCAL = Plan("heavy", OUTPUT, NO_CODEC)
HEAVY_S2 = Plan("heavy", "s2", "q2")
HEAVY_RAW = Plan("heavy", INPUT, "raw8")
HEAVY_WEBP = Plan("heavy", INPUT, "webp50")
LIGHT_WEBP = Plan("light", INPUT, "webp50")
CODECS = frozenset({"q2", "raw8", "webp50", "f32"})


def version(name: str, macs: int, facts: Sequence[PlanFacts], accuracy: float | None = None) -> Version:
    """A manifest with the plans given."""
    cuts = tuple(Cut(cut, i, (), 0, 0) for i, cut in enumerate(dict.fromkeys(f.cut for f in facts)))
    provenance = Provenance("made by a test", "", "none", 0)
    return Version(
        name, "test", "ab" * 32, 1, "float32", (), (), macs, accuracy, ("a",), "2.14", cuts, tuple(facts), provenance
    )


def catalog(*versions: Version) -> Catalog:
    """A catalog without files."""
    return Catalog({v.name: ModelFolder(Path(v.name) / MODEL, v) for v in versions})


def small_catalog() -> Catalog:
    """Two versions: a heavy one with a cheap cut, a light one; four sensible plans for the heavy."""
    return catalog(
        version(
            "heavy",
            60_000_000,
            [
                PlanFacts(INPUT, "raw8", 27_648, 27_648, 0.86),
                PlanFacts(INPUT, "webp50", 1_150, 1_500, 0.86),
                PlanFacts("s2", "q2", 920, 1_100, 0.86),
                PlanFacts(OUTPUT, NO_CODEC, 0, 0, 0.86),
            ],
        ),
        version(
            "light",
            8_000_000,
            [PlanFacts(INPUT, "webp50", 1_150, 1_500, 0.79), PlanFacts(OUTPUT, NO_CODEC, 0, 0, 0.80)],
        ),
    )


def board(device_class: str = "board", heavy_ms: float = 260.0) -> DeviceProfile:
    """A board on which the heavy version takes ``heavy_ms``, the light one an eighth, the head at s2 70 %."""

    def head(name: str, cut: str, ms: float) -> HeadCost:
        return HeadCost(name, cut, ms, ms * 1.2, ms * 2.0)

    return DeviceProfile(
        device_class,
        "test board",
        "none",
        "modelled",
        idle_power_mw=0.0,
        active_power_mw=2000.0,
        tx_power_mw=700.0,
        heads=(
            head("heavy", "s2", heavy_ms * 0.7),
            head("heavy", OUTPUT, heavy_ms),
            head("light", OUTPUT, heavy_ms / 8),
        ),
        codecs=(
            CodecCost("heavy", "s2", "q2", 1.0),
            CodecCost("heavy", INPUT, "raw8", 0.2),
            CodecCost("heavy", INPUT, "webp50", 4.0),
            CodecCost("light", INPUT, "webp50", 4.0),
        ),
    )


def edge_profile(heavy_ms: float = 40.0) -> EdgeProfile:
    """An edge whose interpreter takes ``heavy_ms`` for the whole heavy version and gains a little by batching."""

    def tail(name: str, cut: str, ms: float) -> TailCost:
        return TailCost(name, cut, ((1, ms), (8, ms * 6)))

    return EdgeProfile(
        "test edge",
        "none",
        threads=1,
        overhead_ms=1.0,
        tails=(
            tail("heavy", INPUT, heavy_ms),
            tail("heavy", "s2", heavy_ms * 0.3),
            tail("light", INPUT, heavy_ms / 8),
        ),
    )


def small_model(edge_heavy_ms: float = 40.0) -> CostModel:
    """The cost model of the small catalog."""
    return CostModel(small_catalog(), edge_profile(edge_heavy_ms))


BOARD = board()
DEVICE = DeviceObservation(
    name="cam-1",
    profile=BOARD,
    versions=frozenset({"heavy", "light"}),
    codecs=CODECS,
    weights=Weights(),
    deadline_ms=500.0,
    fps=2.0,
    uplink_bps=8e6,
    rtt_ms=5.0,
    telemetry_age_ms=500.0,
)
EDGE = EdgeObservation(workers=1, threads=1, versions=frozenset({"heavy", "light"}))


def fleet(*devices: DeviceObservation, edge: EdgeObservation = EDGE) -> FleetObservation:
    """A site."""
    return FleetObservation(devices, edge)


def alike(count: int, device: DeviceObservation = DEVICE) -> tuple[DeviceObservation, ...]:
    """So many devices that differ in name only."""
    return tuple(dataclasses.replace(device, name=f"cam-{i}") for i in range(count))


def tx2(model: str) -> tuple[Catalog, DeviceProfile, EdgeProfile]:
    """One network of the Jetson TX2 table: every layer is a cut, its float32 output is sent, the edge takes no time."""
    with TX2.open(encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["model"] == model and r["tx2_cum_energy_J_fig"]]
    facts, heads, codecs, tails = [], [], [], []
    for row in rows:
        cut, size = row["layer"], float(row["float32_bytes_exact"])
        time_ms = float(row["tx2_cum_latency_ms_fig"])
        facts.append(PlanFacts(cut, "f32", size, size, None))
        heads.append(HeadCost(model, cut, time_ms, time_ms, float(row["tx2_cum_energy_J_fig"]) * 1000))
        codecs.append(CodecCost(model, cut, "f32", 0.0))
        tails.append(TailCost(model, cut, ((1, 0.0),)))
    profile = DeviceProfile("tx2", "Jetson TX2", "PyTorch", "measured", 0.0, 6000.0, 700.0, tuple(heads), tuple(codecs))
    edge = EdgeProfile("free", "none", 1, 0.0, tuple(tails))
    return catalog(version(model, 1, facts)), profile, edge
