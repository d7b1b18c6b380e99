"""The endpoint for Prometheus: well-formed to its own parser and to promtool, counts that only rise, clear refusals."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.wire.examples import EXAMPLES
from wire.errors import TopicError, WireError
from wire.exposition import Exposition, ExpositionError, PrometheusSettings

KINDS = {"worker": "worker-load", "policy": "policy-state", "recorder": "recorder-state"}


@contextmanager
def exposed(kind: str = "worker") -> Iterator[Exposition]:
    exposition = Exposition(PrometheusSettings(0), kind, "plant", f"{kind}-1")
    try:
        yield exposition
    finally:
        exposition.close()


def scrape(exposition: Exposition) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{exposition.port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return each value by the metric's name and the labels beside site and name."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert (labels.pop("site"), labels.pop("name")[-2:]) == ("plant", "-1")
            key = (sample.name, *labels.values())
            assert key not in found
            found[key] = sample.value
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_promtool_has_nothing_to_complain_of(kind: str) -> None:
    with exposed(kind) as exposition:
        exposition.show(EXAMPLES[KINDS[kind]])
        text = scrape(exposition)
    told = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


def test_the_load_of_a_worker_in_base_units() -> None:
    with exposed() as exposition:
        exposition.show(EXAMPLES["worker-load"])
        assert samples(scrape(exposition)) == {
            ("splitfleet_worker_reported_timestamp_seconds",): 1_790_000_000.0,
            ("splitfleet_worker_period_seconds",): 1.0,
            ("splitfleet_worker_queued",): 3.0,
            ("splitfleet_worker_arrived_total",): 40.0,
            ("splitfleet_worker_served_total",): 38.0,
            ("splitfleet_worker_busy_total",): 1.0,
            ("splitfleet_worker_utilisation",): 0.625,
            ("splitfleet_worker_batch_mean",): 2.5,
            ("splitfleet_worker_wait_mean_seconds",): 0.00175,
            ("splitfleet_worker_service_seconds", "resnet-light/block2"): 0.00125,
            ("splitfleet_worker_service_seconds", "resnet-heavy/input"): 0.0095,
            ("splitfleet_worker_events_total", "bad_payload"): 2.0,
        }


def test_the_state_of_a_policy_with_its_plans_and_who_decides() -> None:
    with exposed("policy") as exposition:
        exposition.show(EXAMPLES["policy-state"])
        found = samples(scrape(exposition))
    assert found["splitfleet_policy_deciding_info", "pricing"] == 1
    assert found["splitfleet_policy_plan_devices", "resnet-light/block2/q8"] == 2
    assert found["splitfleet_policy_fallback_total", "no fresh telemetry"] == 4
    assert found["splitfleet_policy_collapsed",] == 1
    assert found["splitfleet_policy_switches_per_second",] == pytest.approx(1.5 / 60)
    assert not any("problem" in name or "collapse_" in name for name, *_ in found)  # sentences are no labels


def test_what_counts_one_period_is_added_up_between_scrapes() -> None:
    load = EXAMPLES["worker-load"]
    with exposed() as exposition:
        for served in (38, 2, 60):
            exposition.show(dataclasses.replace(load, served=served, queued=served))
        found = samples(scrape(exposition))
    assert (found["splitfleet_worker_served_total",], found["splitfleet_worker_queued",]) == (100.0, 60.0)
    assert found["splitfleet_worker_events_total", "bad_payload"] == 2.0  # a total already


def test_a_reason_that_no_longer_comes_keeps_its_count() -> None:
    state = EXAMPLES["policy-state"]
    with exposed("policy") as exposition:
        exposition.show(state)
        exposition.show(dataclasses.replace(state, fallback={"guard": 1}))
        found = samples(scrape(exposition))
    assert found["splitfleet_policy_fallback_total", "no fresh telemetry"] == 4
    assert found["splitfleet_policy_fallback_total", "guard"] == 1


def test_names_from_devices_are_escaped() -> None:
    nasty = 'a"b\\c\nd{}'
    with exposed() as exposition:
        exposition.show(dataclasses.replace(EXAMPLES["worker-load"], service_ms={nasty: 1.0}))
        assert samples(scrape(exposition))["splitfleet_worker_service_seconds", nasty] == 0.001


def test_nothing_is_there_before_the_first_message() -> None:
    with exposed() as exposition:
        assert samples(scrape(exposition)) == {}


def test_a_taken_port_is_told() -> None:
    with exposed() as first, pytest.raises(ExpositionError, match=f"127.0.0.1:{first.port} for Prometheus"):
        Exposition(PrometheusSettings(first.port), "worker", "plant", "worker-1")


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(WireError, match="allowed is 0 to 65535"):
        PrometheusSettings(port)


def test_an_address_of_another_machine_is_told() -> None:
    with pytest.raises(ExpositionError, match=r"192\.0\.2\.1"):
        Exposition(PrometheusSettings(0, "192.0.2.1"), "worker", "plant", "worker-1")


def test_names_are_checked_before_the_port_is_taken() -> None:
    with pytest.raises(TopicError):
        Exposition(PrometheusSettings(0), "worker", "a/b", "worker-1")


def test_scrapes_during_the_end_are_answered_or_refused_and_harm_nobody() -> None:
    exposition = Exposition(PrometheusSettings(0), "worker", "plant", "worker-1")
    exposition.show(EXAMPLES["worker-load"])
    answered, ended = threading.Event(), threading.Event()

    def ask() -> None:
        while not ended.is_set():
            with suppress(urllib.error.URLError, ConnectionError):
                if "served" in scrape(exposition):
                    answered.set()

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    assert answered.wait(10)
    exposition.close()
    ended.set()
    for asker in askers:
        asker.join(10)
    assert not any(asker.is_alive() for asker in askers)
    again = Exposition(PrometheusSettings(exposition.port), "worker", "plant", "worker-1")  # the port is free again
    again.close()


def test_a_process_without_a_port_does_not_load_prometheus_client() -> None:
    code = "import sys, edge_broker_side.worker; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
