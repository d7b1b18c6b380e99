"""Print the results of a splitfleet site; needs paho-mqtt and msgpack, nothing of splitfleet.

python subscribe.py [SITE [HOST [PORT]]]
"""

import sys

import msgpack
import paho.mqtt.client as mqtt

site, host, port = [*sys.argv[1:], *["default", "localhost", "1883"][len(sys.argv) - 1 :]]


def on_connect(client, *_):
    client.subscribe(f"splitfleet/v1/{site}/+/result", qos=1)


def on_message(_client, _userdata, message):
    device = message.topic.split("/")[3]
    major, _session, frame, plan, status, outcome, computed_by, best, *_ = msgpack.unpackb(message.payload)
    if major == 1:  # docs/protocol.md lists the fields: a plan is [version, cut, codec], the best answer [label, score]
        print(device, frame, "/".join(plan), status, outcome, computed_by, *(best or ["-", "-"]), flush=True)


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
# With accounts: client.username_pw_set("viewer", "its password"); client.tls_set("ca.pem")
client.on_connect, client.on_message = on_connect, on_message
client.connect(host, int(port))
client.loop_forever()
