"""Four tests for every message, by its being in the channel table: round trip, truncation, noise, golden bytes."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.wire.examples import EXAMPLES, GROWN
from wire.channels import ACTIVATION, CHANNELS, DECISION, RECORDED, STATE, TELEMETRY, Channel
from wire.codec import decode, encode
from wire.errors import PayloadError
from wire.messages import MAJOR, Activation, Recorded, State

GOLDEN = Path(__file__).parent / "golden"

each_channel = pytest.mark.parametrize("channel", CHANNELS.values(), ids=CHANNELS.keys())


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for a field's type; numbers as the wire carries them (32-bit floats, 64-bit ints)."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return st.none() | values_of(next(a for a in args if a is not type(None)))
    if origin is tuple:
        return st.lists(values_of(args[0]), max_size=3).map(tuple)
    if origin is Mapping:
        return st.dictionaries(values_of(args[0]), values_of(args[1]), max_size=3)
    if dataclasses.is_dataclass(hint):
        return messages_of(typing.cast(type, hint))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return st.sampled_from(list(hint))
    leaves: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(-(2**63), 2**63 - 1),
        float: st.floats(width=32, allow_nan=False, allow_infinity=False),
        str: st.text(max_size=20),
        bytes: st.binary(max_size=50),
        bool: st.booleans(),
    }
    return leaves[hint]


@cache
def messages_of(cls: type) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{f.name: values_of(hints[f.name]) for f in dataclasses.fields(cls)})


@each_channel
@given(data=st.data())
def test_every_message_survives_the_round_trip(channel: Channel, data: st.DataObject) -> None:
    message = data.draw(messages_of(channel.message))
    assert decode(channel, encode(channel, message)) == message


@each_channel
@settings(max_examples=25)  # each example is cut at every byte
@given(data=st.data())
def test_every_truncation_is_refused(channel: Channel, data: st.DataObject) -> None:
    payload = encode(channel, data.draw(messages_of(channel.message)))
    for size in range(len(payload)):
        with pytest.raises(PayloadError):
            decode(channel, payload[:size])


@each_channel
@given(data=st.data())
def test_noise_is_refused_or_decodes_to_the_right_type(channel: Channel, data: st.DataObject) -> None:
    """Random bytes, random msgpack, and real messages with some bytes changed, cut out or put in."""
    payload = data.draw(st.one_of(st.binary(max_size=200), _any_msgpack, _mutated(channel)))
    try:
        message = decode(channel, payload)
    except PayloadError:
        return
    assert type(message) is channel.message
    _assert_well_typed(message)


@pytest.mark.parametrize("name", [*CHANNELS, *GROWN])
def test_golden_bytes_still_decode(name: str) -> None:
    """What an older release wrote: never write these files anew, add to a message at its end instead."""
    channel = CHANNELS[name.partition("+")[0]]
    assert decode(channel, (GOLDEN / f"{name}.bin").read_bytes()) == {**EXAMPLES, **GROWN}[name]


_leaf = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5) | st.binary()
_any_msgpack = st.recursive(
    _leaf,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner),
    max_leaves=30,
).map(lambda value: typing.cast(bytes, msgpack.packb([MAJOR, *value] if isinstance(value, list) else value)))


@st.composite
def _mutated(draw: st.DrawFn, channel: Channel) -> bytes:
    payload = bytearray(encode(channel, draw(messages_of(channel.message))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(payload) - 1)))
        payload[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(payload)


def _assert_well_typed(value: object) -> None:
    """Check a decoded message against its annotations, all the way down."""
    hints = typing.get_type_hints(type(value))
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        _assert_fits(getattr(value, field.name), hints[field.name])


def _assert_fits(value: object, hint: Any) -> None:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is not None:
            _assert_fits(value, next(a for a in args if a is not type(None)))
    elif origin is tuple:
        assert type(value) is tuple
        for item in value:
            _assert_fits(item, args[0])
    elif origin is Mapping:
        assert type(value) is dict
        for key, item in value.items():
            _assert_fits(key, args[0])
            _assert_fits(item, args[1])
    elif dataclasses.is_dataclass(hint):
        assert type(value) is hint
        _assert_well_typed(value)
    else:
        assert type(value) is hint


# -- how messages evolve ---------------------------------------------------------------------------------------------


@each_channel
def test_fields_of_a_newer_release_are_ignored(channel: Channel) -> None:
    message = EXAMPLES[channel.name]
    newer = [*msgpack.unpackb(encode(channel, message)), "new", {"field": [1, 2]}]
    assert decode(channel, msgpack.packb(newer, use_single_float=True)) == message


@each_channel
def test_fields_an_older_release_did_not_have_take_their_default(channel: Channel) -> None:
    fields = dataclasses.fields(channel.message)
    kept = [f for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    assert fields[: len(kept)] == tuple(kept), "a field without default stands behind one with"
    message = EXAMPLES[channel.name]
    older = msgpack.unpackb(encode(channel, message))[: 1 + len(kept)]
    decoded = decode(channel, msgpack.packb(older, use_single_float=True))
    assert decoded == channel.message(**{f.name: getattr(message, f.name) for f in kept})


@each_channel
@given(major=st.integers(0, 200))
def test_another_major_version_is_refused(channel: Channel, major: int) -> None:
    assume(major != MAJOR)
    fields = msgpack.unpackb(encode(channel, EXAMPLES[channel.name]))
    with pytest.raises(PayloadError, match=f"version {major}, this release reads {MAJOR}"):
        decode(channel, msgpack.packb([major, *fields[1:]]))


# -- limits ----------------------------------------------------------------------------------------------------------


@each_channel
def test_an_oversize_payload_is_refused_before_it_is_read(channel: Channel) -> None:
    with pytest.raises(PayloadError, match=f"the channel allows {channel.max_bytes}"):
        decode(channel, b"\xc1" * (channel.max_bytes + 1))


def test_an_oversize_message_is_not_sent() -> None:
    with pytest.raises(PayloadError, match="the channel allows 4096"):
        encode(STATE, dataclasses.replace(EXAMPLES["state"], reason="x" * 5000))


@pytest.mark.parametrize(
    "payload",
    [
        b"\xdd\xff\xff\xff\xff",  # an array of 4 billion
        b"\xdf\xff\xff\xff\xff",  # a map of 4 billion
        b"\xc6\xff\xff\xff\xff" + bytes(20),  # 4 GB of binary
        b"\x91" * 4000,  # arrays 4,000 deep
        b"\x81\xa0" * 2000,  # maps 2,000 deep
        b"\x92\x01\xd4\xff\x00",  # an extension type
        b"\x92\x01\xd6\xff\x00\x00\x00\x00",  # a timestamp
        b"\x92\x01\x81\x01\x02",  # a map with an int for a key
        b"\x92\x01\xa1\xff",  # text that is not UTF-8
        b"\x93\x01\x05\x06\x07",  # bytes after the end
        b"\x92\xc3\x05",  # true for a version
        b"",
    ],
    ids=lambda payload: payload[:6].hex() or "empty",
)
@each_channel
def test_hostile_payloads_are_refused(channel: Channel, payload: bytes) -> None:
    with pytest.raises(PayloadError):
        decode(channel, payload)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e39])
def test_numbers_the_wire_cannot_carry_are_not_sent(number: float) -> None:
    for channel, field in ((TELEMETRY, "rtt_ms"), (ACTIVATION, "budget_ms"), (DECISION, "deadline_ms")):
        with pytest.raises(PayloadError):
            encode(channel, dataclasses.replace(EXAMPLES[channel.name], **{field: number}))
    load = EXAMPLES["worker-load"]
    with pytest.raises(PayloadError):
        encode(CHANNELS["worker-load"], dataclasses.replace(load, service_ms={"a/b": number}))


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**70])
def test_integers_beyond_64_bits_are_not_sent(number: int) -> None:
    with pytest.raises(PayloadError):
        encode(RECORDED, Recorded(session=1, batch=number))


def test_a_message_of_another_channel_is_not_sent() -> None:
    with pytest.raises(PayloadError, match="a State is not sent here"):
        encode(ACTIVATION, EXAMPLES["state"])


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ([1, "ready"], "State has 1 fields, at least 2 are needed"),
        ([1, "asleep", 3], "state: not one of init, ready, sleeping, stopped, lost"),
        ([1, "ready", "3"], "session: str where a 64-bit int belongs"),
        ([1, "ready", True], "session: bool where a 64-bit int belongs"),
        ([1, "ready", 3, 7], "reason: int where str belongs"),
    ],
)
def test_a_refusal_names_the_field_and_the_trouble(raw: list[object], problem: str) -> None:
    with pytest.raises(PayloadError) as caught:
        decode(STATE, msgpack.packb(raw))
    assert str(caught.value) == f"not a valid 'state' message: {problem}"


def test_messages_are_arrays_in_field_order_behind_the_version() -> None:
    """The layout other languages rely on."""
    example = EXAMPLES["state"]
    assert isinstance(example, State)
    assert msgpack.unpackb(encode(STATE, example)) == [1, "ready", 41, "boot", 1_790_000_000_000]
    activation = EXAMPLES["activation"]
    assert isinstance(activation, Activation)
    assert msgpack.unpackb(encode(ACTIVATION, activation))[3] == ["resnet-light", "block2", "q8"]
