"""The demo's script: emulated boards, their links, and what happens to them while it runs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tools.shaping import Change, Outage, preset


@dataclass(frozen=True, slots=True)
class Board:
    """A kind of emulated board: this machine, slowed by a stated factor."""

    device_class: str
    slowdown: float


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens to a device's link, at a share of the demo's length."""

    at: float
    words: str
    change: Change


@dataclass(frozen=True, slots=True)
class DemoDevice:
    """One device of the demo."""

    name: str
    board: Board
    link: str
    """Preset the run begins with."""
    fps: float
    deadline_ms: float
    weights: tuple[float, float, float]
    """KPI weights of accuracy, latency, energy."""
    may_ship_input: bool = True
    events: tuple[Event, ...] = ()
    burst_fps: float | None = None
    """Frame rate between the shares 0.55 and 0.8 of the run: the load changes, too."""


BURST = (0.55, 0.8)
FAST = Board("emulated-8x", 8.0)
MIDDLE = Board("emulated-25x", 25.0)
SLOW = Board("emulated-60x", 60.0)


def _shaped(at: float, name: str) -> Event:
    return Event(at, f"link now {name} Mbit/s", preset(name))


_CAST = (
    DemoDevice("cam-1", MIDDLE, "20", 5.0, 400.0, (0.5, 0.3, 0.2), burst_fps=15.0),
    DemoDevice("cam-2", SLOW, "8", 3.0, 800.0, (0.5, 0.4, 0.1), events=(_shaped(0.3, "0.13"), _shaped(0.7, "5.85"))),
    DemoDevice(
        "cam-3", MIDDLE, "5.85", 4.0, 600.0, (0.6, 0.2, 0.2),
        events=(
            Event(0.35, "link cut", Outage(down=True, cut=False)),
            Event(0.55, "link back", Outage(down=False)),
        ),
    ),
    DemoDevice("cam-4", SLOW, "1.1", 4.0, 500.0, (0.4, 0.2, 0.4), may_ship_input=False),
)  # fmt: skip


def cast(count: int) -> tuple[DemoDevice, ...]:
    """Return that many devices: the four of the script, then more of their kinds with steady links."""
    links: Sequence[str] = ("18.88", "5.85", "1.1", "8")
    extra = tuple(
        DemoDevice(
            f"cam-{number + 1}", (FAST, MIDDLE, SLOW)[number % 3], links[number % 4], 3.0, 600.0, (0.4, 0.3, 0.3)
        )
        for number in range(len(_CAST), count)
    )
    return _CAST[:count] + extra
