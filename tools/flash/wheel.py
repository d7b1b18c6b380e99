"""Our own wheel for boards: the client and whatever of this repository it imports, and nothing else."""

from __future__ import annotations

import ast
import base64
import hashlib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import device_client

ROOT = Path(device_client.__file__).parents[1]
OURS = ("device_client", "wire", "tflite_models")
NAME = "splitfleet_device"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The one time stamp of all entries: the same sources give the same bytes."""
REQUIRES = (
    "numpy>=1.24",
    "msgpack>=1.0",
    "paho-mqtt>=2.1,<3",
    "pillow>=9.4",
    "dacite>=1.9",
    'tflite-runtime==2.14.0; python_version < "3.12"',
    'ai-edge-litert>=2.3; python_version >= "3.12"',
)
"""What the wheel says it needs; the older versions are those of Debian 12, which 32-bit boards take."""


def wheel_name() -> str:
    """Return the file name of the wheel."""
    return f"{NAME}-{device_client.__version__}-py3-none-any.whl"


@cache
def device_sources() -> tuple[Path, ...]:
    """Return every source file a client can come to import, relative to the repository: found by reading them."""
    found: set[Path] = set()
    waiting = sorted((ROOT / "device_client").rglob("*.py"))
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for name in _imported(path):
            waiting += _files(name)
    return tuple(sorted(path.relative_to(ROOT) for path in found))


def build_wheel(folder: Path) -> Path:
    """Write the wheel and return its path; raises ``OSError``."""
    info = f"{NAME}-{device_client.__version__}.dist-info"
    contents = {str(path): (ROOT / path).read_bytes() for path in device_sources()}
    contents[f"{info}/METADATA"] = _metadata().encode()
    contents[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: splitfleet\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},{_hash(data)},{len(data)}\n" for name, data in contents.items())
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / wheel_name()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as wheel:
        for name, data in contents.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            wheel.writestr(entry, data)
    return path


def _imported(path: Path) -> Iterator[str]:
    """Yield the names of ours that a file imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import, which is not the style of this repository"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] in OURS)


def _files(name: str) -> list[Path]:
    """Return the files that importing a dotted name runs; its last parts may be attributes of a module."""
    files: list[Path] = []
    place = ROOT
    for part in name.split("."):
        place /= part
        files += [path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file()]
    return files


def _metadata() -> str:
    lines = ["Metadata-Version: 2.1", "Name: splitfleet-device", f"Version: {device_client.__version__}"]
    lines += ["Summary: The splitfleet client for boards", "Requires-Python: >=3.11"]
    return "\n".join([*lines, *(f"Requires-Dist: {need}" for need in REQUIRES)]) + "\n"


def _hash(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
