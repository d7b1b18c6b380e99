"""A worker's endpoint for Prometheus: its load while it works, nothing more once it has ended."""

from __future__ import annotations

import threading
import urllib.request
from pathlib import Path

import pytest

from edge_broker_side.broker import Broker, free_port
from edge_broker_side.worker import WorkerSettings, run
from tests.edge_broker_side.peers import Peer, picture, running
from tests.edge_broker_side.stores import EXTENT, write_store
from wire.channels import RESULT, WORKER_LOAD, WORKER_STATE
from wire.exposition import ExpositionError, PrometheusSettings
from wire.link import LinkSettings
from wire.plan import Plan


def worker(broker: Broker, site: str, store: Path, port: int) -> WorkerSettings:
    return WorkerSettings(
        site,
        "edge",
        str(store),
        LinkSettings(port=broker.port),
        threads=1,
        load_period_s=0.1,
        prometheus=PrometheusSettings(port),
    )


def test_the_load_is_there_to_be_scraped(mosquitto: Broker, site: str, tmp_path: Path) -> None:
    port = free_port()
    with (
        running(run, worker(mosquitto, site, write_store(tmp_path), port)),
        Peer(mosquitto, site, RESULT, WORKER_STATE, WORKER_LOAD) as peer,
    ):
        peer.until(lambda: peer.of(WORKER_STATE))
        for frame in range(1, 4):
            peer.ask(frame, picture(EXTENT, frame), Plan("toy", "mid", "f32"))
        peer.until(lambda: len(peer.results()) == 3 and sum(load.served for load in peer.of(WORKER_LOAD)) == 3)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            told = answer.read().decode()
    assert f'splitfleet_worker_served_total{{name="edge",site="{site}"}} 3.0' in told
    assert f'splitfleet_worker_events_total{{event="answered_ok",name="edge",site="{site}"}} 3.0' in told
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)


def test_a_port_that_is_taken_ends_it_before_it_takes_work(mosquitto: Broker, site: str, tmp_path: Path) -> None:
    with pytest.raises(ExpositionError, match="set another"):
        run(worker(mosquitto, site, write_store(tmp_path), mosquitto.port), threading.Event())
