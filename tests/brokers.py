"""Real brokers for tests: started on free ports, killed and started again at will."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_broker_side.broker import Broker, BrokerSettings, find_mosquitto, start_broker

KINDS = ("mosquitto", "rumqttd")


def launch(kind: str, folder: Path, port: int = 0) -> Broker:
    """Start a broker of a kind; the same folder and port start it anew."""
    if kind == "mosquitto" and find_mosquitto() is None:
        pytest.fail("mosquitto is not installed: sh tools/system_packages.sh")
    return start_broker(
        BrokerSettings(
            folder=str(folder),
            port=port,
            kind="mosquitto" if kind == "mosquitto" else "embedded",
            log_file=str(folder.parent / f"{folder.name}.log"),
        )
    )
