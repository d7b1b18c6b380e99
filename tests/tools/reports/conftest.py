"""A home with two sites, as a machine that ran both has it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import tomli_w
import typer
from typer.testing import CliRunner, Result

from edge_broker_side.reporting.assembly import make_report
from edge_broker_side.reporting.figures import Report, Scope
from edge_broker_side.reporting.sqlite_source import open_store_source
from edge_broker_side.store import Store, StoreSettings
from tests.edge_broker_side.reporting.sites import SITE, frames, write_site
from tools.reports.command import report

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Site ``plant`` with three devices, and an older one."""
    home = tmp_path_factory.mktemp("home")
    for site in ("older", SITE):
        folder = home / "sites" / site
        folder.mkdir(parents=True)
        settings = {"site": site, "store": {"path": str(folder / "points.sqlite")}}
        (folder / "recorder.toml").write_text(tomli_w.dumps(settings))
    with closing(Store(StoreSettings(str(home / "sites" / "older" / "points.sqlite")))) as store:
        store.write(frames(5, site="older"))
    for file in (home / "sites" / "older").iterdir():
        os.utime(file, (1_700_000_000, 1_700_000_000))
    with closing(write_site(home / "sites" / SITE / "points.sqlite")):
        yield home


@pytest.fixture
def run(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in a folder of its own; errors come out as they are."""
    monkeypatch.setenv("SPLITFLEET_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(report)
    return lambda *arguments: CliRunner().invoke(app, arguments, catch_exceptions=False)


@pytest.fixture(scope="module")
def told(home: Path) -> Report:
    """Everything about site ``plant``."""
    with open_store_source(home / "sites" / SITE / "points.sqlite", Scope(SITE)) as source:
        return make_report(source, 1_700_000_200_000)
