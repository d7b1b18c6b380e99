"""``python -m device_client device.toml``: parse, then run one device until a signal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from device_client import __version__
from device_client.client import run
from device_client.engine import Engine
from device_client.errors import DeviceError
from device_client.following import Following
from device_client.settings import DeviceSettings
from device_client.updates.start import begin, laid_over, start_again
from tflite_models.catalog import ModelsError, load_catalog
from tflite_models.profile import ProfileError, load_device_profile
from tflite_models.runtime import runtime_name
from wire.errors import WireError
from wire.logs import start_logging
from wire.settings import load_settings
from wire.signals import stop_on_signals


def main() -> int:
    """Return 0 after a clean stop, 2 when the settings cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m device_client",
        description="Run one splitfleet device: camera, head, and the link to the edge.",
        epilog="example: python -m device_client /etc/splitfleet/device.toml",
    )
    parser.add_argument("settings", type=Path, help="the device's settings file (TOML)")
    parser.add_argument("--check", action="store_true", help="only say whether a client would start with these")
    parser.add_argument("--over", type=Path, help="with --check: lay these settings over them, as an update would")
    parser.add_argument("--version", action="version", version=__version__)
    arguments = parser.parse_args()
    stop = stop_on_signals()
    try:
        if arguments.check:
            return _check(arguments.settings, arguments.over)
        start = begin(arguments.settings)
        settings = start.settings
        start_logging(settings.log_level, f"%(asctime)s {settings.name} %(levelname)s %(message)s")
        if run(settings, stop, start):
            start_again()
    except (WireError, ModelsError, ProfileError, DeviceError) as error:
        print(f"device_client: {error}", file=sys.stderr)
        return 2
    return 0


def _check(path: Path, over: Path | None) -> int:
    """Go as far as a start does before it opens what only one client may: settings, interpreter, models, safe plan."""
    settings = load_settings(DeviceSettings, path) if over is None else laid_over(path, over)
    catalog = load_catalog(settings.models)
    Following(settings, catalog, Engine(catalog, threads=settings.threads, runtime=settings.runtime))
    if settings.profile is not None:
        load_device_profile(settings.profile)
    print(f"{settings.name} would start: client {__version__}, {runtime_name(settings.runtime)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
