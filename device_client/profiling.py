"""Measures what every plan costs the machine this runs on; a board calls ``python -m device_client.profiling``."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from device_client import meters
from device_client.camera import CaptureThread, PackCamera, Pixels, fit
from device_client.energy import DEFAULT_ACTIVE_MW, DEFAULT_TX_MW
from device_client.ledger import Ledger
from device_client.meters import PowerMeter
from device_client.settings import CameraSettings
from tflite_models.activation import Array, encode_activation, frame_to_input
from tflite_models.catalog import Catalog, Cut, ModelFolder, ModelsError, load_catalog
from tflite_models.pack import load_pack, shipped_pack
from tflite_models.profile import CodecCost, DeviceProfile, HeadCost, ProfileError, save_profile
from tflite_models.runtime import Submodel, runtime_name
from wire.errors import WireError
from wire.inbox import Inbox
from wire.messages import FrameOutcome, Outcome
from wire.plan import INPUT, NO_CODEC, OUTPUT, Plan

WARM_UP_RUNS = 3
DEFAULT_RUNS = 30
PAUSE_S = 0.01
"""Before each timed run, as between two frames of a camera: in a tight loop caches and processor stay warm, and a small
head then takes half of what it takes a client. Longer pauses change little more."""
CODEC_RUNS = 8
OVERHEAD_FRAMES, OVERHEAD_FPS = 40, 40.0
IDLE_S = 2.0
"""How long a board with a meter is watched at rest, to know what it draws above that."""
IDLE_READINGS = 40
Progress = Callable[[str, int, int], None]
"""Called with what is measured next, how many are done, and how many there are."""


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
    """Run every head ``runs`` times and its codecs on real frames, each run after a pause.

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
        crossing: list[tuple[Array, ...]] = [(_picture(folder, frame),) for frame in frames[:runs]]
        if cut.name != INPUT:
            head = Submodel(folder.head(cut.name), threads=threads, prefer="light", runtime=runtime)
            inputs = [frame_to_input(version.inputs[0], picture) for (picture,) in crossing]
            crossing, times_ms = _run_head(folder, head, frames[:runs], runs)
            p50, p95 = _percentiles(times_ms)
            power_mw = active_power_mw
            if meter is not None and idle_power_mw is not None:
                ran_ms, drawn_mj = _metered(head, inputs, runs, meter, idle_power_mw)
                busy_ms, busy_mj = busy_ms + ran_ms, busy_mj + drawn_mj
                power_mw = drawn_mj / ran_ms * 1000
            heads.append(HeadCost(version.name, cut.name, p50, p95, p50 * power_mw / 1000))
        codecs.extend(_codec_costs(folder, cut, crossing[:CODEC_RUNS]))
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
        frame_overhead_ms=client_overhead_ms(frames),
    )


def sample_frames(pack: Path | None, runs: int) -> list[Pixels]:
    """Return frames from all over a pack, or the shipped one; without it random pictures, whose codecs cost alike."""
    if pack is not None or shipped_pack().is_file():
        frames = load_pack(pack or shipped_pack())[0]
        return list(frames[:: max(len(frames) // runs, 1)][:runs])
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
    folder: ModelFolder, head: Submodel, frames: Sequence[Pixels], runs: int
) -> tuple[list[tuple[Array, ...]], list[float]]:
    """Return the outputs for the frames and the time of each run, with what brings a frame into the head's shape."""
    spec = folder.version.inputs[0]
    head.run(frame_to_input(spec, _picture(folder, frames[0])))
    outputs: list[tuple[Array, ...]] = []
    times_ms: list[float] = []
    for run in range(runs):
        time.sleep(PAUSE_S)
        began = time.perf_counter()
        output = head.run(frame_to_input(spec, _picture(folder, frames[run % len(frames)])))
        times_ms.append((time.perf_counter() - began) * 1000)
        if len(outputs) < len(frames):
            outputs.append(output)
    return outputs, times_ms


def _metered(
    head: Submodel, inputs: list[Array], runs: int, meter: PowerMeter, idle_power_mw: float
) -> tuple[float, float]:
    """Return the time of ``runs`` without a pause, ms, and what they drew above idle, mJ (0 where the meter failed)."""
    for _ in range(WARM_UP_RUNS):
        head.run(inputs[0])
    first = last = meter.energy_mj()
    start = time.perf_counter()
    for run in range(runs):
        head.run(inputs[run % len(inputs)])
        last = meter.energy_mj()  # after every run, for a meter that knows the power of the moment only
    ran_s = time.perf_counter() - start
    drawn_mj = 0.0 if first is None or last is None else max(last - first - idle_power_mw * ran_s, 0.0)
    return ran_s * 1000, drawn_mj


def client_overhead_ms(frames: Sequence[Pixels]) -> float:
    """Return what the client adds to a frame beside head, codec and link, ms: median over frames taken at a rate.

    It is the way from the camera's thread to the loop, and opening the frame in the ledger.
    """
    camera = PackCamera(np.stack(frames), np.zeros(len(frames), np.uint8), 0)
    inbox = Inbox()
    times_ms: list[float] = []

    def notify() -> None:
        inbox.put(None)

    with tempfile.TemporaryDirectory(prefix="splitfleet-profile-") as folder:
        ledger = Ledger(Path(folder) / "ledger.sqlite", OVERHEAD_FRAMES * 2)
        settings = CameraSettings(fps=OVERHEAD_FPS, limit=OVERHEAD_FRAMES, queue=OVERHEAD_FRAMES)
        capture = CaptureThread(camera, settings, notify)
        capture.start()
        while not capture.finished or capture.queued:
            inbox.take(0.1)
            while (picture := capture.take()) is not None:
                number = ledger.open_frame(Plan("profiled", OUTPUT, NO_CODEC), picture.captured_ms)
                times_ms.append((time.monotonic_ns() - picture.captured_ns) / 1e6)
                ledger.close_frame(FrameOutcome(number, Outcome.DEVICE, 0, picture.captured_ms, times_ms[-1]))
        capture.stop()
        ledger.close()
    return statistics.median(times_ms)


def _codec_costs(folder: ModelFolder, cut: Cut, crossing: list[tuple[Array, ...]]) -> Iterator[CodecCost]:
    version = folder.version
    for facts in version.plans:
        if facts.cut != cut.name or facts.codec == NO_CODEC:
            continue
        encode_activation(cut, facts, crossing[0])
        times_ms = []
        for arrays in crossing:
            time.sleep(PAUSE_S)
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
