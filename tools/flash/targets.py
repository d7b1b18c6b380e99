"""The kinds of boards that can be flashed, and which packages each needs for its Python."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tools.flash.errors import FlashError

GLIBC_MINORS = (17, 24, 26, 27, 28, 31, 34)
"""glibc 2.N of the wheels a board may take: Debian 12 has 2.36. pip compares the tags of another platform exactly."""
PIP = "pip==26.3"
"""Goes along as a wheel and installs the others, so that a board needs neither python3-venv nor a network."""
NUMPY_BEHIND_CONSTRAINTS = "numpy==2.4.6"
"""For Pythons that constraints.txt is not made for: tflite-runtime alone needs numpy below 2, and it ends at 3.11."""


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of board."""

    name: str
    processor: str
    """As wheels call it."""
    debian: str
    """As Debian calls it."""
    pythons: tuple[str, ...]
    """For which its runtime has wheels; the usual one first."""
    from_debian: Mapping[str, str]
    """Python package → Debian package, where there is no wheel."""

    def check_python(self, python: str) -> str:
        """Return the Python; raises ``FlashError`` for one that this board cannot have."""
        if python not in self.pythons:
            raise FlashError(f"{self.name} can be flashed for Python {', '.join(self.pythons)}, not '{python}'")
        return python

    def platforms(self) -> list[str]:
        """Return the wheel tags this board takes, the newest glibc first."""
        tags = [f"manylinux_2_{minor}_{self.processor}" for minor in reversed(GLIBC_MINORS)]
        return [*tags, f"manylinux2014_{self.processor}"]

    def requirements(self, python: str, *, camera: bool = False) -> tuple[str, ...]:
        """Return what pip is asked for; ``camera`` adds what a V4L2 camera needs."""
        runtime = "tflite-runtime" if python == "3.11" else "ai-edge-litert"
        wanted = [PIP, runtime, "numpy", "msgpack", "paho-mqtt", "pillow", "dacite", *(["linuxpy"] if camera else [])]
        return tuple(name for name in wanted if name not in self.from_debian)


_NEWER = ("3.12", "3.13")
TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target("pi64", "aarch64", "arm64", ("3.11", *_NEWER), {}),
        Target(
            "pi32",
            "armv7l",
            "armhf",
            ("3.11",),
            {"numpy": "python3-numpy", "msgpack": "python3-msgpack", "pillow": "python3-pil"},
        ),
        Target("x86", "x86_64", "amd64", ("3.11", *_NEWER), {}),
    )
}


def target_named(name: str) -> Target:
    """Return a kind of board; raises ``FlashError`` naming those there are."""
    if name not in TARGETS:
        raise FlashError(f"there is no target '{name}'; there are {', '.join(TARGETS)}")
    return TARGETS[name]


def constraints_for(python: str, constraints: str) -> str:
    """Return the lines of constraints.txt that hold for a Python."""
    if python == "3.11":
        return constraints
    kept = re.sub(r"(?mi)^(numpy|ml_dtypes)==.*\n", "", constraints)
    return f"{kept}{NUMPY_BEHIND_CONSTRAINTS}\n"
