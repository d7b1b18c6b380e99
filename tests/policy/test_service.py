"""The decision service over a real broker: a device and a worker that are nothing but their messages."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_broker_side.broker import Broker
from policy.hysteresis import Hysteresis
from policy.interface import Weights
from policy.rules import DeviceRules
from policy.service import HEARD, PolicySettings, run
from tests.policy.builders import (
    CODECS,
    HEAVY_WEBP,
    LIGHT_LOCAL,
    board,
    edge_profile,
    small_catalog,
)
from tflite_models.catalog import MANIFEST, MODEL, version_to_json
from tflite_models.profile import save_profile
from wire import channels
from wire import messages as m
from wire.channels import topic
from wire.codec import decode, encode
from wire.inbox import Inbox
from wire.link import LinkSettings, Received, Subscription
from wire.mqtt import Link
from wire.settings import SettingsError, load_settings

PATIENCE_S = 20.0
FAST = Hysteresis(min_gain=0.0, min_dwell_s=0.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, device profiles and the edge profile."""
    root = tmp_path_factory.mktemp("policy")
    for version in small_catalog():
        folder = root / "models" / version.name
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text(version_to_json(version))
        (folder / MODEL).write_bytes(b"")
    save_profile(board(), root / "profiles" / "board.json")
    save_profile(edge_profile(), root / "edge.json")
    return root


def settings_of(files: Path, broker: Broker, site: str) -> PolicySettings:
    return PolicySettings(
        site=site,
        models=str(files / "models"),
        profiles=str(files / "profiles"),
        edge_profile=str(files / "edge.json"),
        period_s=0.05,
        link=LinkSettings(host=broker.host, port=broker.port, backoff_min_s=0.05),
        hysteresis=FAST,
        defaults=DeviceRules(weights=Weights(0.8, 0.1, 0.1)),
    )


@contextmanager
def serving(settings: PolicySettings) -> Iterator[None]:
    stop, failures = threading.Event(), []

    def serve() -> None:
        try:
            run(settings, stop)
        except BaseException as error:
            failures.append(error)
            raise

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert not failures


class Peer:
    """Publishes as device ``cam`` and worker ``edge``; collects every decision there is."""

    def __init__(self, broker: Broker, site: str, name: str = "peer") -> None:
        self._site = site
        self._inbox = Inbox()
        self.decisions: list[tuple[str, m.Decision, bool]] = []
        watch = [Subscription(channels.topic_filter(site, channels.DECISION), 1)]
        self.link = Link(
            LinkSettings(host=broker.host, port=broker.port), f"{name}-{site}", self._inbox, subscriptions=watch
        )
        self._seq = 0

    def __enter__(self) -> Peer:
        self.link.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.link.stop()

    def say(self, channel: channels.Channel, message: object, name: str = "cam") -> None:
        self.raw(channel, encode(channel, message), name)

    def raw(self, channel: channels.Channel, payload: bytes, name: str = "cam") -> None:
        where = topic(self._site, name, channel)
        assert self.link.publish(where, payload, qos=1, retain=channel.retained) is not None

    def telemetry(self, uplink_bps: float | None, **more: Any) -> None:
        self._seq += 1
        told = {"decision_rev": 0, "plan": LIGHT_LOCAL, "session": 1, **more}
        self.say(
            channels.TELEMETRY,
            m.Telemetry(
                seq=self._seq, at_ms=0, fps=2.0, in_flight=0, queued=0, rtt_ms=5.0, uplink_bps=uplink_bps, **told
            ),
        )

    def birth(self, device_class: str = "board", name: str = "cam") -> None:
        versions = tuple(m.CachedVersion(v.name, v.sha256) for v in small_catalog())
        self.say(
            channels.CAPABILITIES,
            m.Capabilities(
                1, "0.1.0", "test", device_class, "none", 1, 1, versions, tuple(sorted(CODECS)),
                m.EnergySource.MODELLED, fps=2.0, deadline_ms=400.0,
            ),
            name,
        )  # fmt: skip
        self.say(channels.STATE, m.State(m.DeviceState.READY, 1), name)

    def worker(self) -> None:
        versions = tuple(m.CachedVersion(v.name, v.sha256) for v in small_catalog())
        self.say(channels.WORKER_STATE, m.WorkerState(m.DeviceState.READY, 1, "none", 1, versions), "edge")

    def wait(self, reached: Callable[[list[m.Decision]], bool], name: str = "cam") -> list[m.Decision]:
        """Return the decisions for a device once they are as wanted."""
        while not reached(found := [d for n, d, _ in self.decisions if n == name]):
            events = self._inbox.take(PATIENCE_S)
            assert events, f"waited in vain, there were {self.decisions}"
            for event in events:
                if isinstance(event, Received):
                    told = decode(channels.DECISION, event.payload)
                    self.decisions.append((channels.parse_topic(event.topic).name, told, event.retained))
        return found


