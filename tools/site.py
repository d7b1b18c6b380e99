"""The commands ``splitfleet site init`` and ``status``: make a site with its authority and settings, and look at it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edge_broker_side.identity.register import Register

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Make a site, and see who belongs to it.")

Folder = Annotated[
    Path | None,
    typer.Option("--folder", help="Folder of the site [that of its name in this user's data].", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
MODES = {
    "mutual-tls": "TLS 1.2 or newer, certificates of both sides",
    "plain": "INSECURE: no certificates, no accounts, no encryption",
}


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Name of the site: a-z, 0-9 and '-'.")],
    host: Annotated[
        list[str] | None,
        typer.Option("--host", help="Name or address by which devices reach the broker; again for more [127.0.0.1]."),
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Port of the broker [8883; plain 1883].")
    ] = None,
    folder: Folder = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="INSECURE: no certificates, for a try on this machine alone.")
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="With --plain: let everybody on the network in all the same.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a site: its certificate authority, the accounts of its processes, the broker's ACL and every settings file.

    Devices and processes then prove themselves by certificates (mutual TLS). Private keys are readable by their owner
    alone; whoever has authority/ca.key can make himself an account, so keep a copy of the folder in a safe place.

    Example: splitfleet site init plant-1 --host edge.plant-1.example --host 10.0.0.7
    """
    from edge_broker_side.identity.register import SiteRegister
    from edge_broker_side.identity.site_files import ACCOUNTS, SiteFiles
    from tools.home import site_folder
    from tools.output import console, print_json

    if insecure and not plain:
        raise typer.BadParameter(
            "it goes with --plain: a site with certificates is not insecure", param_hint="--insecure"
        )
    hosts = host or ["127.0.0.1"]
    if plain and not insecure and hosts != ["127.0.0.1"]:
        raise typer.BadParameter(
            f"a plain site stays on this machine, not on {hosts[0]}: leave --plain out, or force it with --insecure",
            param_hint="--host",
        )
    now = datetime.datetime.now(datetime.UTC)
    where = (folder or site_folder(name)).absolute()
    held = SiteRegister(where)
    held.create(name, hosts, port or (1883 if plain else 8883), now, secure=not plain)
    for account, role in ACCOUNTS.items():
        held.add(account, role, now)
    files = SiteFiles(where, held.read(), insecure=insecure)
    made = files.write()
    if as_json:
        print_json({"site": name, "mode": mode(files.register), "folder": str(where), "files": [str(p) for p in made]})
        return
    out = console()
    out.print(f"site {name} is in {where}", soft_wrap=True)
    out.print(f"  broker  {files.register.hosts[0]}:{files.register.port}, {MODES[mode(files.register)]}")
    out.print(f"  accounts  {', '.join(f'{account} ({role})' for account, role in ACCOUNTS.items())}")
    out.print("next:", highlight=False)
    for line in (f"splitfleet up --folder {where}", f"splitfleet devices add cam-01 --folder {where}"):
        out.print(f"  {line}", soft_wrap=True)


@app.command()
def status(
    name: Annotated[str, typer.Argument(help="Name of the site.")] = "",
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Show a site: whether its broker answers, who was refused, its accounts, what is revoked, when certificates end.

    Example: splitfleet site status plant-1
    """
    from tools.chosen import log_at
    from tools.output import print_json
    from tools.site_status import look, show

    log_at("error")  # what the link would warn of is told below
    told = look(found(name, folder), datetime.datetime.now(datetime.UTC))
    if as_json:
        print_json(told)
    else:
        show(told)


@app.command()
def renew(
    name: Annotated[str, typer.Argument(help="Name of the site.")] = "",
    host: Annotated[
        list[str] | None,
        typer.Option("--host", help="Other names or addresses of the broker; again for more [those it has]."),
    ] = None,
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Give the broker and the site's own processes new certificates; start the processes again after it.

    Devices are not touched: splitfleet devices add NAME renews one.

    Example: splitfleet site renew plant-1
    """
    from edge_broker_side.identity.register import SiteRegister
    from edge_broker_side.identity.site_files import ACCOUNTS
    from tools.output import console, print_json
    from wire.channels import Role

    held, now = SiteRegister(found(name, folder)), datetime.datetime.now(datetime.UTC)
    register = held.renew_server(now, host or ())
    own = {n: a for n, a in register.accounts.items() if a.revoked_s is None and a.role != Role.DEVICE}
    ends = {
        n: held.add(n, Role(a.role), now).expires_s for n, a in own.items() if n in ACCOUNTS or a.role == Role.WORKER
    }
    if as_json:
        print_json({"site": register.site, "hosts": list(register.hosts), "expires_s": ends})
        return
    console().print(
        f"new certificates for the broker at {', '.join(register.hosts)} and for {', '.join(ends)};", soft_wrap=True
    )
    console().print("start the site's processes again, also those on other machines, with their new files")


def mode(register: Register) -> str:
    """Return the key of ``MODES`` that holds for a site."""
    return "mutual-tls" if register.secure else "plain"


def found(name: str, folder: Path | None) -> Path:
    """Return the folder of a site: the one that is told, that of its name, or the only one there is."""
    from edge_broker_side.identity.authority import IdentityError
    from tools.home import home, site_folder

    if folder is not None:
        return folder.absolute()
    if name:
        return site_folder(name)
    sites = sorted(path.parent for path in (home() / "sites").glob("*/register.toml"))
    if len(sites) != 1:
        there = ", ".join(path.name for path in sites) or "none"
        raise IdentityError(f"name the site: on this machine there are {there}")
    return sites[0]
