"""What is known of devices: newest sessions count, late wills bury nobody, lies are told."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_broker_side.broker import Broker
from edge_broker_side.inventory import AccountFacts, Entry, Inventory, facts
from edge_broker_side.selection import parse
from tests.edge_broker_side.peers import PATIENCE_S
from tests.wire.examples import EXAMPLES
from tests.wire.link_client import Client, quick
from tools.operator_link import OperatorSettings
from tools.relay import Relay
from tools.shaping import LinkShape
from tools.site_link import SiteLink
from wire import channels
from wire.codec import encode
from wire.link import LinkSettings
from wire.messages import CachedVersion, Capabilities, DeviceState, State, Telemetry
from wire.outbox import Outgoing
from wire.plan import Plan

PLAN = Plan("resnet-light", "s2", "q8")
CAN: Capabilities = dataclasses.replace(EXAMPLES["capabilities"], versions=(CachedVersion("resnet-light", "ab" * 32),))
CATALOG = {"resnet-light": "ab" * 32}


def state(session: int, what: DeviceState = DeviceState.READY, reason: str = "") -> State:
    return State(what, session, reason, 1_000)


def telemetry(session: int, seq: int = 1, at_ms: int = 50_000, **more: Any) -> Telemetry:
    return Telemetry(session, seq, at_ms, PLAN, 3, 2.0, 0, 0, **more)


def can(session: int, **more: Any) -> Capabilities:
    return dataclasses.replace(CAN, session=session, **more)


def heard(*messages: Any, accounts: dict[str, AccountFacts] | None = None) -> tuple[Inventory, Entry]:
    inventory = Inventory(CATALOG, accounts)
    for message in messages:
        inventory.take("cam", message, 50_000.0)
    return inventory, inventory.entries["cam"]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ((state(1),), "ready"),
        ((state(1), state(1, DeviceState.LOST)), "lost"),  # the will of the session that runs
        ((state(2), state(1, DeviceState.LOST)), "ready"),  # that of the one before
        ((state(1, DeviceState.LOST), can(2), telemetry(2)), "ready"),  # it came before we did, and is retained
        ((telemetry(2), state(1, DeviceState.LOST)), "ready"),
        ((state(1, DeviceState.LOST), can(2)), "init"),
        ((telemetry(1, replayed=True),), "never seen"),
        ((state(3, DeviceState.SLEEPING), telemetry(2)), "sleeping"),
    ],
)
def test_the_newest_session_says_the_state(messages: tuple[Any, ...], expected: str) -> None:
    assert heard(*messages)[1].state == expected


@given(st.permutations([state(1), state(1, DeviceState.LOST), can(2), state(2), telemetry(2), telemetry(1, 9)]))
def test_in_whatever_order_messages_of_two_sessions_come_the_newer_one_is_ready(messages: list[Any]) -> None:
    _, entry = heard(*messages)
    assert entry.state == "ready" and entry.session == 2
    assert entry.telemetry is not None and entry.telemetry.session == 2


def test_accounts_that_never_came_and_revoked_ones_are_there() -> None:
    accounts = {"cam": AccountFacts(9, revoked=True), "new": AccountFacts(9, revoked=False, tags=("line-3",))}
    inventory, entry = heard(state(1), telemetry(1), can(1), accounts=accounts)
    assert entry.state == "revoked"
    assert inventory.entries["new"].state == "never seen" and inventory.problems(inventory.entries["new"]) == ()
    assert parse("tag=line-3 and state='never seen'").matches(facts(inventory.entries["new"]))
    assert parse("tag=hall-3 and runtime=tflite and version=resnet-light").matches(facts(entry))
    assert "has no account" in heard(state(1), accounts={})[0].problems(Entry("cam"))[0]


def test_the_clock_is_judged_by_the_message_that_lost_least_time() -> None:
    inventory = Inventory({}, None)
    for seq, (at_ms, arrived_ms) in enumerate([(100_000, 95_200.0), (101_000, 96_050.0), (102_000, 97_900.0)]):
        inventory.take("cam", telemetry(1, seq, at_ms, rtt_ms=80.0), arrived_ms)
    skew = inventory.entries["cam"].skew
    # 4,950 ms ahead when it came, after half a round trip of 80 ms
    assert skew is not None and (skew.ahead_ms, skew.uncertain_ms) == (4990.0, 40.0)
    inventory.take("new", telemetry(1), 50_000.0)
    unsure = inventory.entries["new"].skew
    assert unsure is not None and (unsure.ahead_ms, unsure.uncertain_ms) == (0.0, None)


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ((can(1, cores=-3), state(1)), "says cores is -3, which cannot be"),
        ((can(1, memory_mb=2**50), state(1)), "memory_mb"),
        ((can(1, fps=1e9), state(1)), "fps"),
        ((can(1, versions=()), state(1)), "has no version"),
        (
            (can(1, versions=(CachedVersion("resnet-light", "cd" * 32),)),),
            "another resnet-light than this site: cdcdcdcd",
        ),
        ((can(1, versions=(CachedVersion("gpt", "cd" * 32),)),), "has gpt, which this site does not know"),
        ((can(1), telemetry(1, temperature_c=4000.0)), "says temperature_c is 4000"),
        ((can(1), telemetry(1, battery_share=7.0)), "battery_share"),
        ((can(1, versions=(CachedVersion("other", ""),)), telemetry(1)), "follows resnet-light/s2/q8 without having"),
        ((state(1), can(1)), "no telemetry came"),
        ((state(1), telemetry(1)), "has not told what it can do"),
        ((state(1, DeviceState.LOST), telemetry(2), can(2)), "last will of an older session"),
    ],
)
def test_a_device_that_lies_or_lacks_something_is_shown_with_what_is_wrong(messages: Any, problem: str) -> None:
    inventory, entry = heard(*messages)
    assert any(problem in told for told in inventory.problems(entry)), inventory.problems(entry)


def test_an_honest_device_has_no_problems() -> None:
    inventory, entry = heard(state(1), can(1), telemetry(1, temperature_c=48.0, disk_free_mb=900.0))
    assert inventory.problems(entry) == () and inventory.quiet == []


def come(port: int, site: str, session: int) -> Client:
    """Return a device's connection with its last will; what it says first is queued."""
    where = channels.topic(site, "cam", channels.STATE)
    will = Outgoing(where, encode(channels.STATE, state(session, DeviceState.LOST, "gone")), 1, True)
    client = Client(quick(port), f"{site}-{session}", will=will, clean_start=True)
    client.link.publish(where, encode(channels.STATE, state(session)), qos=1, retain=True)
    for channel, message in ((channels.CAPABILITIES, can(session)), (channels.TELEMETRY, telemetry(session))):
        client.link.publish(
            channels.topic(site, "cam", channel), encode(channel, message), qos=1, retain=channel.retained
        )
    return client


