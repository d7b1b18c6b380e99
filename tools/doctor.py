"""The command ``splitfleet doctor``: measures a site's edge or one device, and says in words what to change."""

from __future__ import annotations

from typing import Annotated

import typer

from tools.devices import Settings, Site
from tools.site import Folder, Json


def doctor(
    device: Annotated[
        str, typer.Argument(help="Name of a device; left out, the edge is looked at.", show_default=False)
    ] = "",
    site: Site = "",
    folder: Folder = None,
    settings: Settings = None,
    seconds: Annotated[float, typer.Option("--seconds", min=1, max=600, help="How long to listen.")] = 6.0,
    as_json: Json = False,
) -> None:
    """Look at the edge of a site, or at one device, and say what to change. Exit code 1: something is bad.

    Every figure is measured: by messages of our own to the broker and back, or by the device itself.

    Example: splitfleet doctor cam-01
    """
    from tools.chosen import log_at
    from tools.doctor_report import examine, show
    from tools.site_access import access

    log_at("error")  # what the link would warn of is told below
    found = access(site, folder, settings)
    checks = examine(found, device, seconds)
    if not show(found.settings.site, device, checks, as_json):
        raise typer.Exit(1)
