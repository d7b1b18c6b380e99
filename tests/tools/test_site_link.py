"""An owner's connection: rubbish is counted by sender, pings come back, a broker that is not there is told of."""

from __future__ import annotations

from typing import Any

import pytest

from edge_broker_side.broker import Broker, free_port
from tests.wire.examples import EXAMPLES
from tests.wire.link_client import Client, quick
from tools.operator_link import NotReached, OperatorSettings
from tools.site_link import SiteLink
from wire.channels import STATE, TELEMETRY, topic
from wire.codec import encode
from wire.link import LinkSettings

PATIENCE_S = 20.0


def test_messages_come_with_their_arrival_and_rubbish_is_counted_by_sender(mosquitto: Broker, site: str) -> None:
    heard: list[tuple[str, Any]] = []
    settings = OperatorSettings(site, LinkSettings(port=mosquitto.port))
    with (
        SiteLink(settings, (STATE, TELEMETRY), lambda name, message, _: heard.append((name, message))) as link,
        Client(quick(mosquitto.port), f"{site}-d") as device,
    ):
        device.link.publish(topic(site, "cam", TELEMETRY), b"rubbish", qos=1)
        device.link.publish(topic(site, "cam", STATE), encode(STATE, EXAMPLES["state"]), qos=1)
        assert link.listen(lambda: bool(heard), PATIENCE_S)
        assert heard == [("cam", EXAMPLES["state"])]
        assert link.unreadable == {"cam": 1}
        assert not link.listen(lambda: False, 0.0)


def test_every_ping_comes_back(mosquitto: Broker, site: str) -> None:
    with SiteLink(OperatorSettings(site, LinkSettings(port=mosquitto.port)), (), lambda *_: None) as link:
        taken = link.ping(20, PATIENCE_S)
    assert len(taken) == 20 and min(taken) > 0
    assert link.max_packet_bytes > 2**22


def test_a_broker_that_is_not_there_is_told_with_the_reason() -> None:
    link = LinkSettings(port=free_port(), connect_timeout_s=0.3)
    with (
        pytest.raises(NotReached, match=r"within 0.3 s \(ConnectionRefusedError.*is the broker running"),
        SiteLink(OperatorSettings("plant", link), (), lambda *_: None),
    ):
        pass
