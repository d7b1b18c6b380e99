"""What tests do with real metrics servers; the servers themselves are fixtures of ``conftest``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlencode
from urllib.request import urlopen

from edge_broker_side.influx import Server, open_server
from edge_broker_side.influx_settings import InfluxSettings
from tools.metrics_servers import MetricsServer


@contextmanager
def database_of(server: MetricsServer, name: str) -> Iterator[Server]:
    """Open a database of its own on an influxd; it is made where it is missing."""
    opened = open_server(InfluxSettings(server.url, name, create_database=True))
    try:
        yield opened
    finally:
        opened.close()


def exported(server: MetricsServer, name: str) -> list[tuple[int, float]]:
    """Return every sample (Unix milliseconds, value) that a VictoriaMetrics holds of a metric, twins and all."""
    url = f"{server.url}/api/v1/export?{urlencode({'match[]': name, 'reduce_mem_usage': 1})}"
    urlopen(f"{server.url}/internal/force_flush").close()  # what it has taken becomes readable
    with urlopen(url) as answer:
        series = [json.loads(line) for line in answer]
    return sorted(
        (at_ms, value) for one in series for at_ms, value in zip(one["timestamps"], one["values"], strict=True)
    )
