"""A client of MQTT by paho: publishes with QoS 0 and 1, follows, keeps a message and a session. Fails when something is not as it should be."""

import queue
import ssl
import sys

import paho.mqtt.client as mqtt

PORT, AUTHORITY, TOKEN = int(sys.argv[1]), sys.argv[2], sys.argv[3]
PATIENCE_SECONDS = 30


class Connected:
    def __init__(self, client_id: str, version: mqtt.MQTTProtocolVersion, *, is_clean: bool = True) -> None:
        self.events: queue.Queue[tuple] = queue.Queue()
        options = {} if version == mqtt.MQTTv5 else {"clean_session": is_clean}
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version, **options)
        self.client.tls_set(ca_certs=AUTHORITY, tls_version=ssl.PROTOCOL_TLS_CLIENT)
        self.client.username_pw_set("sensor", TOKEN)
        self.client.on_connect = lambda client, data, flags, reason, properties: self.events.put(
            ("connected", reason.is_failure, flags.session_present)
        )
        self.client.on_subscribe = lambda client, data, number, reasons, properties: self.events.put(
            ("subscribed", [reason.is_failure for reason in reasons])
        )
        self.client.on_message = lambda client, data, message: self.events.put(
            ("message", message.topic, message.payload.decode(), message.qos, message.retain)
        )
        self.client.connect("localhost", PORT)
        self.client.loop_start()
        kind, is_failure, self.has_session = self.next()
        assert (kind, is_failure) == ("connected", False)

    def next(self) -> tuple:
        return self.events.get(timeout=PATIENCE_SECONDS)

    def subscribe(self, topic: str, qos: int) -> bool:
        self.client.subscribe(topic, qos)
        kind, reasons = self.next()
        assert kind == "subscribed"
        return not reasons[0]

    def publish(self, topic: str, payload: str, qos: int, *, is_retained: bool = False) -> None:
        self.client.publish(topic, payload, qos, is_retained).wait_for_publish(PATIENCE_SECONDS)

    def end(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


for version in (mqtt.MQTTv311, mqtt.MQTTv5):
    reader, writer = Connected(f"reader-{version}", version), Connected(f"writer-{version}", version)
    assert reader.subscribe("site/+/temp", 1)
    assert not reader.subscribe("#", 1), "more than the token names"
    for qos in (0, 1):
        writer.publish("site/berlin/temp", f"of {qos}", qos)
        assert reader.next() == ("message", "site/berlin/temp", f"of {qos}", qos, False)
    writer.publish("site/berlin/state", "kept", 1, is_retained=True)
    assert reader.subscribe("site/berlin/state", 1)
    assert reader.next() == ("message", "site/berlin/state", "kept", 1, True)
    reader.end()
    writer.end()

# A session outlives its connection: what is published meanwhile comes later.
away = Connected("away", mqtt.MQTTv311, is_clean=False)
assert not away.has_session
assert away.subscribe("site/oslo/temp", 1)
away.end()
writer = Connected("writer", mqtt.MQTTv311)
writer.publish("site/oslo/temp", "meanwhile", 1)
writer.end()
back = Connected("away", mqtt.MQTTv311, is_clean=False)
assert back.has_session
assert back.next() == ("message", "site/oslo/temp", "meanwhile", 1, False)
back.end()
