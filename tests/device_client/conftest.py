"""Fixtures of the device client's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.device_client.stores import write_pictures, write_store


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the versions ``tiny`` and ``big``."""
    return write_store(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of thirty pictures."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), 30)
