"""Tests of the contract: messages, topics, settings, queues and the MQTT link."""
