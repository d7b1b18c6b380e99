"""Which site a report is about, and where its points are: from options, from settings, or found on this machine."""

from __future__ import annotations

import dataclasses
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from edge_broker_side.errors import EdgeError
from edge_broker_side.influx_settings import InfluxSettings
from edge_broker_side.recorder import RecorderSettings
from tools.home import home, site_folder
from wire.channels import check_name
from wire.settings import load_settings

SETTINGS = "recorder.toml"
QUERY_TIMEOUT_S = 120.0
"""Percentiles of millions of points take a server longer than a write."""


class NoPlace(EdgeError):
    """It is not clear what to report about; the message says which option settles it."""


@dataclass(frozen=True, slots=True)
class Place:
    """One site and its points: in a store, or on a server."""

    site: str
    store: Path | None = None
    influx: InfluxSettings | None = None
    why: str = ""
    """How the site was found, where nobody named it."""


def find_place(site: str, settings: Path | None, store: Path | None, url: str, database: str, *, remote: bool) -> Place:
    """Return what the options mean; raises ``NoPlace``, or ``SettingsError`` for a file that cannot be used."""
    if site:
        check_name(site, "site")
    if store is not None and not remote:
        return Place(site or _only_site(store), store)
    if remote and url and site:
        return Place(site, influx=_server(None, url, database))
    why = ""
    if settings is None:
        settings = site_folder(site) / SETTINGS if site else written_last()
        why = "" if site else f"site of {settings.parent}: of those on this machine it was written last"
        if not settings.is_file():
            raise NoPlace(
                f"there is no {settings}: name the recorder's file with --settings, or its store with --store"
            )
    told = load_settings(RecorderSettings, settings)
    if site and told.site != site:
        raise NoPlace(f"{settings} is of site {told.site}, not of {site}")
    if remote:
        return Place(told.site, influx=_server(told.influx, url, database), why=why)
    return Place(told.site, Path(told.store.path), why=why)


def _server(told: InfluxSettings | None, url: str, database: str) -> InfluxSettings:
    if told is None and not url:
        raise NoPlace("the recorder's settings name no metrics server: give its address with --influx")
    try:
        found = InfluxSettings(url) if told is None else dataclasses.replace(told, url=url or told.url)
        timeout_s = max(found.timeout_s, QUERY_TIMEOUT_S)
        return dataclasses.replace(found, database=database or found.database, timeout_s=timeout_s)
    except ValueError as error:
        raise NoPlace(f"--influx: {error}") from None


def _only_site(store: Path) -> str:
    """Return the one site that a store has points of."""
    if not store.is_file():
        raise NoPlace(f"there is no {store}: name the recorder's store, such as points.sqlite")
    try:
        with closing(sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as db:
            names = [str(name) for (name,) in db.execute("SELECT DISTINCT site FROM sessions ORDER BY site")]
    except sqlite3.Error as error:
        raise NoPlace(f"{store} is not a recorder's store: {error}") from error
    if len(names) != 1:
        raise NoPlace(f"{store} has {' and '.join(names) or 'no site yet'}: name the site with --site")
    return names[0]


def written_last() -> Path:
    """Return the recorder's settings of the site on this machine whose store was written last; raises ``NoPlace``."""
    found = [(_written_s(path), path) for path in (home() / "sites").glob(f"*/{SETTINGS}")]
    if not found:
        raise NoPlace(
            f"there is no site below {home()}: name the recorder's store with --store (or run splitfleet demo)"
        )
    return max(found)[1]


def _written_s(settings: Path) -> float:
    store = Path(load_settings(RecorderSettings, settings).store.path)
    files = [file for file in (store, store.with_name(f"{store.name}-wal")) if file.exists()]
    # Who only reads a store leaves an empty log behind.
    return max((file.stat().st_mtime for file in files if file.stat().st_size), default=0.0)
