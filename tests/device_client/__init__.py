"""Tests of the device client."""
