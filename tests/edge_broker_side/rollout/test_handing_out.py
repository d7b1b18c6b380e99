"""Who is handed the next piece: in turns, one wish per device, all together within the rate."""

from __future__ import annotations

from edge_broker_side.rollout.handing_out import BURST_S, HandingOut
from wire.messages import Fetch


def wish(offset: int = 0, length: int = 1000) -> Fetch:
    return Fetch("b", offset, length)


def test_everybody_has_a_turn_before_anybody_has_two() -> None:
    handing = HandingOut(1e9)
    order = []
    handing.next(0.0)
    for device in ("a", "b", "c"):
        handing.ask(device, wish())
    for turn in range(6):
        found = handing.next(1.0 + turn)
        assert found is not None
        order.append(found[0])
        handing.ask(found[0], wish())
    assert order == ["a", "b", "c", "a", "b", "c"]


def test_a_newer_wish_takes_the_place_of_the_older() -> None:
    handing = HandingOut(1e9)
    handing.ask("greedy", wish(0))
    handing.ask("other", wish())
    for offset in range(1000):
        handing.ask("greedy", wish(offset))
    assert len(handing) == 2
    assert handing.next(1.0) == ("greedy", wish(999))
    handing.forget("other")
    assert handing.next(2.0) is None


def test_no_more_goes_out_than_the_rate_allows() -> None:
    rate, sent, now_s = 10_000.0, 0, 0.0
    handing = HandingOut(rate)
    while now_s < 20:
        for device in range(50):
            handing.ask(str(device), wish(length=1500))
        while (found := handing.next(now_s)) is not None:
            sent += found[1].length
        wait_s = handing.wait_s()
        assert 0 < wait_s < 1
        now_s += wait_s + 1e-6
    assert rate * 20 * 0.95 < sent <= rate * (20 + BURST_S) + 1500


def test_a_clock_that_goes_back_gives_nothing_for_it() -> None:
    handing = HandingOut(1000.0)
    handing.ask("a", wish(length=5000))
    assert handing.next(100.0) is not None
    handing.ask("a", wish())
    assert handing.next(50.0) is None
    assert handing.next(51.0) is None
