"""Measures what every plan costs the machine this runs on, and returns it as a profile."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from device_client import meters
from device_client.camera import Pixels, fit
from device_client.energy import DEFAULT_ACTIVE_MW, DEFAULT_TX_MW
from tflite_models.activation import Array, encode_activation, frame_to_input
from tflite_models.catalog import Catalog, Cut, ModelFolder
from tflite_models.profile import CodecCost, DeviceProfile, HeadCost
from tflite_models.runtime import Submodel, runtime_name
from wire.plan import INPUT, NO_CODEC

WARM_UP_RUNS = 3
Progress = Callable[[str, int, int], None]
"""Called with what is measured next, how many are done, and how many there are."""


def profile_device(
    catalog: Catalog,
    frames: Sequence[Pixels],
    *,
    device_class: str,
    runs: int = 30,
    threads: int = 1,
    runtime: str | None = None,
    idle_power_mw: float = 0.0,
    active_power_mw: float = DEFAULT_ACTIVE_MW,
    tx_power_mw: float = DEFAULT_TX_MW,
    progress: Progress = lambda *_: None,
) -> DeviceProfile:
    """Run every head and codec ``runs`` times on real frames; energy is measured where the board has a meter.

    Without a meter, energy is ``active_power_mw`` times time, and the profile says ``modelled``.
    """
    meter = meters.find_power_meter()
    heads: list[HeadCost] = []
    codecs: list[CodecCost] = []
    steps = [(folder, cut) for folder in catalog.folders.values() for cut in folder.version.cuts]
    for done, (folder, cut) in enumerate(steps):
        version = folder.version
        progress(f"{version.name} at {cut.name}", done, len(steps))
        inputs = [frame_to_input(version.inputs[0], _picture(folder, frame)) for frame in frames[:runs]]
        crossing: list[tuple[Array, ...]]
        if cut.name == INPUT:
            crossing = [(_picture(folder, frame),) for frame in frames[:runs]]
        else:
            head = Submodel(folder.head(cut.name), threads=threads, prefer="light", runtime=runtime)
            before = meter.energy_mj() if meter else None
            began = time.perf_counter()
            crossing, times = _timed_heads(head, inputs, runs)
            elapsed_ms = (time.perf_counter() - began) * 1000
            after = meter.energy_mj() if meter else None
            p50, p95 = _percentiles(times)
            energy_mj = p50 * active_power_mw / 1000
            if before is not None and after is not None:
                energy_mj = max(after - before - idle_power_mw * elapsed_ms / 1000, 0.0) / runs
            heads.append(HeadCost(version.name, cut.name, p50, p95, energy_mj))
        codecs.extend(_codec_costs(folder, cut, crossing))
    progress("done", len(steps), len(steps))
    return DeviceProfile(
        device_class=device_class,
        board=meters.board_name(),
        runtime=runtime_name(runtime),
        energy_source="measured" if meter else "modelled",
        idle_power_mw=idle_power_mw,
        active_power_mw=active_power_mw,
        tx_power_mw=tx_power_mw,
        heads=tuple(heads),
        codecs=tuple(codecs),
    )


def _timed_heads(head: Submodel, inputs: list[Array], runs: int) -> tuple[list[tuple[Array, ...]], list[float]]:
    for _ in range(WARM_UP_RUNS):
        head.run(inputs[0])
    outputs, times = [], []
    for run in range(runs):
        began = time.perf_counter()
        outputs.append(head.run(inputs[run % len(inputs)]))
        times.append((time.perf_counter() - began) * 1000)
    return outputs, times


def _codec_costs(folder: ModelFolder, cut: Cut, crossing: list[tuple[Array, ...]]) -> Iterator[CodecCost]:
    version = folder.version
    for facts in version.plans:
        if facts.cut != cut.name or facts.codec == NO_CODEC:
            continue
        encode_activation(cut, facts, crossing[0])
        times = []
        for arrays in crossing:
            began = time.perf_counter()
            encode_activation(cut, facts, arrays)
            times.append((time.perf_counter() - began) * 1000)
        yield CodecCost(version.name, cut.name, facts.codec, _percentiles(times)[0])


def _picture(folder: ModelFolder, frame: Pixels) -> Pixels:
    shape = folder.version.inputs[0].shape
    return fit(frame, shape[1], shape[2])[np.newaxis]


def _percentiles(times: list[float]) -> tuple[float, float]:
    return statistics.median(times), float(np.percentile(times, 95))
