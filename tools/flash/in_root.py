"""``python -m tools.flash.in_root ROOT USER COMMAND…``: become a command inside a Debian root."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tools.flash.debian_root import ENVIRONMENT, enter


def main() -> None:
    """Never returns."""
    root, user, *command = sys.argv[1:]
    kept = {name: os.environ[name] for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC") if name in os.environ}
    line = enter(Path(root), command, user=user)
    os.execvpe(line[0], line, {**ENVIRONMENT, **kept})


if __name__ == "__main__":
    main()
