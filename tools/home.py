"""Where splitfleet keeps what it makes on this machine: prepared models, profiles and sites."""

from __future__ import annotations

import os
from pathlib import Path

ENVIRONMENT = "SPLITFLEET_HOME"


def home() -> Path:
    """Return ``$SPLITFLEET_HOME``, else ``splitfleet`` in the user's data folder."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        return Path(named)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local/share") / "splitfleet"


def zoo_folder() -> Path:
    """The user's own versions: ``$SPLITFLEET_ZOO``, else a folder beside the rest."""
    named = os.environ.get("SPLITFLEET_ZOO")
    return Path(named) if named else home() / "zoo"


def store_folder() -> Path:
    """Every version, shipped and local, with heads and tails."""
    return home() / "store"


def demo_store_folder() -> Path:
    """The versions of the demo with heads and tails: the shipped ones alone, so that every run has the same."""
    return home() / "demo-store"


def profiles_folder() -> Path:
    """Profiles measured on this machine."""
    return home() / "profiles"


def site_folder(site: str) -> Path:
    """Everything of one site that runs on this machine: settings, logs, the recorder's store."""
    return home() / "sites" / site
