"""What a process tells Prometheus: its latest message about itself, as gauges and counters over HTTP."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from wire.channels import check_name
from wire.errors import WireError
from wire.messages import PlanShare

if TYPE_CHECKING:
    from prometheus_client.core import Metric

log = logging.getLogger(__name__)

EVENTS = "counters"
"""The field that holds totals by name in every such message."""
SINCE_LAST = ("arrived", "served", "busy", "points", "forwarded", "decisions", "fallback")
"""Fields that count one period. They are added up here: Prometheus asks more rarely than a process speaks."""
INFO = ("policy", "deciding", "weights")
"""Texts with few values; sentences would make a new series each."""
LEFT_OUT = ("session",)
"""Numbers that measure nothing."""
ENTRIES = {"service_ms": "tail", "fallback": "reason"}
"""What the names in a map are; ``name`` is taken, by the process."""
MAX_ENTRIES = 1000
"""Names of one map; each is a series of its own."""

Labels = Mapping[str, str]


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


class Exposition:
    """An HTTP endpoint of one process; scraped in threads of its own, told by one thread."""

    def __init__(self, settings: PrometheusSettings, kind: str, site: str, name: str) -> None:
        """Begin to listen; ``kind`` (worker, recorder, policy, mirror) begins every metric's name.

        Raises ``ExpositionError`` where the port is taken or the address is not this machine's.
        """
        # Loaded only where a port is set: with its HTTP server it takes a tenth of a second.
        from prometheus_client import CollectorRegistry, start_http_server

        self._prefix = f"splitfleet_{kind}_"
        self._labels = {"site": check_name(site, "site"), "name": check_name(name, "name")}
        self._sums: dict[tuple[str, str], float] = {}
        self._shown: tuple[object, Mapping[tuple[str, str], float]] | None = None
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(settings.port, settings.host, registry)
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise ExpositionError(
                f"cannot listen on {where} for Prometheus: {error.strerror}; set another [prometheus] port"
            ) from error
        self.port = int(self._server.server_port)
        log.info("Prometheus may read http://%s:%d/metrics", settings.host, self.port)

    def show(self, message: object) -> None:
        """Show this message (a dataclass) from now on, and add its counts of a period to those of before."""
        for field, entry, count in _counts(message):
            self._sums[field, entry] = self._sums.get((field, entry), 0.0) + count
        self._shown = message, dict(self._sums)  # in one step: a scrape may come at any time

    def close(self) -> None:
        """Stop listening; a scrape that comes now is refused."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the latest message; none before the first."""
        shown = self._shown
        if shown is not None:
            yield from families(self._prefix, self._labels, *shown)


def families(
    prefix: str, labels: Labels, message: object, sums: Mapping[tuple[str, str], float] | None = None
) -> Iterator[Metric]:
    """Yield numbers as gauges, maps of numbers as gauges with a label, totals as counters, ``INFO`` as labels of 1.

    ``sums`` are the counts so far of the fields in ``SINCE_LAST`` (left out: those of this message alone), by field
    and entry. Times become seconds and rates per second, as Prometheus wants them.
    """
    if sums is None:
        sums = {(field, entry): count for field, entry, count in _counts(message)}
    for field in fields(message):  # type: ignore[arg-type]  # messages are dataclasses
        value = getattr(message, field.name)
        if field.name == EVENTS:
            yield _counter(f"{prefix}events", "totals since the start, by name", labels, value.items(), "event")
        elif field.name in SINCE_LAST:
            told = [(entry, count) for (name, entry), count in sums.items() if name == field.name]
            of = ENTRIES.get(field.name) if isinstance(value, Mapping) else None
            yield _counter(f"{prefix}{field.name}", f"{field.name}, since the process began", labels, told, of)
        elif field.name in LEFT_OUT:
            continue
        elif field.name in INFO:
            yield _gauge(f"{prefix}{field.name}_info", field.name, labels, [(value, 1.0)], field.name)
        elif isinstance(value, int | float | Mapping):
            name, scale = _in_base_units(field.name)
            entries = value.items() if isinstance(value, Mapping) else [("", value)]
            of = ENTRIES.get(field.name, "of") if isinstance(value, Mapping) else None
            scaled = [(entry, scale * number) for entry, number in entries]
            yield _gauge(prefix + name, _words(name), labels, scaled, of)
        elif isinstance(value, tuple) and value and isinstance(value[0], PlanShare):
            shares = [(str(share.plan), float(share.devices)) for share in value]
            yield _gauge(f"{prefix}plan_devices", "devices told one plan", labels, shares, "plan")


def _counts(message: Any) -> Iterator[tuple[str, str, float]]:
    for field in fields(message):
        if field.name in SINCE_LAST:
            value = getattr(message, field.name)
            for entry, count in value.items() if isinstance(value, Mapping) else [("", value)]:
                yield field.name, entry, max(0, count)


def _in_base_units(name: str) -> tuple[str, float]:
    """Return the metric's name for a field, and what its value is to be multiplied by."""
    if name == "at_ms":
        return "reported_timestamp_seconds", 1e-3
    if name.endswith("_per_minute"):
        return name.replace("_per_minute", "_per_second"), 1 / 60
    if name.endswith("_ms") or "_ms_" in name:
        return name.replace("_ms", "", 1) + "_seconds", 1e-3
    return (f"{name[:-2]}_seconds", 1.0) if name.endswith("_s") else (name, 1.0)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _counter(name: str, about: str, labels: Labels, entries: Iterable[tuple[str, float]], of: str | None) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    return _filled(CounterMetricFamily(name, about, labels=[*labels, *([of] if of else [])]), labels, entries, of)


def _gauge(name: str, about: str, labels: Labels, entries: Iterable[tuple[str, float]], of: str | None) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    return _filled(GaugeMetricFamily(name, about, labels=[*labels, *([of] if of else [])]), labels, entries, of)


def _filled(family: Any, labels: Labels, entries: Iterable[tuple[str, float]], of: str | None) -> Metric:
    for entry, number in itertools.islice(sorted(entries), MAX_ENTRIES):
        family.add_metric([*labels.values(), *([entry] if of else [])], number)
    return family  # type: ignore[no-any-return]
