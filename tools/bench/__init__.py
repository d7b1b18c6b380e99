"""Benches: what device and worker add to the bare interpreter loop."""
