"""A folder that holds what a board has: the three packages flashed onto it, and what the ``device`` extra installs."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
from pathlib import Path

FLASHED = ("device_client", "wire", "tflite_models")
_RUN = """
import runpy, sys
sys.path[:] = [place for place in sys.path if place and "site-packages" not in place] + [sys.argv[1]]
module, sys.argv = sys.argv[2], sys.argv[2:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def device_distributions() -> set[str]:
    """Return the names of all distributions that ``pip install splitfleet[device]`` brings."""
    waiting = [
        requirement
        for requirement in importlib.metadata.requires("splitfleet") or []
        if "extra ==" not in requirement or re.search(r"extra == .device.", requirement)
    ]
    found: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        match = re.match(r"[A-Za-z0-9._-]+", requirement)
        name = match[0].lower() if match else ""
        if name in found:
            continue
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            if ";" in requirement:  # of another Python or system
                continue
            raise
        found.add(name)
        waiting += [need for need in needs if "extra ==" not in need]
    return found


def make_board(folder: Path) -> Path:
    """Fill ``folder`` with links to the distributions and copies of our packages, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in device_distributions():
        distribution = importlib.metadata.distribution(name)
        tops = {Path(str(file)).parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        for top in tops:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution.locate_file(top))))
    ours = Path(__file__).parents[2]
    ignored = shutil.ignore_patterns("__pycache__", "zoo", "builder")
    for package in FLASHED:
        shutil.copytree(ours / package, folder / package, ignore=ignored)
    return folder


def on_board(board: Path, module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module there, with nothing else of this environment in reach."""
    return [sys.executable, "-I", "-S", "-c", _RUN, str(board), module, *arguments]
