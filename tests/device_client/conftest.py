"""Fixtures of the device client's tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.device_client.stores import LABELS, picture, write_pictures, write_store
from tflite_models.pack import write_pack


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the versions ``tiny`` and ``big``."""
    return write_store(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of thirty pictures."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), 30)


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled pack of forty pictures."""
    path = tmp_path_factory.mktemp("pack") / "frames.npz"
    write_pack(
        path,
        np.stack([picture(number) for number in range(40)]),
        (np.arange(40) % len(LABELS)).astype(np.uint8),
        LABELS,
    )
    return path
