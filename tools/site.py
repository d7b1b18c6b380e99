"""The commands ``splitfleet site init`` and ``status``: make a site with its authority and settings, and look at it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Make a site, and see who belongs to it.")

Folder = Annotated[
    Path | None,
    typer.Option("--folder", help="Folder of the site [that of its name in this user's data].", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
SOON_DAYS = 60
"""A certificate that ends within so many days is told of."""


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Name of the site: a-z, 0-9 and '-'.")],
    host: Annotated[
        list[str] | None,
        typer.Option("--host", help="Name or address by which devices reach the broker; again for more [127.0.0.1]."),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of the broker.")] = 8883,
    folder: Folder = None,
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

    now = datetime.datetime.now(datetime.UTC)
    where = (folder or site_folder(name)).absolute()
    held = SiteRegister(where)
    held.create(name, host or ["127.0.0.1"], port, now)
    for account, role in ACCOUNTS.items():
        held.add(account, role, now)
    files = SiteFiles(where, held.read(), secure=True)
    made = files.write()
    if as_json:
        print_json({"site": name, "folder": str(where), "files": [str(path) for path in made]})
        return
    out = console()
    out.print(f"site {name} is in {where}", soft_wrap=True)
    out.print(f"  broker  {files.register.hosts[0]}:{port}, TLS 1.2 or newer, certificates of both sides")
    out.print(f"  accounts  {', '.join(f'{account} ({role})' for account, role in ACCOUNTS.items())}")
    out.print("next:", highlight=False)
    for line in (
        f"splitfleet broker {files.path('broker')}",
        f"splitfleet recorder {files.path('recorder')}",
        f"splitfleet devices add cam-01 --folder {where}",
    ):
        out.print(f"  {line}", soft_wrap=True)


@app.command()
def status(
    name: Annotated[str, typer.Argument(help="Name of the site.")] = "",
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Show a site: its broker, its accounts, what is revoked and when certificates end.

    Example: splitfleet site status plant-1
    """
    from edge_broker_side.identity.authority import facts
    from edge_broker_side.identity.register import SERVER, SiteRegister
    from tools.output import console, print_json, print_table

    held = SiteRegister(found(name, folder))
    register = held.read()
    now = datetime.datetime.now(datetime.UTC)
    ends = {
        "authority": facts(held.ca.read_bytes()).expires,
        SERVER: facts(held.certificate(SERVER).read_bytes()).expires,
        **{n: datetime.datetime.fromtimestamp(a.expires_s, datetime.UTC) for n, a in register.accounts.items()},
    }
    days = {account: (end - now).days for account, end in ends.items()}
    rows = [
        {
            "account": account,
            "role": register.accounts[account].role if account in register.accounts else account,
            "revoked": account in register.accounts and register.accounts[account].revoked_s is not None,
            "days_left": left,
        }
        for account, left in days.items()
    ]
    if as_json:
        where = {"folder": str(held.folder), "hosts": list(register.hosts), "port": register.port}
        print_json({"site": register.site, **where, "accounts": rows})
        return
    title = f"site {register.site}: broker {register.hosts[0]}:{register.port}, mutual TLS"
    print_table(title, ("account", "role", "revoked", "days left"), [tuple(row.values()) for row in rows])
    soon = [str(row["account"]) for row in rows if not row["revoked"] and int(str(row["days_left"])) < SOON_DAYS]
    if soon:
        console().print(f"certificates that end soon: {', '.join(soon)}; see docs/operations.md, rotating certificates")


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
