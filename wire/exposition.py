"""What a process tells Prometheus: its latest message about itself, as gauges and counters over HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from wire.channels import check_name
from wire.errors import WireError

EVENTS = "counters"
"""The field that holds totals by name in every such message."""

INFO = ("policy", "deciding", "weights", "server")
"""Texts with few values; sentences would make a new series each."""


class ExpositionError(WireError):
    """The port cannot be listened on."""


@dataclass(frozen=True, slots=True)
class PrometheusSettings:
    """Where Prometheus finds this process. There is no password: keep it on this machine or behind a proxy."""

    port: int
    host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise WireError(f"port is {self.port}, allowed is 0 to 65535")


class Exposition(Collector):
    """An HTTP endpoint of one process; scraped in threads of its own, told by any thread."""

    def __init__(self, settings: PrometheusSettings, kind: str, site: str, name: str) -> None:
        """Begin to listen; ``kind`` (worker, recorder, policy) begins every metric's name.

        Raises ``ExpositionError`` where the port is taken or the address is not this machine's.
        """
        self._prefix = f"splitfleet_{kind}_"
        self._labels = {"site": check_name(site, "site"), "name": check_name(name, "name")}
        self._message: object | None = None
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(settings.port, settings.host, registry)
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise ExpositionError(f"cannot listen on {where} for Prometheus: {error.strerror}") from error
        self.port = int(self._server.server_port)

    def show(self, message: object) -> None:
        """Show this message (a dataclass of ``wire.messages``) from now on."""
        self._message = message

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the latest message; none before the first."""
        message = self._message
        if message is not None:
            yield from families(self._prefix, self._labels, message)


def families(prefix: str, labels: Mapping[str, str], message: object) -> Iterator[Metric]:
    """Yield numbers as gauges, maps of numbers as gauges with a label, totals as one counter, ``INFO`` as labels of 1.

    Times become seconds, as Prometheus wants them.
    """
    names, values = list(labels), list(labels.values())
    for field in fields(message):  # type: ignore[arg-type]  # messages are dataclasses
        value = getattr(message, field.name)
        scale = 1.0
        name = field.name
        if name.endswith("_ms") or "_ms_" in name:
            name, scale = name.replace("_ms", "_seconds", 1), 1e-3
        elif name.endswith("_s"):
            name = f"{name[:-2]}_seconds"
        if name == EVENTS:
            counter = CounterMetricFamily(
                f"{prefix}events", "totals since the start, by name", labels=[*names, "event"]
            )
            for event, count in sorted(value.items()):
                counter.add_metric([*values, event], count)
            yield counter
        elif isinstance(value, int | float):
            gauge = GaugeMetricFamily(prefix + name, field.name, labels=names)
            gauge.add_metric(values, scale * value)
            yield gauge
        elif isinstance(value, Mapping):
            gauge = GaugeMetricFamily(prefix + name, f"{field.name}, by name", labels=[*names, "of"])
            for key, number in sorted(value.items()):
                gauge.add_metric([*values, key], scale * number)
            yield gauge
        elif name in INFO:
            info = GaugeMetricFamily(f"{prefix}{name}_info", field.name, labels=[*names, name])
            info.add_metric([*values, value], 1)
            yield info