def test_a_real_will_that_comes_late_buries_nobody(mosquitto: Broker, site: str) -> None:
    """A board comes back over another way; the broker notices only later that the old connection is dead."""
    inventory = Inventory(CATALOG, None)
    settings = OperatorSettings(site, LinkSettings(port=mosquitto.port))
    wanted = (channels.STATE, channels.CAPABILITIES, channels.TELEMETRY)
    states: list[State] = []

    def take(name: str, message: Any, arrived_ms: float) -> None:
        inventory.take(name, message, arrived_ms)
        if isinstance(message, State):
            states.append(message)

    def now(what: str, session: int) -> Callable[[], bool]:
        def reached() -> bool:
            entry = inventory.entries.get("cam")
            return entry is not None and (entry.state, entry.session) == (what, session)

        return reached

    ways = [Relay("127.0.0.1", mosquitto.port, LinkShape(), seed=1) for _ in range(2)]
    try:
        with SiteLink(settings, wanted, take) as link, come(ways[0].start(), site, 1):
            assert link.listen(now("ready", 1), PATIENCE_S)
            with come(ways[1].start(), site, 2):
                assert link.listen(now("ready", 2), PATIENCE_S)
                ways[0].outage(True)
                assert link.listen(lambda: states[-1] == state(1, DeviceState.LOST, "gone"), PATIENCE_S), "the will"
                assert now("ready", 2)()
                fresh = Inventory(CATALOG, None)  # finds the will alone as retained state
                with SiteLink(settings, wanted, fresh.take) as later:
                    assert later.listen(lambda: "cam" in fresh.entries and fresh.entries["cam"].buried, PATIENCE_S)
                assert fresh.entries["cam"].state != "lost"
                ways[1].outage(True)
                assert link.listen(lambda: states[-1].session == 2, PATIENCE_S)
                assert link.listen(now("lost", 2), PATIENCE_S), "the will of the newest session counts"
    finally:
        for way in ways:
            way.stop()
