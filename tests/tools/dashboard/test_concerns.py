"""What is called wrong, and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tools.dashboard.messages import line, load, outcomes, policy, recorder, telemetry
from tools.dashboard.concerns import SILENT_S, LinkHealth, concerns
from tools.dashboard.memory import SiteMemory
from wire import channels
from wire.channels import Address, Channel
from wire.messages import DeviceState, Outcome, State, WorkerState

NOW_S = 10_000.0
HEALTHY = LinkHealth(True, NOW_S - 3600)


def take(memory: SiteMemory, channel: Channel, message: Any, name: str = "cam-1", at_s: float = NOW_S) -> None:
    memory.take(Address("site", name, channel), message, at_s, retained=False)


def healthy(*devices: str) -> SiteMemory:
    memory = SiteMemory()
    take(memory, channels.WORKER_STATE, WorkerState(DeviceState.READY, 1), "edge-1")
    take(memory, channels.WORKER_LOAD, load(), "edge-1")
    take(memory, channels.POLICY_STATE, policy(), "policy")
    take(memory, channels.RECORDER_STATE, recorder(), "recorder")
    for name in devices or ("cam-1",):
        take(memory, channels.STATE, State(DeviceState.READY, 1), name)
        take(memory, channels.TELEMETRY, telemetry(), name)
    return memory


def told(memory: SiteMemory, health: LinkHealth = HEALTHY, now_s: float = NOW_S) -> list[str]:
    return [one.text for one in concerns(memory, health, now_s)]


def test_nothing_is_wrong_with_a_healthy_site() -> None:
    assert told(healthy()) == []


def test_everything_falls_silent_and_says_so() -> None:
    memory = healthy("cam-1", "cam-2")
    assert told(memory, now_s=NOW_S + SILENT_S) == []
    found = told(memory, now_s=NOW_S + SILENT_S + 1)
    assert [text.partition(":")[0] for text in found] == [
        "2 devices silent", "worker edge-1 is silent", "no edge worker is running", "decision service policy is silent",
        "recorder recorder is silent",
    ]  # fmt: skip


def test_a_service_that_was_replaced_is_not_missed() -> None:
    memory = healthy()
    take(memory, channels.POLICY_STATE, policy(), "policy-2", NOW_S + 30)
    found = told(memory, now_s=NOW_S + 31)
    assert not [text for text in found if text.startswith("decision service")]
    assert "decision service policy-2 is silent: devices keep their last plans" in told(memory, now_s=NOW_S + 90)


def test_nobody_is_called_silent_while_the_broker_is_away_or_has_just_come_back() -> None:
    memory = healthy()
    away = told(memory, LinkHealth(False, NOW_S, "closed by the broker"), NOW_S + 600)
    assert away == ["the broker is away (closed by the broker): everything below is of before"]
    assert told(memory, LinkHealth(True, NOW_S + 599), NOW_S + 600) == []


def test_without_any_connection_there_is_nothing_else_to_say() -> None:
    assert told(SiteMemory(), LinkHealth(False, NOW_S, "edge:1883 has not answered yet")) == [
        "no connection to the broker: edge:1883 has not answered yet"
    ]


def test_lost_devices_are_named_up_to_three_and_stopped_ones_are_not_wrong() -> None:
    memory = healthy()
    for n in range(2, 8):
        take(memory, channels.STATE, State(DeviceState.LOST, 1), f"cam-{n}")
    take(memory, channels.STATE, State(DeviceState.STOPPED, 1), "cam-1")
    assert told(memory, now_s=NOW_S + 10) == ["6 devices lost: cam-2, cam-3, cam-4 and 3 more"]


@pytest.mark.parametrize(
    ("outcome", "share", "words", "grave"),
    [
        (Outcome.FALLBACK, 0.2, "1 device falling back: cam-1", False),
        (Outcome.FALLBACK, 0.05, None, False),
        (Outcome.DROPPED, 0.1, "1 device dropping frames: cam-1", True),
        (Outcome.DROPPED, 0.01, None, True),
    ],
)
def test_shares_of_the_last_minute(outcome: Outcome, share: float, words: str | None, grave: bool) -> None:
    memory = healthy()
    lines = [line(n, outcome if n <= 100 * share else Outcome.EDGE) for n in range(1, 101)]
    take(memory, channels.OUTCOMES, outcomes(1, 100, *lines))
    found = concerns(memory, HEALTHY, NOW_S)
    assert [(one.text, one.grave) for one in found] == ([(words, grave)] if words else [])
    take(memory, channels.TELEMETRY, telemetry(), at_s=NOW_S + 70)
    device = memory.devices["cam-1"]
    assert not [t for t in told(memory, now_s=NOW_S + 70) if device.name in t], "a minute later it is over"


def test_frames_that_stay_untold_for_a_minute_are_missing() -> None:
    memory = healthy()
    for second in range(90):
        captured = 10 * (second + 1)
        lost = 8 if second >= 10 else 0
        take(memory, channels.TELEMETRY, telemetry(), at_s=NOW_S + second)
        lines = [line(n) for n in range(captured - 9, captured + 1) if not (second == 10 and n > captured - lost)]
        take(memory, channels.OUTCOMES, outcomes(second + 1, captured, *lines), at_s=NOW_S + second)
        for channel, message, name in (
            (channels.WORKER_LOAD, load(), "edge-1"),
            (channels.POLICY_STATE, policy(), "policy"),
            (channels.RECORDER_STATE, recorder(), "recorder"),
        ):
            take(memory, channel, message, name, NOW_S + second)
        if second in (9, 40):
            assert told(memory, now_s=NOW_S + second) == []
    assert told(memory, now_s=NOW_S + 89) == ["1 device with frames whose outcome nobody told: cam-1"]


@pytest.mark.parametrize(
    ("channel", "message", "words"),
    [
        (channels.WORKER_LOAD, load(busy=3), "worker other turned away 3 frames: its queue is full"),
        (channels.WORKER_LOAD, load(utilisation=0.99), "worker other is 99 % busy"),
        (channels.WORKER_STATE, WorkerState(DeviceState.LOST, 1), "worker other is lost"),
        (
            channels.POLICY_STATE,
            policy(fallback={"no fresh telemetry": 4, "weights refused": 1}),
            "5 device rounds decided by the fallback: no fresh telemetry",
        ),
        (channels.POLICY_STATE, policy(collapsed=True, collapse="all follow one plan"), "all follow one plan"),
        (channels.POLICY_STATE, policy(problems=("rules of cam-1: no",)), "policy: rules of cam-1: no"),
        (
            channels.RECORDER_STATE,
            recorder(reachable=False, waiting=12_345, problem="wrong token: set it anew"),
            "metrics server not reached, 12,345 points wait: wrong token: set it anew",
        ),
        (channels.RECORDER_STATE, recorder(waiting=500, oldest_s=61.0), "500 points wait for the metrics server"),
        (channels.RECORDER_STATE, recorder(dead=1), "1 point refused for good by the metrics server"),
        (channels.RECORDER_STATE, recorder(server="", reachable=False), None),
        (channels.RECORDER_STATE, recorder(waiting=500, oldest_s=2.0), None),
        (channels.TELEMETRY, telemetry(battery_share=0.1), "1 device low on battery: other"),
        (channels.TELEMETRY, telemetry(battery_share=0.5), None),
    ],
)
def test_each_sign_is_told_in_words(channel: Channel, message: Any, words: str | None) -> None:
    memory = healthy()
    take(memory, channel, message, "other")
    assert told(memory) == ([words] if words else [])


def test_our_own_losses_are_told_and_grave_things_come_first() -> None:
    memory = healthy()
    memory.counters.update(unreadable=2, inbox_refused=1, devices_beyond_bound=4)
    memory.behind_s = 4.0
    take(memory, channels.STATE, State(DeviceState.LOST, 1))
    found = told(memory)
    assert found[0] == "1 device lost: cam-1"
    assert [text.split(" ", 1)[0] for text in found[1:]] == ["this", "2", "1", "4"]
    assert found[1] == "this page is 4 s behind: this machine is too slow for it"
