"""The computing thread: whatever a model or a tensor does, it says what came of it and lives on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edge_broker_side.batcher import Key
from edge_broker_side.executor import Executor, Warm
from edge_broker_side.tails import Tail, TailCache
from tests.edge_broker_side.stores import write_store
from tflite_models.catalog import load_catalog
from wire.inbox import Inbox


class Odd(TailCache):
    """Tails of a model with elements that numpy does not know."""

    def get(self, key: Key) -> Tail:
        """Fail as numpy does."""
        raise TypeError(f"data type of {key} not understood")


def test_a_model_that_cannot_even_be_tried_does_not_keep_the_worker_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = load_catalog(write_store(tmp_path))
    inbox = Inbox()
    executor = Executor(0, catalog, Odd(catalog, max_tails=1, max_bytes=1), inbox)
    executor.start()
    deadline = time.monotonic() + 20
    while not (events := inbox.take(0.2)):
        assert time.monotonic() < deadline, "the thread died"
    executor.stop()
    (warm,) = events
    assert isinstance(warm, Warm)
    assert set(warm.broken) == {Key("toy", "input"), Key("toy", "mid")}
    assert "cannot be tried" in caplog.text
