"""The load message: sums of one period, also of a batch that spans several."""

from __future__ import annotations

import pytest

from edge_broker_side.load import LoadMeter
from wire.messages import Status

MS = 1_000_000


def test_a_period_is_added_up_and_then_forgotten() -> None:
    meter = LoadMeter(executors=2, now_ns=0)
    meter.arrived = 5
    meter.began(0, 100 * MS)
    meter.ended(0, 400 * MS)
    meter.computed("net/c1", 3, 30.0)
    meter.computed("net/c1", 1, 20.0)
    meter.computed("net/c2", 2, 8.0)
    for wait_ms in (1.0, 3.0):
        meter.answered(Status.OK, wait_ms)
    meter.answered(Status.BUSY, 0.0)
    load = meter.take(1000 * MS, session=7, queued=4, counters={"x": 1})
    assert (load.session, load.queued, load.arrived, load.served, load.busy) == (7, 4, 5, 2, 1)
    assert (load.period_ms, load.utilisation, load.batch_mean, load.wait_ms_mean) == (1000.0, 0.15, 2.0, 2.0)
    assert load.service_ms == {"net/c1": 12.5, "net/c2": 4.0} and load.counters == {"x": 1}
    empty = meter.take(2000 * MS, 7, 0, {})
    assert (empty.arrived, empty.served, empty.utilisation, empty.service_ms) == (0, 0, 0.0, {})


def test_a_batch_longer_than_a_period_is_busy_time_in_each() -> None:
    meter = LoadMeter(executors=1, now_ns=0)
    meter.began(0, 500 * MS)
    told = [meter.take(end * MS, 1, 0, {}).utilisation for end in (1000, 2000)]
    meter.ended(0, 2250 * MS)
    told.append(meter.take(3000 * MS, 1, 0, {}).utilisation)
    assert told == pytest.approx([0.5, 1.0, 0.25])
