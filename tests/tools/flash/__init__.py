"""Tests of what people run by hand."""
