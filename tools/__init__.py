"""The `splitfleet` command and everything people run by hand: demo, profiler, link emulator, benches."""
