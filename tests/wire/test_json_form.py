"""Messages as JSON: plans and labels readable, numbers finite, size bounded, nothing that steers a terminal."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.examples import EXAMPLES
from wire.channels import CHANNELS, KIB, Address, Channel
from wire.errors import PayloadError
from wire.json_form import MAX_ENTRIES, MAX_ROWS, MAX_TEXT, Labels, to_json, to_text
from wire.messages import FrameOutcome, Outcome, Outcomes, State
from wire.plan import Plan

LABELS: Labels = {"resnet-light": ("boot", "bag", "coat", "dress")}
AS_JSON = [channel for channel in CHANNELS.values() if channel.as_json]


def told(channel: str, message: Any, labels: Labels | None = None) -> dict[str, Any]:
    """Return what a reader of the text gets."""
    text = to_text(to_json(Address("plant", "cam-1", CHANNELS[channel]), message, 1_790_000_000_123, labels))
    assert "\n" not in text
    read: dict[str, Any] = json.loads(text)
    return read


def test_a_result_has_its_plan_in_parts_and_its_label_by_name() -> None:
    assert told("result", EXAMPLES["result"], LABELS) == {
        "site": "plant",
        "device": "cam-1",
        "channel": "result",
        "received_ms": 1_790_000_000_123,
        "session": 41,
        "frame": 1001,
        "plan": "resnet-light/block2/q8",
        "version": "resnet-light",
        "cut": "block2",
        "codec": "q8",
        "status": "ok",
        "outcome": "edge",
        "computed_by": "worker-1",
        "label": 3,
        "score": 0.875,
        "label_name": "dress",
        "outputs_omitted": 1,
        "wait_ms": 1.5,
        "tail_ms": 4.25,
        "batch": 8,
        "reason": "none",
    }


@pytest.mark.parametrize("labels", [None, {}, {"resnet-light": ("only",)}, {"resnet-heavy": ("a", "b", "c", "d")}])
def test_a_label_without_a_name_has_none(labels: Labels | None) -> None:
    read = told("result", EXAMPLES["result"], labels)
    assert (read["label"], read["label_name"]) == (3, None)


def test_a_result_without_a_best_label_says_how_many_outputs_were_left_out() -> None:
    read = told("result", dataclasses.replace(EXAMPLES["result"], best=None))
    assert (read["label"], read["score"], read["label_name"], read["outputs_omitted"]) == (None, None, None, 1)
    assert "outputs" not in read


def test_outcomes_have_one_row_per_frame_with_its_plan() -> None:
    read = told("outcomes", EXAMPLES["outcomes"], LABELS)
    first, second = read["rows"]
    assert (first["frame"], first["outcome"], first["plan"]) == (1001, "edge", "resnet-light/block2/q8")
    assert (first["latency_ms"], first["energy_mj"], first["energy_source"]) == (62.5, 35.5, "measured")
    assert (first["label"], first["label_name"], first["truth"], first["score"]) == (3, "dress", 3, 0.875)
    assert (second["outcome"], second["reason"], second["version"], second["label"]) == (
        "dropped", "queue-full", "resnet-heavy", None,
    )  # fmt: skip
    assert read["folded"] == [{"outcome": "device", "reason": "", "frames": 250}]
    assert (read["captured"], read["rows_omitted"]) == (1003, 0)


def test_of_many_frames_the_newest_are_told() -> None:
    rows = tuple(FrameOutcome(n, Outcome.EDGE, 0, 0, 1.0) for n in range(1, MAX_ROWS + 31))
    read = told("outcomes", Outcomes(1, 1, 200, (Plan("a", "b", "c"),), rows))
    assert [row["frame"] for row in read["rows"]] == list(range(31, MAX_ROWS + 31))
    assert read["rows_omitted"] == 30


@pytest.mark.parametrize("plan", [-1, 1])
def test_a_frame_without_its_plan_is_refused(plan: int) -> None:
    with pytest.raises(PayloadError, match="plan"):
        told("outcomes", Outcomes(1, 1, 1, (Plan("a", "b", "c"),), (FrameOutcome(1, Outcome.EDGE, plan, 0, 1.0),)))


def test_a_32_bit_float_reads_as_it_was_meant() -> None:
    as_sent = 62.34000015258789  # 62.34 in 32 bits
    assert told("result", dataclasses.replace(EXAMPLES["result"], wait_ms=as_sent))["wait_ms"] == 62.34


def test_the_largest_message_stays_small() -> None:
    long = "x" * 200 * KIB
    rows = tuple(
        dataclasses.replace(EXAMPLES["outcomes"].rows[0], plan=0, frame=n, reason=long) for n in range(MAX_ROWS * 2)
    )
    flood = {
        "state": State(EXAMPLES["state"].state, 1, long),
        "result": dataclasses.replace(EXAMPLES["result"], plan=Plan(long, long, long), reason=long, computed_by=long),
        "decision": dataclasses.replace(EXAMPLES["decision"], reason=long, policy=long),
        "telemetry": dataclasses.replace(EXAMPLES["telemetry"], counters={f"{n}{long}": n for n in range(1000)}),
        "outcomes": dataclasses.replace(EXAMPLES["outcomes"], plans=(Plan(long, long, long),), rows=rows),
    }
    assert flood.keys() == {channel.name for channel in AS_JSON}
    for name, message in flood.items():
        read = told(name, message)
        assert len(json.dumps(read)) < 256 * KIB
        assert all(len(text) <= MAX_TEXT for text in read.values() if isinstance(text, str))
    assert told("state", flood["state"])["reason"].endswith("x…")
    assert len(told("telemetry", flood["telemetry"])["counters"]) <= MAX_ENTRIES


@given(st.text())
def test_whatever_a_device_says_is_one_line_that_steers_no_terminal(reason: str) -> None:
    document = to_json(Address("plant", "cam-1", CHANNELS["state"]), State(EXAMPLES["state"].state, 1, reason), 0)
    text = to_text(document)
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in text)
    assert json.loads(text)["reason"] == document["reason"]


@pytest.mark.parametrize("channel", AS_JSON, ids=lambda channel: channel.name)
def test_every_number_of_an_honest_message_survives_a_reader_of_doubles(channel: Channel) -> None:
    def numbers(value: Any) -> Iterator[float]:
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from numbers(inner)
        elif isinstance(value, int | float):
            yield value

    assert all(abs(number) < 2**53 for number in numbers(told(channel.name, EXAMPLES[channel.name])))
    large = {"result": {"stamp_ns": 2**62}, "outcomes": {"batch": 2**62}}.get(channel.name, {})
    message = dataclasses.replace(EXAMPLES[channel.name], **large)
    assert all(abs(number) < 2**53 for number in numbers(told(channel.name, message)))


@pytest.mark.parametrize("channel", AS_JSON, ids=lambda channel: channel.name)
def test_numbers_beyond_json_are_refused(channel: Channel) -> None:
    document = to_json(Address("plant", "cam-1", channel), EXAMPLES[channel.name], 0)
    with pytest.raises(ValueError, match="JSON compliant"):
        to_text({**document, "score": float("nan")})
