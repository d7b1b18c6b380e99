"""The other side of the metrics bench: the same messages through ``influxdb-client``'s own batching, kept in memory."""

from __future__ import annotations

import sys
from pathlib import Path

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import WriteOptions

from edge_broker_side.points import inference_points, to_cell, to_line
from edge_broker_side.recorder import IDLE_S, RecorderSettings
from wire import channels
from wire.codec import decode, encode
from wire.inbox import Inbox
from wire.link import Received, Subscription
from wire.messages import Recorded
from wire.mqtt import Link
from wire.settings import load_settings
from wire.signals import stop_on_signals


def main() -> None:
    """Run with a recorder's settings: hear outcomes, hand their points to the client, give the receipt."""
    stop = stop_on_signals()
    settings = load_settings(RecorderSettings, Path(sys.argv[1]))
    assert settings.influx is not None
    inbox = Inbox()
    heard = [Subscription(channels.topic_filter(settings.site, channels.OUTCOMES), 1)]
    link = Link(settings.link, f"{settings.site}-client", inbox, subscriptions=heard)
    client = InfluxDBClient(settings.influx.url, "", enable_gzip=True, org="bench")
    # Its defaults but for the size of a batch, which is ours: 5 retries within 180 s.
    writer = client.write_api(write_options=WriteOptions(batch_size=settings.influx.batch_points))
    link.start()
    number = 0
    while not stop.is_set():
        for event in inbox.take(IDLE_S):
            if not isinstance(event, Received):
                continue
            address = channels.parse_topic(event.topic)
            message = decode(address.channel, event.payload)
            lines = []
            for point in inference_points(address.site, address.name, message):
                number += 1
                cells = [to_cell(column, point.values.get(column.name)) for column in point.measurement.columns]
                lines.append(to_line(point.measurement, number, point.at_ms, cells))
            writer.write(settings.influx.database, "bench", lines)
            receipt = encode(channels.RECORDED, Recorded(message.session, message.batch))
            link.publish(channels.topic(settings.site, address.name, channels.RECORDED), receipt, qos=1, watch=False)
    link.stop()
    writer.close()  # type: ignore[no-untyped-call]  # sends what it holds, for 300 s at most
    client.close()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
