"""The commands ``splitfleet devices``, ``devices add`` and ``devices revoke``: who is there, and who may connect."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

from tools.site import Folder, Json, found

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)

Site = Annotated[str, typer.Option("--site", help="Name of the site [the only one there is].", show_default=False)]
Where = Annotated[
    str, typer.Option("--where", help="Only these, such as 'tag=line-3 and runtime=tflite'.", show_default=False)
]
Settings = Annotated[
    Path | None,
    typer.Option("--settings", help="A viewer's or operator's settings file, where the site's folder is not here."),
]


@app.callback()
def devices(
    context: typer.Context,
    where: Where = "",
    site: Site = "",
    folder: Folder = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """See the devices of a site (the same as devices list), let them in, and shut them out.

    Example: splitfleet devices --where 'state=ready and tag=line-3'
    """
    if context.invoked_subcommand is None:
        _list(where, site, folder, settings, as_json)


@app.command("list")
def list_devices(
    where: Where = "", site: Site = "", folder: Folder = None, settings: Settings = None, as_json: Json = False
) -> None:
    """List devices: state, board, runtime, versions, the plan in force, clock, and what is wrong with each.

    Listens until every device that is ready has told of itself, at most a few seconds. A selection may ask for name,
    state, tag, board, class, runtime, version, client, cores and memory.

    Example: splitfleet devices list --where 'tag=line-3 and runtime=tflite'
    """
    _list(where, site, folder, settings, as_json)


def _list(where: str, site: str, folder: Path | None, settings: Path | None, as_json: bool) -> None:
    from tools.chosen import log_at
    from tools.inventory import show
    from tools.site_access import access

    log_at("error")  # what the link would warn of is told by the command itself
    show(access(site, folder, settings), where, as_json)


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
    secure = held.read().secure
    paths = {"ca": held.ca, "certificate": held.certificate(name), "key": held.key(name)} if secure else {}
    if as_json:
        print_json({"name": name, "role": account.role, "tags": account.tags, "expires_s": account.expires_s, **paths})
        return
    out = console()
    if not secure:
        out.print(f"{name} is noted as {account.role}. INSECURE: this site has no certificates, everybody may connect")
        return
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
    """Shut a device out: a running `splitfleet broker` takes every right from it and refuses its certificate at once.

    A device that is connected stays so until it goes, but can neither say nor hear anything.

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
