"""Which processes a site's settings files stand for, how each is started, and what the site lacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_broker_side.identity.site_files import POLICY, SiteFiles
from edge_broker_side.worker import WorkerSettings
from policy.settings import PolicySettings
from tools.prepared import Progress, prepare_versions
from wire.channels import Role
from wire.settings import load_settings

BROKER = "broker"
STARTS: Mapping[Role, tuple[str, ...]] = {
    Role.RECORDER: ("edge_broker_side", "recorder"),
    Role.WORKER: ("edge_broker_side", "worker"),
    Role.POLICY: ("policy",),
    Role.ROLLOUT: ("edge_broker_side", "rollout"),
    Role.MIRROR: ("edge_broker_side", "mirror"),
}
"""Module and first arguments of the processes that run on the edge, in the order they are started."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the site."""

    name: str
    command: tuple[str, ...]
    """Module and arguments."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What can be started, in order, and what cannot, in words that say how to make it."""

    processes: tuple[Process, ...]
    missing: tuple[str, ...]


def plan(files: SiteFiles) -> Plan:
    """Return what the settings files of a site's folder stand for; raises ``SettingsError`` for one that is broken."""
    processes: list[Process] = []
    missing: list[str] = []
    if files.path(BROKER).is_file():
        processes.append(Process(BROKER, ("edge_broker_side", "broker", str(files.path(BROKER)))))
    else:
        missing.append(f"{files.path(BROKER)}: without it no broker is started here")
    for role, start in STARTS.items():
        for name, account in files.register.accounts.items():
            file = files.path(name)
            if account.role != role or account.revoked_s is not None:
                continue
            if not file.is_file():
                missing.append(f"{file}: without it {name} is not started here")
            elif lacks := tuple(_policy_lacks(file)) if role is Role.POLICY else ():
                missing += lacks
            else:
                processes.append(Process(name, (*start, str(file))))
    return Plan(tuple(processes), tuple(missing))


def prepare_models(files: SiteFiles, versions: tuple[str, ...], progress: Progress) -> None:
    """Cut the models into the site's own folders: those that are there, else ``versions``, else every one.

    A worker whose settings name another folder keeps what is there. Raises ``CatalogError`` for an unknown version.
    """
    ours = files.folder / "data" / "models"
    for name, account in files.register.accounts.items():
        if account.role == Role.WORKER and files.path(name).is_file():
            folder = Path(load_settings(WorkerSettings, files.path(name)).models)
            if folder == ours:
                held = sorted(path.name for path in folder.glob("*") if path.is_dir()) if folder.is_dir() else []
                prepare_versions(folder, versions or held, progress=progress)
                return


def _policy_lacks(file: Path) -> Iterator[str]:
    settings = load_settings(PolicySettings, file)
    if not Path(settings.edge_profile).is_file():
        yield (
            f"{POLICY} needs what tails cost here: splitfleet profile edge --models {settings.models} "
            f"--out {settings.edge_profile}"
        )
    if not any(Path(settings.profiles).glob("*.json")):
        yield (
            f"{POLICY} needs what heads cost on a board: there, python -m device_client.profiling --models models "
            f"--class CLASS --out CLASS.json, then copy the file to {settings.profiles}"
        )
