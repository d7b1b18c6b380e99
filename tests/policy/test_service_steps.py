"""One step of the decision service without a broker: what no message and no full link may do to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from policy.service import PolicySettings, Service
from tests.policy.builders import LIGHT_LOCAL
from tests.policy.test_decider import Site
from wire import channels
from wire import messages as m
from wire.codec import decode, encode
from wire.link import Connected, Received


class Link:
    """Keeps what is published; refuses it while ``full``."""

    def __init__(self) -> None:
        self.full = False
        self.decisions: list[m.Decision] = []

    def publish(self, _topic: str, payload: bytes, **_: Any) -> int | None:
        if self.full:
            return None
        self.decisions.append(decode(channels.DECISION, payload))
        return len(self.decisions)


def service(link: Link, counters: Counter[str] | None = None) -> Service:
    site = Site()
    settings = PolicySettings("s", "models", "profiles", "edge")
    return Service(settings, site.decider, site.fleet, link.publish, counters or Counter())


def telemetry(decision_rev: int) -> Received:
    told = m.Telemetry(1, 1, 0, LIGHT_LOCAL, decision_rev, 2.0, 0, 0, uplink_bps=8e6)
    return Received(channels.topic("s", "cam", channels.TELEMETRY), encode(channels.TELEMETRY, told), 0, retained=False)


@pytest.mark.parametrize("decision_rev", [2**63 - 1, 2**53, -(2**63)])
def test_no_revision_a_device_claims_ends_the_service(decision_rev: int) -> None:
    link = Link()
    running = service(link)
    running.step([Connected(False, 2**20), telemetry(decision_rev)], 0.0)
    running.step([], 1.0)
    assert len(link.decisions) == 1


def test_a_decision_that_a_full_link_refuses_is_told_in_the_next_round() -> None:
    link = Link()
    running = service(link)
    link.full = True
    running.step([Connected(False, 2**20)], 0.0)
    running.step([], 1.0)
    assert not link.decisions
    link.full = False
    running.step([], 3.0)
    assert [decision.rev for decision in link.decisions] == [1]


class Racing(Counter[str]):
    """A counter to which another thread adds while it is walked through."""

    def items(self) -> Any:
        return self._walk(super().items())

    def _walk(self, items: Iterable[tuple[str, int]]) -> Iterable[tuple[str, int]]:
        for item in items:
            self[f"new-{len(self)}"] = 1
            yield item


def test_the_link_may_count_while_the_counters_are_told() -> None:
    service(Link(), Racing(sent=1)).summarise()
