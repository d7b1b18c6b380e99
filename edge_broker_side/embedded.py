"""The child process of the embedded broker, so that it can be stopped: ``python -m edge_broker_side.embedded TOML``."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

import iotcore


def _end_with_parent() -> None:
    """Wait for the parent's end of our stdin to close: it stopped, or died."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Serve until the parent goes away or a signal comes; the broker itself has no way to be stopped."""
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)  # it logs every packet as an error
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    iotcore.Broker(config_path=sys.argv[1]).run_forever()


if __name__ == "__main__":
    main()
