"""Which decisions a board believes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from device_client.engine import Engine
from device_client.following import Following
from device_client.ledger import Ledger
from device_client.settings import DeviceSettings
from tests.device_client.stores import LOCAL, SPLIT
from tflite_models.catalog import load_catalog
from wire.messages import Decision


def test_a_revision_that_cannot_be_does_not_deafen_the_board(models: Path, tmp_path: Path) -> None:
    catalog, ledger = load_catalog(models), Ledger(tmp_path / "ledger.sqlite", 100)
    settings = DeviceSettings("plant", "cam", models, tmp_path, safe_plan=str(LOCAL))
    following, counters = Following(settings, catalog, Engine(catalog)), Counter[str]()
    following.decide(Decision(2**63 - 1, SPLIT, 500.0, "other", "by mistake"), ledger, counters)
    assert (following.rev, following.plan, counters["decisions_refused"]) == (0, LOCAL, 1)
    following.decide(Decision(1, SPLIT, 500.0, "test", "a real one"), ledger, counters)
    assert (following.rev, following.plan) == (1, SPLIT)
    ledger.close()
