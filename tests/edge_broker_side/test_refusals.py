"""What is read out of mosquitto's log, and what accounts may subscribe to."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_broker_side.broker import BrokerSettings, start_broker
from edge_broker_side.broker_log import LINES_PER_PERIOD, PERIOD_S, Budget, read_counts
from edge_broker_side.refusals import MAX_ACCOUNTS, OTHERS, Attempt, Refusals, Rights, add, for_people, refused
from wire.acl import acl_file
from wire.channels import CHANNELS, Role, shared_filter, topic_filter
from wire.inbox import Inbox
from wire.link import LinkSettings
from wire.mqtt import Link

ACL = """
user cam
topic read a/cam/decision
topic readwrite a/cam/result
topic write a/cam/state
topic b/#
pattern read c/%u/+
"""


@pytest.mark.parametrize(
    ("wanted", "may"),
    [
        ("a/cam/decision", True),
        ("a/cam/result", True),
        ("a/cam/state", False),  # may be written only
        ("a/+/decision", False),
        ("a/cam/#", False),
        ("#", False),
        ("b/#", True),
        ("b/x/+/y", True),
        ("b", True),  # '#' includes its parent
        ("c/cam/x", True),
        ("c/cam/+", True),
        ("c/cam/#", False),
        ("c/dog/x", False),
        ("$share/workers/b/x", True),
        ("$share/workers/a/+/decision", False),
        ("$SYS/#", False),
    ],
)
def test_who_may_subscribe_to_what(wanted: str, may: bool) -> None:
    assert Rights(ACL).may_subscribe("cam", wanted) is may
    assert not Rights(ACL).may_subscribe("stranger", "a/cam/decision")


@pytest.mark.parametrize("role", Role)
def test_whatever_the_table_lets_a_role_read_is_no_attempt(role: Role) -> None:
    rights = Rights(acl_file("plant", {"one": role}))
    for channel in CHANNELS.values():
        own = role is Role.DEVICE or (role is Role.WORKER and channel.name.startswith("worker-"))
        wanted = topic_filter("plant", channel, "one" if own else "+")
        assert rights.may_subscribe("one", wanted) is (role in channel.readers)
        assert rights.may_subscribe("one", shared_filter("workers", wanted)) is (role in channel.readers)
        assert not rights.may_subscribe("one", topic_filter("elsewhere", channel))


@given(st.lists(st.sampled_from(["a", "b", "+", "#"]), min_size=1, max_size=4), st.lists(st.sampled_from("ab")))
def test_a_subscription_that_is_allowed_matches_no_topic_that_is_not(wanted: list[str], topic: list[str]) -> None:
    def matches(levels: list[str]) -> bool:
        for place, level in enumerate(levels):
            if level == "#":
                return True
            if place >= len(topic) or level not in ("+", topic[place]):
                return False
        return len(levels) == len(topic)

    for allowed in (["a", "+"], ["a", "#"], ["a", "b", "+"]):
        rights = Rights(f"user cam\ntopic read {'/'.join(allowed)}")
        if rights.may_subscribe("cam", "/".join(wanted)) and matches(wanted):
            assert matches(allowed)


def test_what_devices_say_is_not_taken_for_the_brokers_words() -> None:
    lines = (
        b"2026-11-01T00:00:00: Received PUBLISH from cam-01 (d0, q1, r0, m1, "
        b"'x: Denied PUBLISH from cam-02 (d0', ... (1 bytes))\n"
        b"2026-11-01T00:00:00: Denied PUBLISH from cam-01 (d0, q1, r0, m2, 'Denied PUBLISH from cam-02', (1 bytes))\n"
        b"2026-11-01T00:00:00: Received SUBSCRIBE from cam-01\n"
        b"2026-11-01T00:00:00: \tcam-02 1 # (QoS 1)\n"
    )
    assert list(refused(lines, Rights(""))) == [(Attempt.PUBLISH, "cam-01")]
    assert for_people(lines).count(b"\n") == 1


@given(st.binary(max_size=200))
def test_any_log_can_be_read(noise: bytes) -> None:
    list(refused(noise, Rights("")))
    for_people(noise)


def test_the_counter_is_bounded() -> None:
    counts: Refusals = Counter()
    for number in range(MAX_ACCOUNTS + 5):
        add(counts, Attempt.PUBLISH, f"cam-{number}")
    add(counts, Attempt.PUBLISH, "cam-0")
    assert len(counts) == MAX_ACCOUNTS + 1
    assert counts[Attempt.PUBLISH, OTHERS] == 5 and counts[Attempt.PUBLISH, "cam-0"] == 2


def test_a_flood_of_lines_does_not_fill_the_disk() -> None:
    budget = Budget()
    flood = b"Denied PUBLISH from cam (...)\n" * 1000
    assert budget.spend(flood, 100.0).count(b"\n") == LINES_PER_PERIOD
    assert budget.spend(flood, 101.0) == b""
    later = budget.spend(b"running\n", 100.0 + PERIOD_S)
    assert later == b"(1800 lines of the broker left out)\nrunning\n"
    assert budget.spend(b"again\n", 101.0 + PERIOD_S) == b"again\n"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"refused": 3}', '{"refused": [{"attempt": "x"}]}'])
def test_a_file_of_counts_that_cannot_be_read_begins_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "refused.json").write_text(text)
    assert read_counts(tmp_path) == {}


def test_a_wrong_password_is_counted(tmp_path: Path) -> None:
    passwords, wrong = tmp_path / "passwords", tmp_path / "wrong"
    passwords.touch()
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "cam", "right"], check=True)
    wrong.write_text("wrong\n")
    settings = BrokerSettings(str(tmp_path / "b"), port=0, kind="mosquitto", password_file=str(passwords))
    with start_broker(settings) as broker:
        link = Link(LinkSettings(port=broker.port, username="cam", password_file=str(wrong)), "cam", Inbox())
        link.start()
        deadline = time.monotonic() + 15
        while not broker.refused[Attempt.NOT_AUTHORISED, ""]:
            assert time.monotonic() < deadline, broker.refused
            time.sleep(0.02)
        link.stop(drain_s=0)
        assert not link.counters["connects"]
