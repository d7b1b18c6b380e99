"""The fleet of the bench: made up, it says what a real one would."""

from __future__ import annotations

from edge_broker_side.broker import Broker
from tests.wire.link_client import Client, quick
from tools.bench.made_fleet import FRAMES, MadeFleet
from tools.dashboard.memory import HEARD, SiteMemory
from wire.channels import parse_topic, topic_filter
from wire.codec import decode
from wire.link import Connected, Received, Subscription


def test_a_made_up_device_says_what_a_real_one_would(mosquitto: Broker, site: str) -> None:
    memory = SiteMemory()
    wanted = [Subscription(topic_filter(site, channel), channel.qos) for channel in HEARD]
    with Client(quick(mosquitto.port), f"{site}-ear", subscriptions=wanted) as ear:
        ear.wait(Connected)
        fleet = MadeFleet(site, mosquitto.port, 3)
        for _ in range(2):
            fleet.round(0.05)
        for number, event in enumerate(ear.wait(Received, fleet.said)):
            address = parse_topic(event.topic)
            memory.take(address, decode(address.channel, event.payload), float(number), retained=False)
        fleet.close()
    assert list(memory.devices) == fleet.names
    for device in memory.devices.values():
        assert sum(device.outcomes.values()) == 2 * 2 * FRAMES
        assert device.open_frames == 0 and device.capabilities is not None and device.telemetry is not None
