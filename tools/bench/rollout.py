"""The command ``splitfleet bench rollout``: a version comes to hundreds of devices, and some are killed on the way."""

from __future__ import annotations

import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from edge_broker_side.broker import BrokerSettings, start_broker
from edge_broker_side.rollout.campaign import Fate, Status, Terms, parse_stages
from edge_broker_side.rollout.store import Rollout, RolloutStore
from edge_broker_side.store import StoreError
from edge_broker_side.totals import Totals, totals
from tools.bench.rollout_site import PER_PROCESS, SITE, BenchSite
from tools.output import console, print_json, print_table, progress_bar
from tools.prepared import Progress
from tools.supervisor import Supervisor, SupervisorError

KILL_WITHIN_S = 5.0
"""A device that is to die dies at random within so long after it began its update."""
DOWN_S = (0.2, 3.0)
"""How long it stays dead."""
POLL_S = 0.1
PATIENCE_S = 300.0
SETTLE_S = 60.0
"""How long the recorder may take for the last lines."""


class RolloutBenchError(SupervisorError):
    """The roll-out did not come to its end."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One run; times measured on this machine, which plays all devices, broker and servers."""

    devices: int
    killed: int
    seed: int
    bundle_bytes: int
    seconds: float
    """From the start of the roll-out until every device was active."""
    stage_seconds: tuple[float, ...]
    """When each stage was passed, since the start."""
    on_new_version: int
    wrong: tuple[str, ...]
    captured: int
    recorded: int
    waiting: int
    """Frames whose line is still on a device's disk."""
    unaccounted: int
    outcomes: dict[str, int]
    killed_while: dict[str, int]
    """Stage in which devices were when they were killed, as they had last told."""


