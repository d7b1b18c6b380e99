"""A report's figures from the metrics server: InfluxQL that aggregates there, so that no point is ever pulled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edge_broker_side.reporting.assembly import CELL, Cell, Key, Times
from edge_broker_side.reporting.figures import (
    ANSWERED_TIMES,
    DECISIONS_KEPT,
    EDGE_TIMES,
    PERCENTS,
    Bucket,
    Decided,
    Decisions,
    Ledger,
    Quantiles,
    Reported,
    Scope,
    WorkerFigures,
)
from wire.messages import Outcome

if TYPE_CHECKING:
    from edge_broker_side.influx import Server

_ANSWERED = f"outcome <> '{Outcome.DROPPED}'"
_FOLDED = "last_folded_"
_NS = 1_000_000
"""Per millisecond; a stamp is its milliseconds and, below them, what makes it unique."""


class InfluxSource:
    """Every answer has as many rows as there are combinations of tags, whatever the number of points."""

    def __init__(self, server: Server, scope: Scope) -> None:
        self._server = server
        self._scope = scope

    @property
    def words(self) -> str:
        """The source as the reader is told of it."""
        return f"InfluxDB at {self._server.settings.url}, database {self._server.settings.database}"

    @property
    def scope(self) -> Scope:
        """What it was opened for."""
        return self._scope

    def cells(self) -> Sequence[Cell]:
        """Count frames by every tag."""
        answered = f"SELECT count(label) FROM inference WHERE {self._where()} AND {_ANSWERED}"
        right = self._counts(f"{answered} AND label = truth", CELL)
        wrong = self._counts(f"{answered} AND label <> truth", CELL)
        rows = self._ask(
            "SELECT count(frame) AS frames, sum(energy_mj) AS energy_mj, sum(sent_bytes) AS sent_bytes"
            f" FROM inference WHERE {self._where()} GROUP BY {', '.join(CELL)}"
        )
        return [
            Cell(
                key, row["frames"], row["energy_mj"] or 0.0, row["sent_bytes"] or 0,
                right.get(key, 0) + wrong.get(key, 0), right.get(key, 0),
            )
            for tags, row in rows
            for key in [_key(tags, CELL)]
        ]  # fmt: skip

    def times(self, tags: Sequence[str]) -> Mapping[Key, Times]:
        """Return the percentiles of frames grouped by some tags."""
        found: dict[Key, dict[str, Quantiles]] = {}
        for names, which in ((ANSWERED_TIMES, _ANSWERED), (EDGE_TIMES, f"outcome = '{Outcome.EDGE}'")):
            wanted = ", ".join(f"percentile({name}, {p}) AS {name}_{p}" for name in names for p in PERCENTS)
            by = f" GROUP BY {', '.join(tags)}" if tags else ""
            for told, row in self._ask(f"SELECT {wanted} FROM inference WHERE {self._where()} AND {which}{by}"):
                for name in names:
                    values = [row[f"{name}_{p}"] for p in PERCENTS]
                    if None not in values:
                        found.setdefault(_key(told, tags), {})[name] = Quantiles(*map(float, values))
        return found

    def span(self) -> tuple[int, int] | None:
        """Return when the first and the last frame was captured, in Unix milliseconds."""
        return self._span

    @cached_property
    def _span(self) -> tuple[int, int] | None:
        ends = [
            row["time"] // _NS
            for which in ("first", "last")
            for _, row in self._ask(f"SELECT {which}(frame) FROM inference WHERE {self._where()}")
        ]
        return (ends[0], ends[1]) if len(ends) == 2 else None

    def buckets(self, width_ms: int, devices: Sequence[str]) -> Mapping[str, Sequence[Bucket]]:
        """Return latency over time; a bucket begins at a multiple of its width."""
        if self._span is None or not devices:
            return {}
        # Without an end of its own, a query by time ends now: frames of a clock ahead of ours would be missing.
        until_ns = (self._span[1] + 1) * _NS
        found: dict[str, list[Bucket]] = {}
        for tags, row in self._ask(
            "SELECT count(latency_ms) AS frames, percentile(latency_ms, 50) AS p50 FROM inference"
            f" WHERE {self._where()} AND time < {until_ns} AND {_ANSWERED} AND {_any_of('device', devices)}"
            f" GROUP BY time({width_ms}ms), device fill(none)"
        ):
            if row["p50"] is not None:
                bucket = Bucket(row["time"] // _NS, row["frames"], float(row["p50"]))
                found.setdefault(tags["device"], []).append(bucket)
        return found

    def ledgers(self) -> Mapping[str, Ledger]:
        """Return the account of each device at the end of the window."""
        rows = self._ask(f"SELECT last(*) FROM ledger WHERE {self._where(since=False)} GROUP BY device")
        return {
            tags["device"]: Ledger(
                row["last_captured"],
                row["last_counted"],
                row["last_gap"],
                {name[len(_FOLDED) :]: n for name, n in row.items() if name.startswith(_FOLDED) and n is not None},
            )
            for tags, row in rows
        }

    def decisions(self) -> Mapping[str, Decisions]:
        """Return the decisions for each device."""
        counts = self._counts(f"SELECT count(rev) FROM decision WHERE {self._where()}", ("device",))
        newest: dict[str, list[Decided]] = {}
        for tags, row in self._ask(
            f'SELECT rev, version, cut, codec, "policy", reason FROM decision WHERE {self._where()}'
            f" GROUP BY device ORDER BY time DESC LIMIT {DECISIONS_KEPT}"
        ):
            plan = "/".join(row[name] or "" for name in ("version", "cut", "codec"))
            one = Decided(row["time"] // _NS, plan, row["policy"] or "", row["reason"] or "")
            newest.setdefault(tags["device"], []).insert(0, one)
        return {device: Decisions(count, tuple(newest.get(device, ()))) for (device,), count in counts.items()}

    def reported(self) -> Mapping[str, Reported]:
        """Return what each device's telemetry said."""
        rows = self._ask(
            "SELECT count(seq), percentile(uplink_bps, 50) AS uplink, last(battery_share) AS battery FROM telemetry"
            f" WHERE {self._where()} GROUP BY device"
        )
        return {tags["device"]: Reported(row["uplink"], row["battery"]) for tags, row in rows}

    def workers(self) -> Sequence[WorkerFigures]:
        """Return every worker's figures, by name."""
        where = self._where(device=False)
        batches = {
            tags["worker"]: row["batch"]
            for tags, row in self._ask(
                f"SELECT mean(batch_mean) AS batch FROM worker WHERE {where} AND served > 0 GROUP BY worker"
            )
        }
        rows = self._ask(
            "SELECT mean(utilisation) AS mean, max(utilisation) AS max, mean(queued) AS queued, max(queued) AS longest,"
            f" sum(served) AS served, sum(busy) AS busy FROM worker WHERE {where} GROUP BY worker"
        )
        return [
            WorkerFigures(
                name, row["mean"], row["max"], batches.get(name), row["queued"], row["longest"], row["served"],
                row["busy"],
            )
            for name, row in sorted((tags["worker"], row) for tags, row in rows)
        ]  # fmt: skip

    def missing(self) -> None:
        """Return nothing: only the store knows what it dropped and what still waits in it."""

    def _ask(self, influxql: str) -> list[tuple[Mapping[str, str], dict[str, Any]]]:
        """Return every row of the answer by name, with the tags of its series."""
        return [
            (series.tags, dict(zip(series.columns, row, strict=True)))
            for series in self._server.query(influxql)
            for row in series.rows
        ]

    def _counts(self, select: str, tags: Sequence[str]) -> dict[Key, int]:
        """Return the one count of every group."""
        rows = self._ask(f"{select} GROUP BY {', '.join(tags)}")
        return {_key(told, tags): row["count"] for told, row in rows}

    def _where(self, *, since: bool = True, device: bool = True) -> str:
        scope = self._scope
        parts = [f"site = {quoted(scope.site)}"]
        if since and scope.since_ms is not None:
            parts.append(f"time >= {scope.since_ms * _NS}")
        if scope.until_ms is not None:
            parts.append(f"time < {scope.until_ms * _NS}")
        if device and scope.devices:
            parts.append(_any_of("device", scope.devices))
        return " AND ".join(parts)


def quoted(text: str) -> str:
    """Return a text as InfluxQL writes one."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def _any_of(tag: str, values: Iterable[str]) -> str:
    return f"({' OR '.join(f'{tag} = {quoted(value)}' for value in values)})"


def _key(tags: Mapping[str, str], names: Sequence[str]) -> Key:
    return tuple(tags.get(name, "") for name in names)
