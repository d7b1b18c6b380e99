"""What an evaluation found, and the JSON it is kept in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from policy.errors import PolicyError

SCHEMA = 1


class Shares(TypedDict):
    """Shares of frames by outcome; they sum to 1."""

    edge: float
    device: float
    fallback: float
    """Planned for the edge, finished on the device because the edge did not answer in time."""
    dropped: float


class PlanShare(TypedDict):
    """How much a plan was used."""

    plan: str
    """``version/cut/codec``"""
    share: float
    """Of device-periods."""


class Regret(TypedDict):
    """What was lost against the clairvoyant oracle up to each period: reward per device, summed over periods."""

    period: list[int]
    cumulated: list[float]
    """Mean over devices, fleets and seeds; as long as ``period`` (60 points at most)."""


class Change(TypedDict):
    """Change against running the most accurate version on the device."""

    latency_percent: float
    """Negative: faster."""
    energy_percent: float
    accuracy_points: float
    """In percentage points."""


class PolicyResult(TypedDict):
    """One policy in one scenario."""

    score: float
    """(policy − random) / (oracle − random), per seed, then the mean; the oracle is named by ``oracle``."""
    score_ci95: list[float]
    """[low, high] by Student's t over seeds."""
    score_observed: float
    """The same against the oracle that knows no more than the policies do."""
    score_observed_ci95: list[float]
    reward: float
    """Mean per device and period."""
    reward_ci95: list[float]
    reward_by_seed: list[float]
    latency_ms_p50: float
    """Over device-periods, each weighing as many frames as it offered."""
    latency_ms_p95: float
    energy_mj: float
    """Mean per frame."""
    accuracy: float
    """Mean per frame."""
    shares: Shares
    plan_mix: list[PlanShare]
    """The plans used most, most used first; what is left is the entry ``others``."""
    switches: float
    """Changes of plan per device and period."""
    dead: float
    """Share of device-periods with an empty battery."""
    regret: Regret
    decide_ms: float
    """Wall time per decision of one site (all its devices), measured while all fleets were decided together."""
    against_local_heavy: NotRequired[Change]


class Difference(TypedDict):
    """One policy less another, paired by seed."""

    reward: float
    ci95: list[float]
    """Of ``reward``."""
    score: float
    score_ci95: list[float]


class Results(TypedDict):
    """A whole evaluation. Policies lie directly below the name of their scenario."""

    schema: int
    suite: str
    command: str
    modelled: bool
    seeds: list[int]
    fleets: int
    """Sites per scenario and seed; large ones are played in fewer: ``fleets_of`` has the number of each."""
    fleets_of: dict[str, int]
    seconds: float
    titles: dict[str, str]
    versions: dict[str, int]
    """Of the scenario files."""
    oracle: dict[str, str]
    """Per scenario: the policy that ``score`` is measured against (score 1)."""
    policies: list[str]
    """In the order of tables."""
    scenarios: dict[str, dict[str, PolicyResult]]
    differences: dict[str, dict[str, Difference]]
    """Per scenario: ``a2c-sequential`` and so on."""


def save_json(results: Results, path: Path) -> None:
    """Write results; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    fresh.replace(path)


def load_json(path: Path) -> Results:
    """Read results; raises ``PolicyError`` where the file is none, or of another schema."""
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PolicyError(f"cannot read the results in {path}: {error}") from error
    missing = sorted(Results.__required_keys__ - set(raw)) if isinstance(raw, dict) else ["everything"]
    if missing or raw["schema"] != SCHEMA:
        lack = f": it lacks {', '.join(missing)}" if missing else ""
        raise PolicyError(f"{path} holds no results of schema {SCHEMA}{lack}; run the evaluation again")
    return cast(Results, raw)
