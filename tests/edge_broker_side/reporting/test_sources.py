"""Both sources give the same report of the same points, and the metrics server aggregates by itself."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_broker_side.influx import Series, Server
from edge_broker_side.points import to_line
from edge_broker_side.reporting.assembly import make_report
from edge_broker_side.reporting.figures import TIMES, Report, Scope
from edge_broker_side.reporting.influx_source import InfluxSource
from edge_broker_side.reporting.sqlite_source import open_store_source
from edge_broker_side.store import Store, StoreError, StoreSettings
from tests.edge_broker_side.reporting.sites import BEGAN_MS, SITE, frames, write_site
from tests.servers import database_of
from tools.metrics_servers import MetricsServer

SCOPES = {
    "everything": Scope(SITE),
    "a window": Scope(SITE, (), BEGAN_MS + 20_000, BEGAN_MS + 90_001),
    "one device": Scope(SITE, ("cam-2",)),
    "two devices until": Scope(SITE, ("cam-0", "cam-1"), None, BEGAN_MS + 50_000),
    "nothing": Scope(SITE, (), BEGAN_MS + 10**9),
    "no such site": Scope("plant-9"),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Store]]:
    path = tmp_path_factory.mktemp("store") / "points.sqlite"
    with closing(write_site(path)) as store:
        yield path, store


@pytest.fixture(scope="module")
def filled(store: tuple[Path, Store], influxd: MetricsServer) -> Iterator[Server]:
    """A database with everything that the store holds, as the forwarder would write it."""
    with database_of(influxd, "reports") as server:
        server.write([line for _, line in store[1].lines(0, 10**6)])
        yield server


def from_store(path: Path, scope: Scope) -> Report:
    with open_store_source(path, scope) as source:
        return make_report(source, 0)


def comparable(report: Report) -> Any:
    """Return a report without what the sources are said to differ in."""
    return dataclasses.asdict(dataclasses.replace(report, source="", missing=None))


def same(left: Any, right: Any, where: str = "report") -> None:
    """Compare to the last digit, but for means and sums of floats, whose order of adding is the server's affair."""
    assert type(left) is type(right) or {type(left), type(right)} <= {int, float}, where
    if isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            same(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for place, (one, other) in enumerate(zip(left, right, strict=True)):
            same(one, other, f"{where}[{place}]")
    elif isinstance(left, float) and where.endswith(("mean", "_mj", "energy_mj")):
        assert math.isclose(left, right, rel_tol=1e-12), where
    else:
        assert left == right, where


@pytest.mark.parametrize("scope", SCOPES.values(), ids=SCOPES)
def test_store_and_server_tell_the_same(store: tuple[Path, Store], filled: Server, scope: Scope) -> None:
    told = from_store(store[0], scope)
    same(comparable(make_report(InfluxSource(filled, scope), 0)), comparable(told))
    assert (told.fleet.figures.frames == 0) == (scope in (SCOPES["nothing"], SCOPES["no such site"]))


def test_the_figures_are_those_of_the_points(store: tuple[Path, Store]) -> None:
    """Count and sort the points themselves, the slow and obvious way."""
    points = [point.values for point in frames(600)]
    report = from_store(store[0], SCOPES["everything"])
    whole = report.fleet.figures
    assert whole.frames == 600
    assert whole.outcomes == Counter(point["outcome"] for point in points)
    assert sum(whole.reasons.values()) == whole.outcomes["fallback"] + whole.outcomes["dropped"]
    answered = [point for point in points if point["outcome"] != "dropped"]
    judged = [point for point in answered if point["label"] is not None and point["truth"] is not None]
    assert whole.judged == len(judged)
    assert whole.accuracy == sum(point["label"] == point["truth"] for point in judged) / len(judged)
    assert whole.bytes_sum == sum(point["sent_bytes"] for point in points)
    for name in TIMES:
        over = answered if name in ("latency_ms", "head_ms", "encode_ms") else points
        values = sorted(
            point[name]
            for point in over
            if point["outcome"] == "edge" or name in ("latency_ms", "head_ms", "encode_ms")
        )
        quantiles = whole.times[name]
        assert quantiles is not None
        assert quantiles.p50 == values[math.floor(len(values) * 0.5 + 0.5) - 1]
        assert quantiles.p99 == values[math.floor(len(values) * 0.99 + 0.5) - 1]
    energy = {one.source: one for one in whole.energy}
    assert energy["measured"].frames == 120
    for source, one in energy.items():
        mine = [point["energy_mj"] for point in points if point["energy_source"] == source]
        assert one.sum_mj == pytest.approx(sum(mine))
        assert one.mean_mj == pytest.approx(sum(mine) / len(mine))
    assert sum(plan.figures.frames for plan in report.plans) == 600
    assert len(report.plans) == 3 * 3 * 2


def test_what_the_devices_said_is_told(store: tuple[Path, Store]) -> None:
    report = from_store(store[0], SCOPES["everything"])
    assert [device.device for device in report.devices] == ["cam-0", "cam-1", "cam-2"]
    first, second, third = report.devices
    assert first.ledger is not None and (first.ledger.captured, first.ledger.counted, first.ledger.gap) == (593, 590, 3)
    assert third.ledger is not None and third.ledger.folded == {"edge": 59, "dropped": 4}
    assert report.fleet.ledger is not None and report.fleet.ledger.gap == 3 + 2 + 1
    assert report.fleet.ledger.folded == {"edge": 118, "dropped": 6}
    assert first.decisions.count == 60 and report.fleet.decisions == 180
    newest = first.decisions.newest
    assert len(newest) == 50
    assert newest[-1].at_ms == BEGAN_MS + 59_000
    assert newest[-1].reason.startswith("step 59: link") and "<script>" in newest[-1].reason
    assert second.reported.uplink_bps_p50 is None
    assert third.reported.battery_share == pytest.approx(0.41)
    assert [worker.worker for worker in report.workers] == ["edge-1", "edge-2"]
    assert all(bucket.at_ms % report.bucket_ms == 0 for bucket in first.buckets)
    assert sum(bucket.frames for bucket in first.buckets) == 200 - first.figures.outcomes["dropped"]


def test_no_point_is_pulled_from_the_server(influxd: MetricsServer) -> None:
    class Counting(Server):
        rows = 0

        def query(self, influxql: str) -> list[Series]:
            found = super().query(influxql)
            self.rows += sum(len(series.rows) for series in found)
            return found

    def rows(database: str, count: int) -> int:
        with database_of(influxd, database) as server:
            # Twice the frames in the same time: the buckets of time stay as they are.
            stored = enumerate(frames(count), start=1)
            server.write(
                [
                    to_line(
                        point.measurement,
                        number,
                        BEGAN_MS + (point.at_ms - BEGAN_MS) * 2_000 // count,
                        [point.values[column.name] for column in point.measurement.columns],
                    )
                    for number, point in stored
                ]
            )
            counting = Counting(server.settings)
            with closing(counting):
                report = make_report(InfluxSource(counting, Scope(SITE)), 0)
            assert report.fleet.figures.frames == count
            return counting.rows

    few = rows("few", 1_500)
    assert rows("many", 4_500) == pytest.approx(few, rel=0.05)
    assert few < 1_500


def test_the_report_is_of_one_moment(tmp_path: Path) -> None:
    path = tmp_path / "points.sqlite"
    with closing(write_site(path, 30)) as store, open_store_source(path, Scope(SITE)) as source:
        before = source.span()
        store.write(list(frames(60)))
        assert source.span() == before
        assert make_report(source, 0).fleet.figures.frames == 30
        assert from_store(path, Scope(SITE)).fleet.figures.frames == 60


def test_what_the_store_lacks_is_told(tmp_path: Path) -> None:
    path = tmp_path / "points.sqlite"
    with closing(Store(StoreSettings(str(path), max_bytes=300 * 1024))) as store:
        store.write(frames(3_000))
        gone = store.trim()
    missing = from_store(path, Scope(SITE)).missing
    assert missing is not None
    assert missing.trimmed == {"inference": gone}
    assert (missing.waiting, missing.dead) == (None, 0)


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no"), open_store_source(tmp_path / "none.sqlite", Scope(SITE)):
        pass
    (tmp_path / "rubbish.sqlite").write_bytes(b"rubbish" * 1000)
    with pytest.raises(StoreError, match="not a database"), open_store_source(tmp_path / "rubbish.sqlite", Scope(SITE)):
        pass
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(StoreError, match="schema 0"), open_store_source(tmp_path / "empty.sqlite", Scope(SITE)):
        pass
