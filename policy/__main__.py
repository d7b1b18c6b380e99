"""``python -m policy FILE.toml``: one decision service."""

from __future__ import annotations

import sys
from pathlib import Path

from policy.errors import PolicyError
from policy.service import PolicySettings, run
from wire.errors import WireError
from wire.logs import start_logging
from wire.settings import load_settings
from wire.signals import stop_on_signals


def main(arguments: list[str]) -> int:
    """Parse, serve until SIGTERM or SIGINT, return the exit code: 2 for settings that cannot be used."""
    if len(arguments) != 1:
        print("usage: python -m policy FILE.toml", file=sys.stderr)
        return 2
    try:
        file = Path(arguments[0])
        settings = load_settings(PolicySettings, file)
        start_logging(settings.log_level, "%(asctime)s %(levelname)s %(name)s %(message)s")
        stop = stop_on_signals()
        run(settings, stop, file)
    except (PolicyError, WireError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
