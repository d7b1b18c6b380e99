"""``python -m device_client device.toml``: parse, then run one device until a signal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from device_client import __version__
from device_client.client import run
from device_client.errors import DeviceError
from device_client.settings import DeviceSettings
from tflite_models.catalog import ModelsError
from tflite_models.profile import ProfileError
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
    parser.add_argument("--version", action="version", version=__version__)
    arguments = parser.parse_args()
    stop = stop_on_signals()
    try:
        settings = load_settings(DeviceSettings, arguments.settings)
        start_logging(settings.log_level, f"%(asctime)s {settings.name} %(levelname)s %(message)s")
        run(settings, stop)
    except (WireError, ModelsError, ProfileError, DeviceError) as error:
        print(f"device_client: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
