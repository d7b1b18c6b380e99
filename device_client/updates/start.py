"""How a client starts: with the settings and the release that updates brought, and without them where they fail.

The flashed client always starts first and is never changed. It counts the start, so that a release that cannot even be
imported is left after a few of them, and then becomes the newer one by ``exec``: the process keeps its number.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_client.settings import DeviceSettings
from device_client.updates.shelf import Shelf, stocked
from wire.bundle import CLIENT, ONLY_FILE, SETTINGS
from wire.messages import UpdateStage
from wire.settings import SettingsError, load_settings, settings_from

log = logging.getLogger(__name__)

FIXED = frozenset({"site", "name", "models", "state", "profile", "updates"})
"""Settings that say who and where a board is: an update may not change them."""
BECAME, BEFORE = "SPLITFLEET_CLIENT", "SPLITFLEET_BEFORE"
"""Environment: the wheel that this process became, with its number; and how to be what it was before."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a client starts with."""

    settings: DeviceSettings
    file: Path
    shelf: Shelf | None = None
    """Taken stock of for this start; ``None``: the board takes no updates."""


def begin(path: Path) -> Start:
    """Take stock, become the release that an update brought, and return what to start with.

    Raises ``SettingsError`` or ``DeviceError``.
    """
    flashed = load_settings(DeviceSettings, path)
    if flashed.updates is None:
        return Start(flashed, path)
    shelf = Shelf(flashed.state / "updates", flashed.models)
    if os.environ.get(BECAME) != _mark(shelf.in_use(f"@{CLIENT}")):  # else this start has been counted
        shelf = stocked(flashed)
        wheel = shelf.in_use(f"@{CLIENT}")
        if wheel is not None:
            _become(wheel)
    fragment = shelf.in_use(f"@{SETTINGS}")
    if fragment is None:
        return Start(flashed, path, shelf)
    try:
        return Start(laid_over(path, fragment / ONLY_FILE[SETTINGS]), path, shelf)
    except SettingsError as error:
        trial = shelf.held.trial
        if trial is not None and trial.slot == f"@{SETTINGS}":
            shelf.end(trial.rev, trial.bundle, UpdateStage.ROLLED_BACK, str(error))
        log.error("the settings that an update brought are left out: %s", error)
        return Start(flashed, path, shelf)


def laid_over(path: Path, fragment: Path) -> DeviceSettings:
    """Return a board's settings with those of a fragment in their place, table by table; raises ``SettingsError``."""
    load_settings(DeviceSettings, path)
    try:
        raw, over = tomllib.loads(path.read_text(encoding="utf-8")), tomllib.loads(fragment.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{fragment} is not TOML: {error}") from error
    forbidden = sorted(FIXED & over.keys())
    if forbidden:
        raise SettingsError(f"an update may not change {', '.join(forbidden)}: that is flashed")
    return settings_from(DeviceSettings, _merged(raw, over), str(fragment))


def _merged(raw: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(raw)
    for key, value in over.items():
        held = merged.get(key)
        merged[key] = _merged(held, value) if isinstance(held, dict) and isinstance(value, dict) else value
    return merged


def environment_of(wheel: Path) -> dict[str, str]:
    """Return the environment in which Python takes the client out of a wheel, and the rest from where it is."""
    there = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": f"{wheel}{os.pathsep}{there}" if there else str(wheel)}


def _mark(wheel: Path | None) -> str:
    return f"{os.getpid()} {wheel}"


def _become(folder: Path) -> None:
    before = json.dumps([sys.orig_argv, os.environ.get("PYTHONPATH")])
    environment = {**environment_of(folder / ONLY_FILE[CLIENT]), BECAME: _mark(folder), BEFORE: before}
    # -P: a folder that happens to be the current one must not come before the wheel.
    command = [sys.executable, "-P", "-m", "device_client", *sys.argv[1:]]
    os.execve(sys.executable, command, environment)


def start_again() -> None:
    """Start as this process was started at first: the flashed client, which then looks what there is to become."""
    command, path = json.loads(os.environ.get(BEFORE) or json.dumps([sys.orig_argv, os.environ.get("PYTHONPATH")]))
    environment = {key: value for key, value in os.environ.items() if key not in (BECAME, BEFORE, "PYTHONPATH")}
    os.execve(sys.executable, [sys.executable, *command[1:]], environment | ({"PYTHONPATH": path} if path else {}))
