"""``splitfleet watch`` as a process of its own: what it prints, in which order, and how it ends."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_broker_side.broker import Broker, free_port
from tests.brokers import launch
from tests.edge_broker_side.peers import Peer
from tests.wire.examples import EXAMPLES
from tools.watch_view import COLUMNS, heading, lines
from wire import channels
from wire.channels import CHANNELS, Address, Channel
from wire.json_form import to_json
from wire.messages import DeviceState, State

PATIENCE_S = 30.0


class Watch:
    """A running ``splitfleet watch``; a thread reads each of its outputs."""

    def __init__(self, *words: str, **more: int) -> None:
        command = [sys.executable, "-m", "tools.cli", "watch", *words]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        )  # type: ignore[call-overload]
        self.out: list[str] = []
        self.err: list[str] = []
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._read, args=(pipe, lines))
            for pipe, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err))
            if pipe is not None
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, pipe: Iterator[bytes], into: list[str]) -> None:
        for line in pipe:
            with self._changed:
                into.append(line.decode())
                self._changed.notify_all()

    def until(self, text: str, where: str = "out") -> str:
        """Return the first line with a text in it, waiting for it."""
        with self._changed:
            lines = self.err if where == "err" else self.out
            self._changed.wait_for(lambda: any(text in line for line in lines), PATIENCE_S)
            found = next((line for line in lines if text in line), None)
        assert found is not None, f"'{text}' stayed away; out: {self.out[-5:]}, err: {self.err[-5:]}"
        return found

    def end(self, how: signal.Signals | None = None) -> int:
        if how is not None:
            self.process.send_signal(how)
        code: int = self.process.wait(PATIENCE_S)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        return code


@contextmanager
def watching(*words: str) -> Iterator[Watch]:
    watch = Watch(*words)
    try:
        yield watch
    finally:
        watch.process.kill()
        watch.end()
        for pipe in (watch.process.stdout, watch.process.stderr):
            if pipe is not None:
                pipe.close()


def at(broker: Broker, site: str) -> tuple[str, ...]:
    return ("--site", site, "--port", str(broker.port))


def shown(channel: Channel) -> list[str]:
    document = to_json(Address("plant", "cam-1", channel), EXAMPLES[channel.name], 0, {})
    return [line.plain for line in lines(channel, document, "12:34:56")]


def test_states_are_told_the_retained_first_and_ctrl_c_ends_well(mosquitto: Broker, site: str) -> None:
    with Peer(mosquitto, site) as peer:
        peer.say(channels.STATE, State(DeviceState.READY, 3, "boot"))
        with watching("state", *at(mosquitto, site)) as watch:
            assert watch.until("boot").split() == ["retained", "cam", "ready", "3", "boot"]
            peer.raw(channels.STATE, b"rubbish")
            assert "/cam/state: not a valid 'state' message" in watch.until("unreadable", "err")
            peer.say(channels.STATE, State(DeviceState.LOST, 3, "connection lost"))
            assert "retained" not in watch.until("connection lost")
            assert watch.out[0].split() == ["time", "device", "state", "session", "reason"]
            assert watch.end(signal.SIGINT) == 0
            assert "1 unreadable message" in watch.err[-1]


def test_json_is_one_object_a_line_with_the_names_of_labels(mosquitto: Broker, site: str) -> None:
    with Peer(mosquitto, site) as peer, watching("results", "--json", "--count", "2", *at(mosquitto, site)) as watch:
        said = 0
        while not watch.out:  # until it has subscribed
            said += 1
            peer.say(channels.RESULT, dataclasses.replace(EXAMPLES["result"], frame=said))
            peer.take(0.1)
        while watch.process.poll() is None:
            peer.say(channels.RESULT, EXAMPLES["result"])
            peer.take(0.1)
        assert watch.end() == 0
        first, second = (json.loads(line) for line in watch.out)
        assert first["label_name"] and first["label"] == 3  # resnet-light is a version of this machine
        assert second["device"] == "cam"


def test_of_one_device_alone(mosquitto: Broker, site: str) -> None:
    with Peer(mosquitto, site) as peer:
        for name in ("cam-1", "cam-2", "cam-3"):
            peer.say(channels.DECISION, EXAMPLES["decision"], name=name)
        watch_words = ("decisions", "--device", "cam-2", "--json", "--count", "1", *at(mosquitto, site))
        with watching(*watch_words) as watch:
            assert json.loads(watch.until("{"))["device"] == "cam-2"
            assert watch.end() == 0


def test_a_reader_that_has_enough_ends_it_well(mosquitto: Broker, site: str) -> None:
    words = " ".join([sys.executable, "-m", "tools.cli", "watch", "state", *at(mosquitto, site)])
    command = f"{words} %s | head -n 1; echo ${{PIPESTATUS[0]}}"
    with Peer(mosquitto, site) as peer:
        for number in range(20):
            peer.say(channels.STATE, State(DeviceState.READY, 1), name=f"cam-{number}")
        for form in ("--json", ""):
            told = subprocess.run(
                ["bash", "-c", command % form], capture_output=True, text=True, timeout=PATIENCE_S, check=False
            )
            assert (told.stdout.splitlines()[-1], told.stderr) == ("0", "")


def test_a_broker_that_is_away_comes_and_goes_is_told_on_stderr(tmp_path: Path, site: str) -> None:
    port = free_port()
    with watching("state", "--json", "--site", site, "--port", str(port)) as watch:
        assert "ConnectionRefusedError" in watch.until("no connection", "err")
        for number in (1, 2):
            with launch("mosquitto", tmp_path / "broker", port) as broker, Peer(broker, site) as peer:
                peer.say(channels.STATE, State(DeviceState.READY, number))
                watch.until(f'"session":{number}')
        watch.until("connected again", "err")
        assert watch.end(signal.SIGTERM) == 0


def test_no_broker_for_as_long_as_was_asked_is_an_error() -> None:
    with watching("results", "--port", str(free_port()), "--seconds", "0.3") as watch:
        assert watch.end() == 2
        assert "no broker answered" in watch.err[-1]


def test_a_terminal_gets_colours_and_a_pipe_none(mosquitto: Broker, site: str) -> None:
    with Peer(mosquitto, site) as peer:
        peer.say(channels.STATE, State(DeviceState.READY, 1))
    ours, theirs = pty.openpty()
    watch = Watch("state", "--count", "1", *at(mosquitto, site), stdout=theirs)
    os.close(theirs)
    painted = b""
    try:
        while more := os.read(ours, 4096):
            painted += more
    except OSError:  # the other side of a pseudo-terminal has gone
        pass
    finally:
        os.close(ours)
    assert watch.end() == 0
    assert watch.process.stderr is not None
    watch.process.stderr.close()
    assert b"\x1b[32m" in painted and b"ready" in painted
    with watching("state", "--count", "1", *at(mosquitto, site)) as piped:
        assert "\x1b" not in piped.until("ready")


def test_a_settings_file_takes_the_place_of_options(tmp_path: Path) -> None:
    path = tmp_path / "viewer.toml"
    path.write_text('site = "plant"\n[link]\nport = 1\n')
    with watching("state", "--settings", str(path), "--site", "other") as watch:
        assert watch.end() == 2
        assert "takes the place of options" in "".join(watch.err)


@pytest.mark.parametrize("name", COLUMNS)
def test_every_channel_has_its_columns_under_their_heads(name: str) -> None:
    channel = CHANNELS[name]
    head, rows = heading(channel), shown(channel)
    assert head.startswith("time")
    assert all(row.startswith("12:34:56  cam-1") for row in rows)
    assert len(rows) == (2 if name == "outcomes" else 1)


def test_a_frame_shows_what_it_cost_and_whether_that_was_measured() -> None:
    first, second = shown(channels.OUTCOMES)
    assert "35.5 measured" in first and "62.5" in first and "resnet-light/block2/q8" in first
    assert "dropped" in second and second.endswith("queue-full")


def test_what_a_device_says_does_not_steer_the_terminal() -> None:
    nasty = dataclasses.replace(EXAMPLES["state"], reason="\x1b[2Jgone\x9b31m\r\n")
    document = to_json(Address("plant", "cam-1", channels.STATE), nasty, 0, {})
    (line,) = lines(channels.STATE, document, "12:34:56")
    assert line.plain.endswith("�[2Jgone�31m��") and line.plain.isprintable()