def test_decisions_follow_the_uplink_and_outlive_the_service(any_broker: Broker, site: str, files: Path) -> None:
    settings = settings_of(files, any_broker, site)
    with Peer(any_broker, site) as peer:
        with serving(settings):
            peer.worker()
            peer.birth()
            (first,) = peer.wait(lambda d: len(d) == 1)
            assert (first.rev, first.plan, first.policy) == (1, HEAVY_WEBP, "pricing")
            peer.telemetry(8e6)
            peer.telemetry(3e4)
            second = peer.wait(lambda d: len(d) == 2)[1]
            assert second.rev == 2
            assert second.plan != HEAVY_WEBP
            assert second.reason.startswith("uplink measured at 30 kbit/s, the deadline would be missed")
        with serving(settings):
            peer.birth(name="dog")
            peer.wait(lambda d: len(d) == 1, "dog")  # from here on the service hears everything
            peer.telemetry(8e6, replayed=True)
            peer.telemetry(3e4, decision_rev=2, plan=second.plan)
            with Peer(any_broker, site, "late") as late:
                late.wait(lambda d: [x.rev for x in d] == [2])
                assert late.decisions[0][2], "retained"
            peer.telemetry(8e6, decision_rev=2, plan=second.plan)
            revs = [d.rev for d in peer.wait(lambda d: d[-1].plan == HEAVY_WEBP and len(d) > 2)]
            assert revs == [1, 2, 3], "an unchanged plan is not published again"


def test_a_device_nobody_profiled_stays_local(any_broker: Broker, site: str, files: Path) -> None:
    with Peer(any_broker, site) as peer, serving(settings_of(files, any_broker, site)):
        peer.worker()
        peer.birth("../../etc/passwd")
        (told,) = peer.wait(lambda d: len(d) == 1)
        assert told.plan == LIGHT_LOCAL
        assert "no profile of this class of device" in told.reason


def test_no_payload_ends_the_service(mosquitto: Broker, site: str, files: Path) -> None:
    with Peer(mosquitto, site) as peer, serving(settings_of(files, mosquitto, site)):
        good = encode(channels.STATE, m.State(m.DeviceState.READY, 1))
        for channel in HEARD:
            if channel is channels.DECISION:
                continue  # the peer listens there itself
            for payload in (b"", b"\xff", os.urandom(64), good[:-1], b"\xdd\xff\xff\xff\xff", good + good):
                peer.raw(channel, payload, "poison")
        peer.say(channels.TELEMETRY, m.Telemetry(1, 1, 0, LIGHT_LOCAL, 0, -1.0, 0, 0, uplink_bps=0.0, rtt_ms=-1.0))
        peer.worker()
        peer.birth()
        peer.birth(name="dog")
        assert peer.wait(lambda d: len(d) == 1)
        assert peer.wait(lambda d: len(d) == 1, "dog")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ('policy = "magic"', "policy = 'magic': allowed are fixed, local, remote, greedy, sequential"),
        ("[defaults.weights]\naccuracy = 0.9", "must sum to 1"),
        ("[devices.cam-1]\nbatery_floor = 0.2", "batery_floor"),
        ("period_s = 0", "period_s = 0: allowed is 0.05 to 3600"),
        ("[link]\nport = 0", "port is 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_words(tmp_path: Path, extra: str, words: str) -> None:
    base = 'site = "s"\nmodels = "m"\nprofiles = "p"\nedge_profile = "e"\n'
    with pytest.raises(SettingsError, match=words):
        load_settings(PolicySettings, write(tmp_path / "policy.toml", base + extra))


def test_settings_as_a_user_writes_them(tmp_path: Path) -> None:
    text = (
        'site = "s"\nmodels = "m"\nprofiles = "p"\nedge_profile = "e"\n[hysteresis]\nmin_dwell_s = 2\n'
        "[defaults]\nbattery_floor = 0.2\nweights = { accuracy = 1, latency = 0, energy = 0 }\n"
        "[devices.cam-1]\nmay_ship_input = false\n"
    )
    settings = load_settings(PolicySettings, write(tmp_path / "policy.toml", text))
    assert settings.defaults == DeviceRules(weights=Weights(1, 0, 0), battery_floor=0.2)
    assert settings.devices == {"cam-1": DeviceRules(may_ship_input=False)}
    assert settings.hysteresis == dataclasses.replace(Hysteresis(), min_dwell_s=2.0)


def test_the_process_starts_from_a_file_and_ends_on_sigterm(mosquitto: Broker, site: str, files: Path) -> None:
    text = (
        f'site = "{site}"\nmodels = "{files / "models"}"\nprofiles = "{files / "profiles"}"\n'
        f'edge_profile = "{files / "edge.json"}"\n[link]\nhost = "{mosquitto.host}"\nport = {mosquitto.port}\n'
    )
    command = [sys.executable, "-m", "policy", str(write(files / "policy.toml", text))]
    with Peer(mosquitto, site) as peer:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            peer.birth()
            peer.wait(lambda d: len(d) == 1)
        finally:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert '"event": "decision"' in said


def test_bad_settings_are_exit_code_2(tmp_path: Path) -> None:
    text = 'site = "s"\nmodels = "absent"\nprofiles = "."\nedge_profile = "e"\n'
    done = subprocess.run(
        [sys.executable, "-m", "policy", str(write(tmp_path / "p.toml", text))],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "absent" in done.stderr
