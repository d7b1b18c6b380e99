"""Fixtures of the end-to-end tests: prepared models once, a fresh site per test and broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import KINDS
from tests.e2e.site import Site
from tflite_models.catalog import load_folder, shipped_zoo
from tflite_models.store import prepare


@pytest.fixture(scope="session")
def model_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The light ResNet with heads and tails."""
    store = tmp_path_factory.mktemp("store")
    prepare(load_folder(shipped_zoo() / "resnet-light"), store / "resnet-light", heads=True, tails=True)
    return store


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of the tests' own, so that models are cut and profiles measured as on a new machine, once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(params=KINDS)
def a_site(request: pytest.FixtureRequest, tmp_path: Path, model_store: Path) -> Iterator[Site]:
    """A site with a recorder and nothing else yet, on each kind of broker."""
    site = Site(tmp_path, model_store, request.param)
    try:
        site.start_recorder()
        yield site
        site.processes.check()
    finally:
        site.close()
