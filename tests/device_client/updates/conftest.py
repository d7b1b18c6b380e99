"""Fixtures of the tests of updates."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.device_client.updates.bundles import Made, Site, bundle_of, contents_of


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The site that boards trust."""
    return Site(tmp_path_factory.mktemp("signer"))


@pytest.fixture(scope="session")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a newer ``tiny``."""
    return contents_of(tmp_path_factory.mktemp("newer"), seed=11)


@pytest.fixture(scope="session")
def newer(signer: Site, contents: dict[str, bytes]) -> Made:
    """A bundle with a newer ``tiny``."""
    return bundle_of(signer, contents)


@pytest.fixture(scope="session")
def newest(signer: Site, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A bundle with a still newer ``tiny``."""
    return bundle_of(signer, contents_of(Path(tmp_path_factory.mktemp("newest")), seed=12))
