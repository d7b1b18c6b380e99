"""The contract between devices and the edge: topics, messages, codecs and the MQTT link."""
