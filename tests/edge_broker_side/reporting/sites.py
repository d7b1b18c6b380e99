"""Points of a small site, drawn from a seed, with every corner that a report meets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge_broker_side.points import DECISION, INFERENCE, LEDGER, RECORDER, TELEMETRY, WORKER, Point
from edge_broker_side.store import Store, StoreSettings

SITE = "plant"
BEGAN_MS = 1_700_000_000_123
PLANS = (
    ("resnet light", "s2", "q4"),
    ("resnet,light=2", "input", "webp50"),
    ("=resnet\\<b>$heavy$" + "y" * 80, "output", ""),
)
REASONS = {"fallback": ("busy", "no-answer", "said 'it' \\ with, odd=marks"), "dropped": ("overrun", "client-died")}


def frames(count: int, seed: int = 0, site: str = SITE, devices: int = 3) -> Iterator[Point]:
    """Yield frames 250 ms apart over all devices, of every outcome, with gaps in every field that may be missing."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        version, cut, codec = PLANS[int(rng.integers(len(PLANS)))]
        outcome = str(rng.choice(("edge", "edge", "device", "fallback", "dropped")))
        times = rng.gamma(2.0, 20.0, 7).astype(np.float32).tolist()
        remote = outcome == "edge"
        values = {
            "site": site,
            "device": f"cam-{number % devices}",
            "version": version,
            "cut": cut,
            "codec": codec,
            "outcome": outcome,
            "reason": str(rng.choice(REASONS[outcome])) if outcome in REASONS else "",
            "energy_source": "measured" if number % 5 == 0 else "modelled",
            "session": 1,
            "frame": number,
            **dict(zip(("latency_ms", "head_ms", "encode_ms"), times, strict=False)),
            "network_ms": times[3] if remote else 0.0,
            "wait_ms": times[4] if remote else 0.0,
            "tail_ms": times[5] if remote else 0.0,
            "energy_mj": times[6],
            "score": None,
            "batch": int(rng.integers(1, 8)) if remote else 0,
            "sent_bytes": int(rng.integers(500, 50_000)) if remote else 0,
            "label": int(rng.integers(4)) if number % 7 else None,
            "truth": int(rng.integers(4)) if number % 3 else None,
        }
        yield Point(INFERENCE, BEGAN_MS + 250 * number, values)


def others(site: str = SITE, devices: int = 3) -> Iterator[Point]:
    """Yield ledgers, decisions, telemetry, a worker's and the recorder's periods."""
    rng = np.random.default_rng(1)
    names = [f"cam-{place}" for place in range(devices)]
    for step in range(60):
        at_ms = BEGAN_MS + 1000 * step
        for place, device in enumerate(names):
            version, cut, codec = PLANS[(step + place) % len(PLANS)]
            who = {"site": site, "device": device}
            plan = {"version": version, "cut": cut, "codec": codec}
            counted = 10 * step + place
            folded = {} if place == 0 else {"edge": step, "dropped": 2 * place}
            captured = {"captured": counted + 3 - place, "counted": counted, "gap": 3 - place}
            yield Point(LEDGER, at_ms, {**who, **captured, "folded": folded})
            rate = float(np.float32(rng.uniform(1e5, 1e7))) if place != 1 else None
            battery = float(np.float32(1 - step / 100)) if place == 2 else None
            told = {"session": 1, "seq": step, "decision_rev": 1, "in_flight": 0, "queued": 0, "replayed": False}
            telemetry: dict[str, Any] = {
                "uplink_bps": rate,
                "battery_share": battery,
                "counters": {},
                "energy_source": "modelled",
            }
            yield Point(TELEMETRY, at_ms, {**who, **plan, **told, **telemetry})
            reason = f"step {step}:\nlink at 2 Mbit/s, 'so' <script>alert(1)</script> \"it\" \\ is"
            decided = {"policy": "a2c", "rev": step, "sent_ms": at_ms, "deadline_ms": 600.0, "reason": reason}
            yield Point(DECISION, at_ms, {**who, **plan, **decided})
        for worker in ("edge-1", "edge-2"):
            served = int(rng.integers(0, 3)) if step % 4 else 0
            share = {"utilisation": float(np.float32(rng.random())), "batch_mean": float(served), "wait_ms_mean": 0.5}
            counts = {"queued": int(rng.integers(0, 9)), "arrived": served, "served": served, "busy": step % 3}
            period = {"site": site, "worker": worker, "session": 1, "sent_ms": at_ms, "period_ms": 1000.0}
            yield Point(WORKER, at_ms, {**period, **share, **counts, "service_ms": {}, "counters": {}})
        yield Point(
            RECORDER,
            at_ms,
            {"site": site, "recorder": "recorder", "session": 1, "sent_ms": at_ms, "points": 1, "waiting": step},
        )


def write_site(path: Path, count: int = 600) -> Store:
    """Write a store with a site, and some points of another, and leave it open, as a recorder does."""
    store = Store(StoreSettings(str(path)))
    store.write([*frames(count), *others(), *frames(20, seed=7, site="elsewhere")])
    return store
