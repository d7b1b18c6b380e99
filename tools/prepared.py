"""Versions cut into heads and tails, ready for devices, workers and the policy service."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tflite_models.catalog import MANIFEST, Catalog, CatalogError, ModelFolder, load_catalog, load_folder, shipped_zoo
from tflite_models.store import prepare
from tools.home import store_folder, zoo_folder

Progress = Callable[[str, int, int], None]


def every_version(zoo: Path | None = None) -> dict[str, tuple[str, ModelFolder]]:
    """Return where each version comes from (``shipped`` or ``local``) and its folder, by name.

    ``zoo`` is the folder of the user's own versions; left out it is the usual one, which need not exist. Raises
    ``CatalogError`` where a folder that was named holds none.
    """
    found = {name: ("shipped", folder) for name, folder in load_catalog(shipped_zoo()).folders.items()}
    own = zoo or zoo_folder()
    if zoo is not None or any(own.glob(f"*/{MANIFEST}")):
        found |= {name: ("local", folder) for name, folder in load_catalog(own).folders.items()}
    return found


def prepare_versions(
    out: Path,
    names: Iterable[str] = (),
    *,
    progress: Progress,
    heads: bool = True,
    tails: bool = True,
    zoo: Path | None = None,
) -> Catalog:
    """Make ``out`` hold these versions (all, where none is named) with heads and tails; later calls only check.

    Raises ``CatalogError`` for an unknown name.
    """
    versions = every_version(zoo)
    chosen = list(dict.fromkeys(names)) or list(versions)
    for name in chosen:
        if name not in versions:
            raise CatalogError(f"there is no version '{name}'; there are {', '.join(versions)}")
    for done, name in enumerate(chosen):
        progress(f"cutting {name}", done, len(chosen))
        prepare(versions[name][1], out / name, heads=heads, tails=tails)
    progress("models ready", len(chosen), len(chosen))
    return Catalog({name: load_folder(out / name) for name in chosen})


def prepared_store(progress: Progress) -> Catalog:
    """Bring the store of this machine up to date with every version, shipped and local, and return what it holds."""
    return prepare_versions(store_folder(), progress=progress)
