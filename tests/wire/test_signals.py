"""Many signals at once end a process once, in good order."""

from __future__ import annotations

import signal
import subprocess
import sys

STORM = 300
PROCESS = f"""
import os, signal
from wire.signals import stop_on_signals

stop = stop_on_signals()
pid = os.getpid()
if os.fork() == 0:  # the storm comes from elsewhere, while the handler runs
    for _ in range({STORM}):
        os.kill(pid, signal.SIGTERM)
    os._exit(0)
while not stop.is_set():
    pass
for _ in range({STORM}):
    os.kill(pid, signal.SIGINT)
os.wait()
print("ended")
"""


def test_a_storm_of_signals_sets_the_event_and_nothing_else() -> None:
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "the tests' own process is left alone"
