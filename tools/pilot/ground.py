"""Where a pilot runs: on a site that is there, or on the demo's emulated fleet, which lives as long as the pilot."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tools.demo_fleet import DemoFleet, alone
from tools.demo_scenario import cast
from tools.demo_site import SITE, SiteFiles, measured_profiles, prepare_store
from tools.home import profiles_folder, site_folder
from tools.operator_link import OperatorSettings
from wire.link import LinkSettings

FOLDER = "pilot"
"""Of the emulated site's files; not the demo's, whose store stays."""
NO_END_S = 86_400.0
"""The script's shares are of this time; on steady links nothing of it happens."""


@dataclass(frozen=True)
class Ground:
    """A site, seen from a pilot."""

    operator: OperatorSettings
    profiles: Path
    check: Callable[[], None] = lambda: None
    """Raises ``SupervisorError`` when a process of the site has ended by itself."""
    devices: int = 1
    """So many at least must be heard before it begins."""


def running_site(operator: OperatorSettings) -> Ground:
    """Return a site that runs without us."""
    return Ground(operator, profiles_folder())


@contextmanager
def emulated_site(devices: int, policy: str, show: Callable[[str, int, int], None]) -> Iterator[Ground]:
    """Start the demo's boards on links that stay as they begin; end everything afterwards. Raises ``SupervisorError``.

    Boards and links are emulated and energy is modelled, all else is real.
    """
    files = SiteFiles(site_folder(FOLDER))
    boards = tuple(replace(device, events=(), burst_fps=None) for device in cast(devices))
    with alone(files.folder, "pilot"), DemoFleet(files, boards) as fleet:
        shutil.rmtree(files.folder, ignore_errors=True)
        files.logs.mkdir(parents=True)
        profiles = measured_profiles(prepare_store(show), show, again=False)
        broker = fleet.open(embedded=False)
        fleet.start(policy, profiles, NO_END_S)
        operator = OperatorSettings(SITE, LinkSettings(host=broker.host, port=broker.port))
        yield Ground(operator, files.folder / "profiles", fleet.check, devices)
        fleet.stop_devices()
        fleet.stop_edge()
