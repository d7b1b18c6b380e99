"""Measures what every plan costs the machine this runs on; a board calls ``python -m device_client.profiling``."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from device_client import meters
from device_client.camera import Pixels, fit
from device_client.energy import DEFAULT_ACTIVE_MW, DEFAULT_TX_MW
from device_client.meters import PowerMeter
from tflite_models.activation import Array, encode_activation, frame_to_input
from tflite_models.catalog import Catalog, Cut, ModelFolder, ModelsError, load_catalog
from tflite_models.pack import load_pack, shipped_pack
from tflite_models.profile import CodecCost, DeviceProfile, HeadCost, ProfileError, save_profile
from tflite_models.runtime import Submodel, runtime_name
from wire.errors import WireError
from wire.plan import INPUT, NO_CODEC

WARM_UP_RUNS = 3
DEFAULT_RUNS = 30
IDLE_S = 2.0
"""How long a board with a meter is watched at rest, to know what it draws above that."""
IDLE_READINGS = 40
Progress = Callable[[str, int, int], None]
"""Called with what is measured next, how many are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class HeadRuns:
    """What running one head several times gave: outputs, times, and the energy above idle where it was measured."""

    outputs: list[tuple[Array, ...]]
    times_ms: list[float]
    energy_mj: float | None


def profile_device(
    catalog: Catalog,
    frames: Sequence[Pixels],
    *,
    device_class: str,
    runs: int = DEFAULT_RUNS,
    threads: int = 1,
    runtime: str | None = None,
    active_power_mw: float = DEFAULT_ACTIVE_MW,
    tx_power_mw: float = DEFAULT_TX_MW,
    meter: PowerMeter | None = None,
    progress: Progress = lambda *_: None,
) -> DeviceProfile:
    """Run every head ``runs`` times and its codecs on real frames.

    With a meter, energy above idle is measured; else it is ``active_power_mw`` times time, and the profile says
    ``modelled``. Raises ``ModelsError`` where a head cannot run.
    """
    steps = [(folder, cut) for folder in catalog.folders.values() for cut in folder.version.cuts]
    progress("idle power", 0, len(steps))
    idle_power_mw = None if meter is None else _idle_power_mw(meter)
    heads: list[HeadCost] = []
    codecs: list[CodecCost] = []
    busy_ms = busy_mj = 0.0
    for done, (folder, cut) in enumerate(steps):
        version = folder.version
        progress(f"{version.name} at {cut.name}", done, len(steps))
        pictures = [_picture(folder, frame) for frame in frames[:runs]]
        crossing: list[tuple[Array, ...]] = [(picture,) for picture in pictures]
        if cut.name != INPUT:
            head = Submodel(folder.head(cut.name), threads=threads, prefer="light", runtime=runtime)
            measured = _run_head(
                head, [frame_to_input(version.inputs[0], picture) for picture in pictures], runs, meter, idle_power_mw
            )
            crossing = measured.outputs
            p50, p95 = _percentiles(measured.times_ms)
            energy_mj = p50 * active_power_mw / 1000
            if measured.energy_mj is not None:
                energy_mj = measured.energy_mj / runs
                busy_ms, busy_mj = busy_ms + sum(measured.times_ms), busy_mj + measured.energy_mj
            heads.append(HeadCost(version.name, cut.name, p50, p95, energy_mj))
        codecs.extend(_codec_costs(folder, cut, crossing))
    progress("done", len(steps), len(steps))
    return DeviceProfile(
        device_class=device_class,
        board=meters.board_name(),
        runtime=runtime_name(runtime),
        energy_source="modelled" if idle_power_mw is None else "measured",
        idle_power_mw=idle_power_mw or 0.0,
        active_power_mw=busy_mj / busy_ms * 1000 if busy_mj > 0 else active_power_mw,
        tx_power_mw=tx_power_mw,
        heads=tuple(heads),
        codecs=tuple(codecs),
    )


