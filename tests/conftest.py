"""Fixtures that more than one package's tests use."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from edge_broker_side.broker import Broker
from tests.brokers import KINDS, launch
from tools.metrics_servers import MetricsServer
from wire.signals import SIGNALS

# A busy machine must not turn a property test into a timing test.
settings.register_profile("splitfleet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("splitfleet")


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """A command that runs in the tests' own process leaves no handler of its signals behind."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One mosquitto for all tests; keep apart by ``site``."""
    with launch("mosquitto", tmp_path_factory.mktemp("mosquitto")) as broker:
        yield broker


@pytest.fixture(scope="session")
def rumqttd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One embedded broker for all tests; keep apart by ``site``."""
    with launch("rumqttd", tmp_path_factory.mktemp("rumqttd")) as broker:
        yield broker


@pytest.fixture(scope="session")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MetricsServer]:
    """One InfluxDB 1.x for all tests; keep apart by database (see ``database_of``)."""
    with MetricsServer("influxd", tmp_path_factory.mktemp("influxd")) as server:
        yield server


@pytest.fixture(scope="session")
def victoria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MetricsServer]:
    """One VictoriaMetrics for all tests, which takes the writes of 2.x; keep apart by site."""
    with MetricsServer("victoria-metrics", tmp_path_factory.mktemp("victoria")) as server:
        yield server


@pytest.fixture(scope="session", params=KINDS)
def any_broker(request: pytest.FixtureRequest) -> Broker:
    """Runs the test against each kind of broker."""
    broker: Broker = request.getfixturevalue(request.param)
    return broker


@pytest.fixture
def site() -> str:
    """A site of the test's own, so that tests can share a broker."""
    return f"test-{uuid.uuid4().hex[:12]}"