def rollout(
    devices: Annotated[int, typer.Option("--devices", min=2, max=2000, help="How many devices.")] = 200,
    killed: Annotated[float, typer.Option("--killed", min=0, max=1, help="Share that is killed on the way.")] = 0.1,
    fps: Annotated[float, typer.Option("--fps", min=0.1, max=10, help="Frames per second of each device.")] = 1.0,
    stages: Annotated[str, typer.Option("--stages", help="Stages of the roll-out.")] = "5%,25%,100%",
    seed: Annotated[int, typer.Option("--seed", help="Of who is killed, and when.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Roll a version out to real device clients on this machine, and kill some with SIGKILL at random moments.

    Afterwards every device must have exactly one committed version, the new one, and every frame exactly one outcome;
    exit 1 where that is not so.

    Example: splitfleet bench rollout --devices 200 --json
    """
    with progress_bar() as show, tempfile.TemporaryDirectory(prefix="splitfleet-bench-") as folder:
        told = measure(Path(folder), devices, killed, fps, stages, seed, show)
    if as_json:
        print_json(asdict(told))
    else:
        print_table(
            f"a roll-out to {told.devices} devices on this machine, {told.killed} of them killed (measured)",
            ("seconds", "on the new version", "frames", "recorded", "on disks", "unaccounted"),
            [(told.seconds, told.on_new_version, told.captured, told.recorded, told.waiting, told.unaccounted)],
        )
        for line in told.wrong:
            console().print(line, soft_wrap=True)
    if told.unaccounted or told.wrong:
        raise typer.Exit(1)


def measure(folder: Path, devices: int, killed: float, fps: float, stages: str, seed: int, show: Progress) -> Figures:
    """Run it in ``folder``; raises ``RolloutBenchError`` where it does not come to its end."""
    names = [f"cam-{number:04}" for number in range(devices)]
    rng = random.Random(seed)
    victims = sorted(rng.sample(names, math.ceil(killed * devices)))
    others = [name for name in names if name not in victims]
    terms = Terms(parse_stages(stages), limit_s=120.0, trial_frames=3)
    broker_settings = BrokerSettings(folder=str(folder / "broker"), port=0, log_file=str(folder / "broker.log"))
    with start_broker(broker_settings) as broker, Supervisor(folder / "logs") as processes:
        site = BenchSite(folder, broker.port, processes, fps)
        site.start_servers()
        for start in range(0, len(others), PER_PROCESS):
            site.start_devices(f"devices-{start}", others[start : start + PER_PROCESS])
        for name in victims:
            site.start_devices(name, [name])
        run = _Run(site, processes, victims, rng, show)
        run.wait_all_there(names)
        seconds, stage_seconds = run.roll_out(terms, names)
        run.wait_recorded(names)
        fleet = [name for name in processes.names() if name not in ("recorder", "rollout")]
        codes = processes.stop(fleet, timeout_s=SETTLE_S)
        if any(codes.values()):
            raise RolloutBenchError(f"devices ended badly: {codes}")
        held, counted = site.held(names), run.totals()
    return Figures(
        devices, len(victims), seed, site.bundle.manifest.size, seconds, stage_seconds, held.on_new, held.wrong,
        counted.captured, sum(counted.outcomes.values()), held.waiting, counted.gap - held.waiting,
        dict(counted.outcomes), dict(run.killed_while),
    )  # fmt: skip


class _Run:
    """The course of one roll-out: who dies when, and when it is over."""

    def __init__(
        self, site: BenchSite, processes: Supervisor, victims: Sequence[str], rng: random.Random, show: Progress
    ) -> None:
        self.killed_while: Counter[str] = Counter()
        self._site = site
        self._processes = processes
        self._rng = rng
        self._show = show
        self._spared = set(victims)
        self._kill_at: dict[str, float] = {}
        self._start_at: dict[str, float] = {}

    def totals(self) -> Totals:
        """Return what the recorder has of the whole fleet."""
        return totals(self._site.records, SITE).fleet

    def wait_all_there(self, names: Sequence[str]) -> None:
        """Wait until every device has had a frame recorded."""

        def there() -> int:
            try:
                return len(totals(self._site.records, SITE).devices)
            except StoreError:  # the recorder has not made it yet
                return 0

        self._wait(lambda: there() == len(names), f"{len(names)} devices at work", there, len(names))

    def roll_out(self, terms: Terms, names: Sequence[str]) -> tuple[float, tuple[float, ...]]:
        """Begin, kill, start again, and wait until every device is active; return when that was, and the stages."""
        store = self._site.store()
        began_s = time.monotonic()
        begun = store.begin(self._site.bundle.manifest, "tag=bench", terms, time.time())
        passed: list[float] = []

        def active() -> int:
            now, since_s = store.get(begun.id), time.monotonic() - began_s
            if now.status is Status.STOPPED:
                raise RolloutBenchError(f"the roll-out stopped by itself: {now.reason}")
            while len(passed) < now.stage:
                passed.append(since_s)
            self._strike(store, begun)
            return sum(fate is Fate.ACTIVE for fate in store.fates(begun).values())

        self._wait(lambda: active() == len(names) and not self._owed, "devices active", active, len(names))
        store.close()
        seconds = time.monotonic() - began_s
        return seconds, (*passed, seconds)

    def wait_recorded(self, names: Sequence[str]) -> None:
        """Wait until the recorder knows a frame of every device that came after the roll-out."""
        before = {name: one.captured for name, one in totals(self._site.records, SITE).devices.items()}

        def later() -> int:
            now = totals(self._site.records, SITE).devices
            return sum(now[name].captured > before[name] for name in names)

        self._wait(lambda: later() == len(names), "devices recorded to the end", later, len(names))

    @property
    def _owed(self) -> bool:
        return bool(self._spared or self._kill_at or self._start_at)

    def _strike(self, store: RolloutStore, begun: Rollout) -> None:
        now_s = time.monotonic()
        members = {member.device: member for member in store.members(begun)}
        for name in sorted(self._spared):
            if name in members and members[name].stage is not None:  # it has begun
                self._spared.discard(name)
                self._kill_at[name] = now_s + self._rng.uniform(0, KILL_WITHIN_S)
        for name, at_s in list(self._kill_at.items()):
            if now_s >= at_s:
                del self._kill_at[name]
                self._processes.kill(name)
                self.killed_while[str(members[name].stage)] += 1
                self._start_at[name] = now_s + self._rng.uniform(*DOWN_S)
        for name, at_s in list(self._start_at.items()):
            if now_s >= at_s:
                del self._start_at[name]
                self._site.start_devices(name, [name])

    def _wait(self, reached: Callable[[], bool], what: str, done: Callable[[], int], total: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            self._processes.check()
            count = done()
            self._show(what, count, total)
            if time.monotonic() > deadline:
                raise RolloutBenchError(f"after {PATIENCE_S:.0f} s only {count} of {total} {what}")
            time.sleep(POLL_S)
