"""Scenarios: what kind of site is simulated, read from versioned files."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dacite

from policy.errors import PolicyError

FOLDER = Path(__file__).parent / "scenarios"
SCHEMA = 1
Range = tuple[float, float]
"""Least and greatest; drawn uniformly in the logarithm."""


@dataclass(frozen=True)
class Scenario:
    """One kind of site. Everything random is drawn per site (a fleet with its edge) from these ranges."""

    name: str
    title: str
    version: int = 1
    """Rises with every change of the file that changes results."""
    table: str = "zoo"
    """``zoo`` or ``tx2``: the measured plans that sites are made of."""
    families: tuple[str, ...] = ("resnet", "vgg", "densenet")
    """A site has the versions of one family, drawn from these."""
    mixed_families: bool = False
    """True: a site has all of them."""
    spread: float = 0.0
    """How much the costs of each version vary between sites (standard deviation of the logarithm)."""
    most_plans: int = 40
    devices: int = 8
    periods: int = 60
    period_s: float = 1.0
    slowdown: Range = (80.0, 300.0)
    """Of each device's board, over the one that was measured."""
    deadline_ms: Range = (200.0, 600.0)
    fps: Range = (1.0, 4.0)
    weights: str = "mixed"
    """``equal``, ``accuracy`` (none of it may be lost), ``mixed`` (drawn per device) or ``demanding`` (drawn, with
    little regard to energy)."""
    demand: Range = (1.5, 3.0)
    """Utilisation of the edge if every device sent its input to the dearest version: sets how fast the edge is."""
    interpreters: int = 1
    edge_of: int = 0
    """Above 0: the edge is as fast as ``demand`` asks for so many devices, however many there are."""
    uplink_mbps: tuple[float, ...] = (0.13, 1.1, 5.85, 8.0, 18.88, 20.0)
    """Links that a device moves between."""
    uplink_switch: float = 0.02
    """Chance per period of moving to another link."""
    uplink_jitter: float = 0.12
    """Standard deviation of the change of the rate's logarithm per period; it returns to the link's own rate."""
    uplink_noise: float = 0.05
    """Standard deviation of the measured rate's logarithm."""
    rtt_ms: Range = (5.0, 60.0)
    outage: float = 0.0
    """Chance per period that a time of trouble begins for one device's link, in which it drops out again and again."""
    site_outage: float = 0.0
    """The same for half of the site at once."""
    outage_periods: float = 20.0
    """Mean length of such a time."""
    drop: float = 1.0
    """Chance per period, in times of trouble, that the link drops out."""
    drop_periods: float = 1e9
    """Mean length of one drop-out."""
    outage_mbps: float = 0.02
    burst: float = 0.0
    """Chance per period that a burst begins in which the whole site offers more frames."""
    burst_periods: float = 10.0
    burst_factor: Range = (2.0, 4.0)
    day: bool = False
    """True: frame rates follow a day with busy and calm hours."""
    battery: Range | None = None
    """Charge, from 0 (the day on the lightest local plans, with a little to spare) to 1 (on the plans that are best
    without regard to it); ``None``: mains."""
    edge_truth: Range = (1.0, 1.0)
    """How much longer tails really take than the profile says; one factor per site."""
    calibrated: bool = True
    """Whether measured utilisation scales the edge's profile."""
    telemetry_delay: tuple[int, int] = (0, 0)
    """Least and greatest age, in periods, of what is known of a device; redrawn now and then."""
    discount: float = 0.0
    """Of rewards to come, in training; 0 where nothing is carried from one period to the next."""

    def __post_init__(self) -> None:
        if self.weights not in ("equal", "accuracy", "mixed", "demanding"):
            raise PolicyError(
                f"scenario {self.name}: weights = '{self.weights}': allowed are equal, accuracy, mixed, demanding"
            )
        if self.table not in ("zoo", "tx2"):
            raise PolicyError(f"scenario {self.name}: table = '{self.table}': allowed are zoo, tx2")
        if min(self.devices, self.periods, self.interpreters) < 1:
            raise PolicyError(f"scenario {self.name}: devices, periods and interpreters must be at least 1")


def load_scenario(name: str, folder: Path = FOLDER) -> Scenario:
    """Read ``<name>.toml``; raises ``PolicyError`` naming the scenarios there are, or the key that is wrong."""
    path = folder / f"{name}.toml"
    if not path.is_file():
        raise PolicyError(f"no scenario '{name}': there are {', '.join(names(folder))}")
    try:
        raw: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{path} is not TOML: {error}") from error
    if raw.pop("schema", None) != SCHEMA:
        raise PolicyError(f"{path} is not a scenario of schema {SCHEMA}")
    try:
        return dacite.from_dict(Scenario, {"name": name, **raw}, dacite.Config(cast=[tuple, float], strict=True))
    except (dacite.DaciteError, TypeError, ValueError) as error:
        raise PolicyError(f"{path}: {error}") from error


def names(folder: Path = FOLDER) -> list[str]:
    """Return the scenarios there are, in order."""
    return sorted(path.stem for path in folder.glob("*.toml"))


@dataclass(frozen=True)
class Suite:
    """Scenarios that are evaluated together."""

    name: str
    scenarios: tuple[Scenario, ...]


def load_suite(name: str) -> Suite:
    """Return a suite: ``standard`` is every scenario; a scenario's own name, that one alone."""
    wanted = names() if name == "standard" else [name]
    return Suite(name, tuple(load_scenario(one) for one in wanted))
