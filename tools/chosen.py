"""The settings of a command: from a file, or from the options that were typed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, TypeVar

import typer

S = TypeVar("S")


def typed(**options: Any) -> dict[str, Any]:
    """Return what was typed, as a settings file would hold it."""
    told = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    return {key: value for key, value in told.items() if value is not None and value != {}}


def settings_of(cls: type[S], file: Path | None, given: dict[str, Any], usual: dict[str, Any]) -> S:
    """Read the settings file, or make settings of the options; both at once would leave one of them unheard."""
    from wire.settings import load_settings, settings_from

    if file is None:
        whole = {key: str(value) if isinstance(value, Path) else value for key, value in usual.items()} | given
        return settings_from(cls, whole, "options")
    if given:
        raise typer.BadParameter(f"a settings file takes the place of options: set {', '.join(given)} in {file}")
    return load_settings(cls, file)


def log_at(level: str) -> None:
    """Log to stderr from ``level`` up; raises ``SettingsError`` for a word that is none."""
    from wire.logs import start_logging
    from wire.settings import SettingsError

    if level.upper() not in logging.getLevelNamesMapping():
        raise SettingsError(f"log_level = '{level}' is not one of debug, info, warning, error")
    start_logging(level.upper(), "%(asctime)s %(levelname)s %(name)s: %(message)s")
