"""Starts one process of the edge: ``python -m edge_broker_side worker|recorder|mirror|rollout|broker FILE.toml``."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import threading
from pathlib import Path

from edge_broker_side.errors import EdgeError
from tflite_models.catalog import ModelsError
from wire.errors import WireError
from wire.logs import start_logging
from wire.settings import SettingsError, load_settings
from wire.signals import stop_on_signals

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


SERVICES = {
    "worker": ("worker", "WorkerSettings"),
    "recorder": ("recorder", "RecorderSettings"),
    "mirror": ("mirror", "MirrorSettings"),
    "rollout": ("rollout.server", "RolloutSettings"),
    "broker": ("broker", "BrokerSettings"),
}
"""Module and settings of each; every module has ``run(settings, stop)``."""


def main() -> int:
    """Parse, set up logging and signals, run; 2 for bad settings, 1 when the service cannot go on."""
    parser = argparse.ArgumentParser(prog="python -m edge_broker_side", description=__doc__)
    parser.add_argument("service", choices=SERVICES)
    parser.add_argument("settings", type=Path, help="TOML file")
    arguments = parser.parse_args()
    stop = stop_on_signals()
    try:
        _run(arguments.service, arguments.settings, stop)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    except (EdgeError, ModelsError, WireError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        print(f"cannot use {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _run(service: str, path: Path, stop: threading.Event) -> None:
    """Import only the service that runs: a recorder needs no interpreter."""
    module_name, settings_name = SERVICES[service]
    module = importlib.import_module(f"edge_broker_side.{module_name}")
    settings = load_settings(getattr(module, settings_name), path)
    _log(settings.log_level)
    module.run(settings, stop)


def _log(level: str) -> None:
    if level.upper() not in logging.getLevelNamesMapping():
        raise SettingsError(f"log_level = '{level}' is not one of debug, info, warning, error")
    start_logging(level.upper(), FORMAT)


if __name__ == "__main__":
    sys.exit(main())
