"""The command ``splitfleet bench report``: how long a report over a large store takes."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

SITE = "bench"
DEVICES = 20
PLANS = (("resnet-light", "s2", "q4"), ("resnet-heavy", "input", "webp50"), ("resnet-heavy", "output", "none"))
OUTCOMES = (*("edge",) * 6, *("device",) * 2, "fallback", "dropped")
BEGAN_MS = 1_700_000_000_000
TARGET_S = 5.0


@dataclass(frozen=True, slots=True)
class Run:
    """Reports over one store, each in a process of its own."""

    points: int
    store_mb: float
    report_s: tuple[float, ...]
    """From opening the store to every figure; per repeat."""
    cpu_s: tuple[float, ...]
    """Of one core, for the same; what the machine's other work leaves alone."""
    memory_mb: tuple[float, ...]
    """Peak of the process, interpreter and all."""


def report(
    points: Annotated[int, typer.Option(min=1, help="Inference points of the store, drawn at random.")] = 1_000_000,
    repeats: Annotated[int, typer.Option(min=1, help="Reports, one behind the other.")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure to this file.")] = None,
) -> None:
    """Measure how long every figure of a report over a store takes, and how much memory. Keep the machine idle.

    Example: splitfleet bench report --points 1000000 --json report.json
    """
    from tools.output import check_writable, print_table, progress_bar

    check_writable(json_file)
    with tempfile.TemporaryDirectory() as folder, progress_bar() as tell:
        path = Path(folder) / "points.sqlite"
        tell(f"writing {points:,} points", 0, repeats + 1)
        fill(path, points)
        taken = []
        for done in range(repeats):
            tell("reporting", done + 1, repeats + 1)
            frames, *figures = _apart(path)
            assert frames == points, f"the report is of {frames} frames"
            taken.append(figures)
        run = Run(points, path.stat().st_size / 1e6, *(tuple(column) for column in zip(*taken, strict=True)))
    if json_file is not None:
        json_file.write_text(
            json.dumps({"measured": True, "target_s": TARGET_S, **asdict(run)}, indent=2) + "\n", "utf-8"
        )
    print_table(
        "a report over the recorder's store (measured; median and range of the repeats)",
        ["points", "store, MB", "s", "processor, s", "peak memory, MB", "target, s"],
        [
            (
                points,
                run.store_mb,
                _spread(run.report_s, 2),
                _spread(run.cpu_s, 2),
                _spread(run.memory_mb, 0),
                f"< {TARGET_S:g} for 1,000,000",
            )
        ],
    )


def fill(path: Path, points: int) -> None:
    """Write a store of frames drawn at random, and for every fifth frame a row of telemetry and one of the ledger."""
    import sqlite3

    import numpy as np

    from edge_broker_side.points import INFERENCE, LEDGER, TELEMETRY, Measurement
    from edge_broker_side.store import Store, StoreSettings
    from edge_broker_side.store_file import insert_into

    Store(StoreSettings(str(path))).close()
    rng = np.random.default_rng(0)

    def frames() -> Iterator[tuple[int, dict[str, Any]]]:
        for number in range(1, points + 1):
            outcome = OUTCOMES[number * 7 % 10]
            yield (
                number,
                {
                    **_who(number), "outcome": outcome, "session": 1, "frame": number, "batch": 1,
                    "reason": {"fallback": "no-answer", "dropped": "overrun"}.get(outcome, ""),
                    "sent_bytes": 1000 + number % 500, "label": number % 10, "truth": number % 9,
                    **dict(zip(TIMED, (rng.random(len(TIMED), np.float32) * 100).tolist(), strict=True)),
                },
            )  # fmt: skip

    def others() -> Iterator[tuple[int, dict[str, Any]]]:
        for number in range(1, points + 1, 5):
            told = {"captured": number, "counted": number, "gap": 0, "folded": "{}"}
            said = {"session": 1, "seq": number, "uplink_bps": float(rng.random()) * 1e7, "battery_share": 0.5}
            yield points + number, {**_who(number), **told, **said}

    def rows(found: Iterator[tuple[int, dict[str, Any]]], measurement: Measurement) -> Iterator[tuple[Any, ...]]:
        for number, values in found:
            at_ms = BEGAN_MS + 10 * (number % points)
            yield (number, at_ms, at_ms, *(values.get(column.name) for column in measurement.columns))

    with closing(sqlite3.connect(path)) as db, db:
        for measurement, found in ((INFERENCE, frames()), (TELEMETRY, others()), (LEDGER, others())):
            db.executemany(insert_into(measurement), rows(found, measurement))


def _who(number: int) -> dict[str, Any]:
    version, cut, codec = PLANS[number // 1000 % len(PLANS)]
    plan = {"version": version, "cut": cut, "codec": codec, "energy_source": "modelled"}
    return {"site": SITE, "device": f"cam-{number // 5 % DEVICES}", **plan}


TIMED = ("latency_ms", "head_ms", "encode_ms", "network_ms", "wait_ms", "tail_ms", "energy_mj", "score")


def _apart(path: Path) -> list[float]:
    """Report in a process of its own; return its frames, seconds, processor seconds and peak memory in MB."""
    told = subprocess.run(
        [sys.executable, "-m", "tools.bench.report", str(path)], capture_output=True, text=True, check=True
    )
    figures: list[float] = json.loads(told.stdout)
    return figures


def _once(path: Path) -> tuple[int, float, float, float]:
    from edge_broker_side.reporting.assembly import make_report
    from edge_broker_side.reporting.figures import Scope
    from edge_broker_side.reporting.sqlite_source import open_store_source

    begun, begun_cpu = time.perf_counter(), time.process_time()
    with open_store_source(path, Scope(SITE)) as source:
        told = make_report(source, 0)
    spent_s, cpu_s = time.perf_counter() - begun, time.process_time() - begun_cpu
    return told.fleet.figures.frames, spent_s, cpu_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _spread(values: tuple[float, ...], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}–{max(values):.{digits}f}]"


if __name__ == "__main__":
    print(json.dumps(_once(Path(sys.argv[1]))))
