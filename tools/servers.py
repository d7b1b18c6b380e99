"""The commands that run one server process each, such as ``splitfleet worker``, and ``splitfleet acl``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tools.chosen import log_at, settings_of, typed
from wire.signals import stop_on_signals

Port = Annotated[int | None, typer.Option("--port", help="Port of the broker [1883].", show_default=False)]
Host = Annotated[str | None, typer.Option("--host", help="Address of the broker [127.0.0.1].", show_default=False)]
Site = Annotated[str | None, typer.Option("--site", help="Name of the site [default].", show_default=False)]
Settings = Annotated[
    Path | None, typer.Argument(help="A settings file (TOML), in place of the options.", show_default=False)
]

SITE = "default"


def broker(
    settings: Settings = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port to listen on; 0: any free one [1883].")] = None,
    embedded: Annotated[bool, typer.Option("--embedded", help="Run the embedded broker, not mosquitto.")] = False,
    folder: Annotated[Path | None, typer.Option("--folder", help="Where it keeps what survives a restart.")] = None,
) -> None:
    """Run an MQTT broker set up for splitfleet until Ctrl-C: mosquitto, or the embedded one where there is none.

    Example: splitfleet broker --port 1883
    """
    from edge_broker_side.broker import INSECURE, BrokerSettings, attend, has_accounts, start_broker
    from tools.home import home
    from tools.output import console

    given = typed(folder=folder, host=host, port=port, kind="embedded" if embedded else None)
    chosen = settings_of(BrokerSettings, settings, given, {"folder": home() / "broker"})
    stop = stop_on_signals()
    with start_broker(chosen) as running:
        out = console()
        out.print(f"{running} is up; Ctrl-C ends it")
        if not has_accounts(chosen):
            out.print(f"[bold red]{INSECURE}[/]", soft_wrap=True)
        for lack in running.lacks:
            out.print(f"  it cannot do everything: {lack}")
        if running.lacks and chosen.kind != "embedded":
            out.print("  for the whole: apt-get install mosquitto")
        attend(running, stop)


def worker(
    settings: Settings = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of this worker, unlike any other's [worker-1].")
    ] = None,
    site: Site = None,
    host: Host = None,
    port: Port = None,
    models: Annotated[
        Path | None, typer.Option("--models", help="Folder of model folders with tails [every version].")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Batches computed at once; 0: one per core [0].")
    ] = None,
) -> None:
    """Run an edge worker until Ctrl-C: it completes what devices begin. Start as many as there are machines.

    Example: splitfleet worker --site plant --name edge-1 --host broker.local
    """
    from edge_broker_side.worker import WorkerSettings, run
    from tools.home import store_folder
    from tools.output import progress_bar
    from tools.prepared import prepared_store

    given = typed(site=site, name=name, models=models, threads=threads, link=typed(host=host, port=port))
    chosen = settings_of(WorkerSettings, settings, given, {"site": SITE, "name": "worker-1", "models": store_folder()})
    log_at(chosen.log_level)
    if settings is None and models is None:
        with progress_bar() as show:
            prepared_store(show)
    run(chosen, stop_on_signals())


def recorder(
    settings: Settings = None,
    site: Site = None,
    host: Host = None,
    port: Port = None,
    store: Annotated[
        Path | None, typer.Option("--store", help="The store's file [records.sqlite of the site].")
    ] = None,
) -> None:
    """Run the recorder until Ctrl-C: it stores every frame's outcome, and devices may forget what it has.

    Example: splitfleet recorder --site plant --host broker.local
    """
    from edge_broker_side.recorder import RecorderSettings, run
    from tools.home import site_folder

    given = typed(site=site, store=typed(path=store), link=typed(host=host, port=port))
    usual = {"site": SITE, "store": {"path": str(site_folder(site or SITE) / "records.sqlite")}}
    chosen = settings_of(RecorderSettings, settings, given, usual)
    log_at(chosen.log_level)
    run(chosen, stop_on_signals())


def mirror(
    settings: Settings = None,
    site: Site = None,
    host: Host = None,
    port: Port = None,
    models: Annotated[
        Path | None, typer.Option("--models", help="Folder whose models name the labels.", show_default=False)
    ] = None,
    home_assistant: Annotated[bool, typer.Option("--home-assistant", help="Announce every device to it.")] = False,
    forget: Annotated[
        str | None,
        typer.Option("--forget", help="Take back what was said of this device, and end.", show_default=False),
    ] = None,
) -> None:
    """Say results, outcomes, decisions, states and telemetry again as JSON until Ctrl-C, on <topic>/json.

    Example: splitfleet mirror --site plant --host broker.local --home-assistant
    """
    from edge_broker_side import mirror as process

    given = typed(site=site, models=models, link=typed(host=host, port=port))
    if home_assistant:
        given["home_assistant"] = {}
    chosen = settings_of(process.MirrorSettings, settings, given, {"site": SITE})
    log_at(chosen.log_level)
    if forget is None:
        process.run(chosen, stop_on_signals())
        return
    process.forget(chosen, forget)
    print(f"{forget}: taken back; while the broker retains its state a running mirror announces it again,")
    print(f'unless its settings say forget = ["{forget}"]')


def acl(
    site: Annotated[str, typer.Option("--site", help="Name of the site.")],
    account: Annotated[
        list[str], typer.Option("--account", help="NAME=ROLE, such as cam-01=device; the roles are below.")
    ],
    discovery_prefix: Annotated[
        str, typer.Option("--discovery-prefix", help="Where a mirror announces devices to Home Assistant.")
    ] = "homeassistant",
) -> None:
    """Print the broker's ACL file: what each account of a site may publish and read, and nothing else.

    The account of a device or worker has the name that stands in its settings. Roles: device, worker, recorder,
    policy, subscriber (reads all but activations, writes nothing), operator (sets rules, watches the policy), mirror
    (reads what a subscriber reads, writes the JSON topics and the announcements for Home Assistant).

    Example: splitfleet acl --site plant-1 --account cam-01=device --account edge-1=worker > acl.txt
    """
    from wire.acl import acl_file
    from wire.channels import Role

    accounts: dict[str, Role] = {}
    for text in account:
        name, _, role = text.partition("=")
        if role not in list(Role):
            raise typer.BadParameter(f"'{text}': write NAME=ROLE, with one of {', '.join(Role)}")
        if name in accounts:
            raise typer.BadParameter(f"'{name}' is named twice")
        accounts[name] = Role(role)
    print(acl_file(site, accounts, discovery_prefix), end="")
