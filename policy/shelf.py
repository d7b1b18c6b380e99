"""Reads the profiles of device classes from a folder, ``<device class>.json``."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path

from tflite_models.profile import DeviceProfile, ProfileError, load_device_profile

log = logging.getLogger(__name__)

CLASS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
"""A device class comes from a stranger's message and becomes a file name."""
MAX_PROFILES = 1_000


class ProfileShelf:
    """Gives the same object for the same class and slowdown; a class without a file is looked for again when asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[tuple[str, float], DeviceProfile] = {}

    def __call__(self, device_class: str, slowdown: float) -> DeviceProfile | None:
        """Return the profile of a class, slowed to an emulated board's slowdown; ``None`` where there is none."""
        key = (device_class, slowdown)
        if key not in self._read:
            profile = self._load(device_class, slowdown)
            if profile is None or len(self._read) >= MAX_PROFILES:
                return profile
            self._read[key] = profile
        return self._read[key]

    def _load(self, device_class: str, slowdown: float) -> DeviceProfile | None:
        path = self._folder / f"{device_class}.json"
        if not CLASS.match(device_class) or not path.is_file():
            log.warning(
                "no profile of device class %.64r in %s: its devices stay on a local plan", device_class, self._folder
            )
            return None
        try:
            profile = load_device_profile(path)
        except ProfileError as error:
            log.warning("%s", error)
            return None
        factor = slowdown / profile.slowdown
        if not 0 < factor <= 1e4 or math.isclose(factor, 1.0, rel_tol=1e-3):
            return profile
        return profile.slowed(factor, device_class)