def sample_frames(pack: Path | None, runs: int) -> list[Pixels]:
    """Return labelled frames of a pack, or of the shipped one; without it random pictures, whose codecs cost alike."""
    if pack is not None or shipped_pack().is_file():
        return list(load_pack(pack or shipped_pack())[0][:runs])
    blocks = np.random.default_rng(0).integers(0, 256, (min(runs, DEFAULT_RUNS), 12, 12, 3), np.uint8)
    return list(blocks.repeat(8, 1).repeat(8, 2))


def _idle_power_mw(meter: PowerMeter) -> float | None:
    began, before = time.monotonic(), meter.energy_mj()
    after = before
    for _ in range(IDLE_READINGS):
        time.sleep(IDLE_S / IDLE_READINGS)
        after = meter.energy_mj()
    if before is None or after is None:
        return None
    return (after - before) / (time.monotonic() - began)


def _run_head(
    head: Submodel, inputs: list[Array], runs: int, meter: PowerMeter | None, idle_power_mw: float | None
) -> HeadRuns:
    for _ in range(WARM_UP_RUNS):
        head.run(inputs[0])
    outputs: list[tuple[Array, ...]] = []
    times_ms: list[float] = []
    readings: list[float | None] = [None if meter is None else meter.energy_mj()]
    start = time.perf_counter()
    for run in range(runs):
        began = time.perf_counter()
        output = head.run(inputs[run % len(inputs)])
        times_ms.append((time.perf_counter() - began) * 1000)
        if len(outputs) < len(inputs):
            outputs.append(output)
        if meter is not None:  # after every run, for a meter that knows the power of the moment only
            readings.append(meter.energy_mj())
    first, last = readings[0], readings[-1]
    if first is None or last is None or idle_power_mw is None:
        return HeadRuns(outputs, times_ms, None)
    idle_mj = idle_power_mw * (time.perf_counter() - start)
    return HeadRuns(outputs, times_ms, max(last - first - idle_mj, 0.0))


def _codec_costs(folder: ModelFolder, cut: Cut, crossing: list[tuple[Array, ...]]) -> Iterator[CodecCost]:
    version = folder.version
    for facts in version.plans:
        if facts.cut != cut.name or facts.codec == NO_CODEC:
            continue
        encode_activation(cut, facts, crossing[0])
        times_ms = []
        for arrays in crossing:
            began = time.perf_counter()
            encode_activation(cut, facts, arrays)
            times_ms.append((time.perf_counter() - began) * 1000)
        yield CodecCost(version.name, cut.name, facts.codec, _percentiles(times_ms)[0])


def _picture(folder: ModelFolder, frame: Pixels) -> Pixels:
    shape = folder.version.inputs[0].shape
    return fit(frame, shape[1], shape[2])[np.newaxis]


def _percentiles(times: list[float]) -> tuple[float, float]:
    return statistics.median(times), float(np.percentile(times, 95))


def main() -> int:
    """Profile the board this runs on, with nothing but what a device has installed."""
    parser = argparse.ArgumentParser(
        prog="python -m device_client.profiling",
        description="Measure what every plan costs this board and write its profile.",
        epilog="example: python -m device_client.profiling --models models --class pi4 --out pi4.json",
    )
    parser.add_argument("--models", type=Path, required=True, help="folder of model folders with heads")
    parser.add_argument("--out", type=Path, required=True, help="profile to write (JSON)")
    parser.add_argument("--class", dest="device_class", required=True, help="name of this kind of board")
    parser.add_argument("--frames", type=Path, help="pack of frames [the shipped one, else random pictures]")
    parser.add_argument("--runs", type=int, default=DEFAULT_RUNS, help="runs of every head [%(default)s]")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error(f"--runs is {arguments.runs}, allowed is 1 or more")
    try:
        profile = profile_device(
            load_catalog(arguments.models), sample_frames(arguments.frames, arguments.runs),
            device_class=arguments.device_class, runs=arguments.runs, meter=meters.find_power_meter(),
            progress=lambda what, done, total: print(f"{done}/{total} {what}", file=sys.stderr),
        )  # fmt: skip
        save_profile(profile, arguments.out)
    except (ModelsError, ProfileError, WireError, OSError) as error:
        print(f"device_client.profiling: {error}", file=sys.stderr)
        return 2
    print(f"{profile.device_class}: {len(profile.heads)} heads, energy {profile.energy_source}: {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
