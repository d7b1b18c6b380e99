"""The commands ``splitfleet devices add`` and ``revoke``: who may connect to a site."""

from __future__ import annotations

import datetime
from typing import Annotated

import typer

from tools.site import Folder, Json, found

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Let devices into a site, and shut them out.")

Site = Annotated[str, typer.Option("--site", help="Name of the site [the only one there is].", show_default=False)]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name of the device: a-z, 0-9 and '-'.")],
    tag: Annotated[list[str] | None, typer.Option("--tag", help="A word to group devices by; again for more.")] = None,
    role: Annotated[
        str, typer.Option("--role", help="device, or worker, subscriber, operator and the others.")
    ] = "device",
    site: Site = "",
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Give a device its certificate; given again, it gets a new one and the one before no longer holds.

    Example: splitfleet devices add cam-01 --tag line-3
    """
    from edge_broker_side.identity.register import SiteRegister
    from tools.output import console, print_json
    from wire.channels import Role

    if role not in list(Role):
        raise typer.BadParameter(f"'{role}' is none of {', '.join(Role)}", param_hint="--role")
    held = SiteRegister(found(site, folder))
    account = held.add(name, Role(role), _now(), tag or ())
    paths = {"ca": held.ca, "certificate": held.certificate(name), "key": held.key(name)}
    if as_json:
        print_json({"name": name, "role": account.role, "tags": account.tags, "expires_s": account.expires_s, **paths})
        return
    out = console()
    out.print(f"{name} may connect as {account.role}; its files, for that board alone:")
    for what, path in paths.items():
        out.print(f"  {what:<12} {path}", soft_wrap=True)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Name of the account.")],
    site: Site = "",
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Shut a device out: a running `splitfleet broker` takes every right from it at once.

    Its certificate is on the list of revoked ones, which mosquitto reads at its start: until then the device may still
    connect, but neither say nor hear anything.

    Example: splitfleet devices revoke cam-01
    """
    from edge_broker_side.identity.register import SiteRegister
    from tools.output import console, print_json

    held = SiteRegister(found(site, folder))
    account = held.revoke(name, _now())
    if as_json:
        print_json({"name": name, "revoked_s": account.revoked_s})
        return
    console().print(f"{name} is revoked; its key is deleted here. Let it in again with: splitfleet devices add {name}")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
