"""``splitfleet mirror`` and the accounts it needs, as a user types them."""

from __future__ import annotations

import typer
from typer.testing import CliRunner

from edge_broker_side.broker import Broker
from edge_broker_side.homeassistant import HomeAssistantSettings
from tests.edge_broker_side.peers import Peer
from tests.edge_broker_side.test_mirror import Reader
from tools.servers import acl, mirror
from wire import channels


def run(command: object, *words: str) -> str:
    app = typer.Typer()
    app.command()(command)  # type: ignore[type-var]
    result = CliRunner().invoke(app, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_forget_takes_everything_back_and_says_what_brings_it_again(mosquitto: Broker, site: str) -> None:
    said = [
        channels.json_topic(site, "cam-1", channels.STATE),
        channels.json_topic(site, "cam-1", channels.DECISION),
        HomeAssistantSettings().topic(site, "cam-1"),
    ]
    with Peer(mosquitto, site) as peer, Reader(mosquitto, f"{site}-reader", *said) as reader:
        for topic in said:
            peer.link.publish(topic, b"{}", qos=1, retain=True)
        reader.until(lambda told: len(told) == 3)
        words = ("--site", site, "--port", str(mosquitto.port), "--home-assistant", "--forget", "cam-1")
        assert 'forget = ["cam-1"]' in run(mirror, *words)
        reader.until(lambda told: all(one is None for one in told.values()))


def test_an_acl_lets_a_mirror_announce_below_another_prefix() -> None:
    words = ("--site", "plant", "--account", "m=mirror", "--discovery-prefix", "ha")
    told = run(acl, *words).splitlines()
    assert "topic write ha/device/splitfleet-plant/+/config" in told
    assert "topic read ha/status" in told
    assert "topic write splitfleet/v1/plant/+/result/json" in told
    assert not any("homeassistant" in line for line in told)
