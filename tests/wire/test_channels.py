"""Topics: built and parsed from one table, foreign ones refused, and the table itself sound."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from wire import messages
from wire.channels import (
    CHANNELS,
    ROOT,
    Address,
    Channel,
    check_name,
    json_topic,
    parse_topic,
    shared_filter,
    topic,
    topic_filter,
)
from wire.errors import TopicError, WireError

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=64)
channels = st.sampled_from(list(CHANNELS.values()))


@given(names, names, channels)
def test_a_topic_tells_what_it_was_made_of(site: str, name: str, channel: Channel) -> None:
    assert parse_topic(topic(site, name, channel)) == Address(site, name, channel)


@given(names, names, channels, channels, names)
def test_filters_match_their_channel_and_no_other(
    site: str, name: str, channel: Channel, other: Channel, other_name: str
) -> None:
    published = topic(site, name, channel)
    assert topic_matches_sub(topic_filter(site, channel), published)
    assert topic_matches_sub(topic_filter(site, channel, name), published)
    assert topic_matches_sub(topic_filter(site, other), published) == (other is channel)
    assert topic_matches_sub(topic_filter(site, channel, other_name), published) == (other_name == name)


@given(names, names, channels)
def test_what_a_mirror_says_is_on_a_topic_that_nothing_else_reads(site: str, name: str, channel: Channel) -> None:
    if not channel.as_json:
        with pytest.raises(TopicError, match="not said again"):
            json_topic(site, name, channel)
        return
    said = json_topic(site, name, channel)
    assert said == f"{topic(site, name, channel)}/json"
    assert not any(topic_matches_sub(topic_filter(site, other), said) for other in CHANNELS.values())
    with pytest.raises(TopicError):
        parse_topic(said)


@given(st.text(max_size=80))
def test_anything_but_a_name_is_refused(text: str) -> None:
    assume(not re.fullmatch("[a-z0-9-]{1,64}", text))
    with pytest.raises(TopicError, match="use 1 to 64 characters of a-z, 0-9 and '-'"):
        check_name(text, "device")


@pytest.mark.parametrize("name", ["", "a" * 65, "Cam", "cam/1", "+", "#", "$share", "cam 1", "cam\n", "cäm", "a\x00"])
def test_names_that_would_change_a_topic_are_refused(name: str) -> None:
    state = CHANNELS["state"]
    with pytest.raises(TopicError):
        topic("site", name, state)
    with pytest.raises(TopicError):
        topic(name, "cam", state)
    with pytest.raises(TopicError):
        topic_filter(name, state)
    with pytest.raises(TopicError):
        shared_filter(name, "x/#")


@given(st.one_of(st.text(), st.lists(st.text(max_size=5) | st.sampled_from(["splitfleet", "v1"])).map("/".join)))
def test_foreign_topics_are_refused(text: str) -> None:
    try:
        address = parse_topic(text)
    except TopicError:
        return
    assert text == f"{ROOT}/{address.site}/{address.name}/{address.channel.name}"


@pytest.mark.parametrize(
    "text",
    [
        "splitfleet/v2/site/cam/state",
        "splitfleet/v1/site/cam",
        "splitfleet/v1/site/cam/state/more",
        "splitfleet/v1/site/cam/secrets",
        "splitfleet/v1//cam/state",
        "/splitfleet/v1/site/cam/state",
    ],
)
def test_near_misses_are_refused(text: str) -> None:
    with pytest.raises(TopicError):
        parse_topic(text)


def test_a_shared_filter_is_a_group_before_the_bare_filter() -> None:
    bare = topic_filter("plant", CHANNELS["activation"])
    assert bare == "splitfleet/v1/plant/+/activation"
    assert shared_filter("workers", bare) == "$share/workers/splitfleet/v1/plant/+/activation"


def test_the_table_is_sound() -> None:
    assert all(key == channel.name for key, channel in CHANNELS.items())
    assert len({channel.message for channel in CHANNELS.values()}) == len(CHANNELS)
    for channel in CHANNELS.values():
        check_name(channel.name, "channel")
        assert channel.writers, f"nobody writes {channel.name}"
        assert channel.qos in (0, 1)
        assert not (channel.retained and channel.qos == 0), "a retained message must arrive"
        assert 0 < channel.max_bytes <= 4 * 1024 * 1024
        assert channel.message.__module__ == messages.__name__


def test_every_refusal_has_one_root() -> None:
    assert issubclass(TopicError, WireError)
