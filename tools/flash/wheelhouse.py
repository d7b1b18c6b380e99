"""The wheels of other people for a kind of board: fetched once by pip, kept on this machine with their hashes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tflite_models.catalog import sha256_of
from tools.flash.errors import FlashError
from tools.flash.targets import Target, constraints_for
from tools.home import home

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
LOCK = "lock.json"


@dataclass(frozen=True, slots=True)
class Wheelhouse:
    """A folder with wheels, and what they are."""

    folder: Path
    sha256: Mapping[str, str]
    """By file name."""
    fetched: bool
    """Whether a network was needed this time."""


def wheelhouse(target: Target, python: str, *, camera: bool = False) -> Wheelhouse:
    """Return the wheels for a board, out of this machine's cache where they are whole there.

    Raises ``FlashError`` where they have to be fetched and cannot be.
    """
    folder = home() / "wheelhouse" / f"{target.name}-{python}{'-camera' if camera else ''}"
    requirements, constraints = list(target.requirements(python, camera=camera)), _constraints(python)
    asked = {"requirements": requirements, "constraints": constraints}
    kept = _kept(folder, asked)
    if kept is not None:
        return Wheelhouse(folder, kept, fetched=False)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as name:
        fresh = Path(name) / "wheels"
        _download(target, python, requirements, constraints, fresh)
        sha256 = {path.name: sha256_of(path) for path in sorted(fresh.glob("*.whl"))}
        (fresh / LOCK).write_text(json.dumps({**asked, "sha256": sha256}, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    return Wheelhouse(folder, sha256, fetched=True)


def _kept(folder: Path, asked: Mapping[str, object]) -> dict[str, str] | None:
    """Return the hashes of a cache that answers what is asked and is whole, else ``None``."""
    try:
        lock = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        sha256: dict[str, str] = lock.pop("sha256")
        whole = lock == asked and all(sha256_of(folder / name) == known for name, known in sha256.items())
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return sha256 if whole else None


def _constraints(python: str) -> str:
    try:
        return constraints_for(python, CONSTRAINTS.read_text(encoding="utf-8"))
    except OSError as error:
        raise FlashError(f"{CONSTRAINTS} is missing: flash from a clone of splitfleet (make setup)") from error


def _download(target: Target, python: str, requirements: list[str], constraints: str, folder: Path) -> None:
    """Ask pip for wheels of another platform; a board builds nothing."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(constraints)
        file.flush()
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "-q"]
        command += ["--only-binary=:all:", "--dest", str(folder), "--constraint", file.name]
        command += ["--implementation", "cp", "--python-version", python]
        for abi in (f"cp{python.replace('.', '')}", "abi3", "none"):
            command += ["--abi", abi]
        for platform in target.platforms():
            command += ["--platform", platform]
        if target.from_debian:  # what comes from Debian must not be asked of pip by those that need it
            command.append("--no-deps")
        done = subprocess.run([*command, *requirements], capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise FlashError(
            f"the wheels for {target.name} with Python {python} are not on this machine and pip cannot fetch them "
            f"({said[-1].removeprefix('ERROR: ') if said else 'it said nothing'}). Flash once with a network; later "
            f"ones need none. Or copy {home() / 'wheelhouse'} from a machine that has flashed such a board"
        )
