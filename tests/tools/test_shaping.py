"""The emulated link in simulated time: nothing lost, order kept, never faster than told, never too early."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.shaping import FLYING_LIMIT_BYTES, PRESETS, QUEUE_FLOOR_BYTES, LinkShape, Pacer, preset

rates_bps = st.sampled_from([130e3, 1.1e6, 18.88e6, math.inf])
delays_s = st.floats(0, 0.2)
gaps_s = st.floats(0, 0.5)


@dataclass(frozen=True)
class Transfer:
    """What went in and came out of a pacer, with the times of each."""

    pushed: list[tuple[float, bytes]]
    arrived: list[tuple[float, bytes]]


def run(pacer: Pacer, sends: list[tuple[float, int]], seed: int) -> Transfer:
    """Push ``(gap, size)`` and wake exactly when the pacer asks for it, until nothing is left."""
    content = random.Random(seed)
    now, pushed, arrived = 0.0, [], []

    def wake_until(limit: float) -> None:
        while (at := pacer.next_at()) <= limit:
            if data := pacer.poll(at):
                arrived.append((at, data))

    for gap, size in sends:
        now += gap
        wake_until(now)
        data = content.randbytes(size)
        pacer.push(data, now)
        pushed.append((now, data))
    wake_until(1e9)
    return Transfer(pushed, arrived)


sends = st.lists(st.tuples(gaps_s, st.integers(1, 20_000)), min_size=1, max_size=12)


@given(rates_bps, delays_s, delays_s, sends, st.integers(0, 2**32))
def test_bytes_are_conserved_in_order(
    rate: float, delay: float, jitter: float, sent: list[tuple[float, int]], seed: int
) -> None:
    transfer = run(Pacer(rate, delay, jitter, random.Random(seed)), sent, seed)
    assert b"".join(data for _, data in transfer.arrived) == b"".join(data for _, data in transfer.pushed)


@given(rates_bps, delays_s, delays_s, sends, st.integers(0, 2**32))
def test_no_byte_is_early(rate: float, delay: float, jitter: float, sent: list[tuple[float, int]], seed: int) -> None:
    """Byte n arrives no sooner than the delay after it was pushed, plus its own time on the line."""
    transfer = run(Pacer(rate, delay, jitter, random.Random(seed)), sent, seed)
    sent_at = [at for at, data in transfer.pushed for _ in data]
    byte_s = 8 / rate
    position = 0
    for at, data in transfer.arrived:
        last = position + len(data) - 1
        assert at >= sent_at[last] + delay + byte_s - 1e-9
        position += len(data)


@given(st.sampled_from([130e3, 1.1e6, 18.88e6]), delays_s, sends, st.integers(0, 2**32))
def test_the_rate_is_never_exceeded(rate: float, delay: float, sent: list[tuple[float, int]], seed: int) -> None:
    """Between any two arrivals no more came through than the line carries in that time."""
    arrived = run(Pacer(rate, delay, 0.0, random.Random(seed)), sent, seed).arrived
    for i, (begin, _) in enumerate(arrived):
        total = 0
        for at, data in arrived[i + 1 :]:
            total += len(data)
            assert 8 * total <= rate * (at - begin) * (1 + 1e-6) + 1e-3


def test_a_busy_line_is_used_fully() -> None:
    """A burst takes bits over rate plus the delay: 0.2 s for 25,000 bytes at 1 Mbit/s, and 50 ms."""
    transfer = run(Pacer(1e6, 0.05, 0.0, random.Random(0)), [(0.0, 25_000)], 0)
    assert transfer.arrived[-1][0] == pytest.approx(0.25)


def test_small_packets_pay_their_own_time_only() -> None:
    """100 bytes at 0.13 Mbit/s: 6.15 ms on the line, whatever came long before."""
    transfer = run(Pacer(0.13e6, 0.06, 0.0, random.Random(0)), [(0.0, 100), (1.0, 100)], 0)
    assert [at for at, _ in transfer.arrived] == pytest.approx([0.0661538, 1.0661538])


def test_a_new_rate_holds_from_the_next_segment() -> None:
    pacer = Pacer(1.448e4, 0.0, 0.0, random.Random(0))  # a segment of 1448 bytes takes 0.8 s
    pacer.push(bytes(4 * 1448), 0.0)
    assert pacer.poll(0.0) == b""
    pacer.reshape(1.448e6, 0.0, 0.0)  # and now 8 ms
    pacer.poll(0.8)
    assert pacer.next_at() == pytest.approx(0.808)
    received = b""
    while (at := pacer.next_at()) < math.inf:
        received += pacer.poll(at)
    assert at == math.inf and len(received) == 3 * 1448


@given(st.floats(0.001, 10), st.floats(0.001, 10))
def test_an_outage_only_shifts_time(began: float, lasted: float) -> None:
    pacer = Pacer(1e6, 0.0, 0.0, random.Random(0))
    pacer.set_down(True, began)
    pacer.push(bytes(1250), began)
    assert pacer.next_at() == math.inf and pacer.poll(began + lasted) == b""
    pacer.set_down(False, began + lasted)
    pacer.poll(began + lasted)
    assert pacer.next_at() == pytest.approx(began + lasted + 0.01)


@given(rates_bps, st.lists(st.tuples(gaps_s, st.booleans()), max_size=60))
def test_a_caller_that_asks_for_room_stays_within_it(rate: float, steps: list[tuple[float, bool]]) -> None:
    pacer, now = Pacer(rate, 5.0, 0.0, random.Random(0)), 0.0
    bound = FLYING_LIMIT_BYTES if math.isinf(rate) else max(QUEUE_FLOOR_BYTES, 0.2 * rate / 8)
    on_the_way = 0.0 if math.isinf(rate) else 5.0 * rate / 8 + 2 * 1448
    for gap, poll in steps:
        now += gap
        if poll:
            pacer.poll(now)
        pacer.push(bytes(pacer.room()), now)
        assert len(pacer) <= bound + on_the_way


def test_presets_carry_their_rate() -> None:
    assert {name: preset(name).uplink_bps / 1e6 for name in PRESETS} == pytest.approx(
        {"0.13": 0.13, "1.1": 1.1, "5.85": 5.85, "8": 8.0, "18.88": 18.88, "20": 20.0}
    )
    with pytest.raises(ValueError, match=r"no link is called '3'.*18\.88"):
        preset("3")


@pytest.mark.parametrize("wrong", [{"uplink_bps": 0}, {"downlink_bps": -1}, {"delay_ms": -1}, {"jitter_ms": -0.1}])
def test_impossible_links_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"link"):
        LinkShape(**wrong)
