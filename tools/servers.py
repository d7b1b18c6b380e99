"""The commands that run one server process each: ``splitfleet broker``, ``worker`` and ``recorder``."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

Port = Annotated[int, typer.Option("--port", help="Port of the broker.")]
Host = Annotated[str, typer.Option("--host", help="Address of the broker.")]
Site = Annotated[str, typer.Option("--site", help="Name of the site.")]
Settings = Annotated[
    Path | None, typer.Argument(help="A settings file (TOML), in place of the options.", show_default=False)
]


def broker(
    settings: Settings = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on; 0: any free one.")] = 1883,
    embedded: Annotated[bool, typer.Option("--embedded", help="Run the embedded broker, not mosquitto.")] = False,
    folder: Annotated[Path | None, typer.Option("--folder", help="Where it keeps what survives a restart.")] = None,
) -> None:
    """Run an MQTT broker set up for splitfleet until Ctrl-C: mosquitto, or the embedded one where there is none.

    Example: splitfleet broker --port 1883
    """
    from edge_broker_side.broker import BrokerError, BrokerSettings, start_broker
    from tools.home import home
    from tools.output import console
    from wire.settings import load_settings

    chosen = (
        load_settings(BrokerSettings, settings)
        if settings
        else BrokerSettings(
            folder=str(folder or home() / "broker"), host=host, port=port, kind="embedded" if embedded else "auto"
        )
    )
    stop = _stop_on_signals()
    with start_broker(chosen) as running:
        out = console()
        out.print(f"{running} is up; Ctrl-C ends it")
        for lack in running.lacks:
            out.print(f"  it cannot do everything: {lack}")
        if running.lacks and not embedded:
            out.print("  for the whole: apt-get install mosquitto")
        while not stop.wait(0.2):
            if not running.alive:
                raise BrokerError(f"{running} ended by itself: see its log")


def worker(
    settings: Settings = None,
    name: Annotated[str, typer.Option("--name", help="Name of this worker, unlike any other's.")] = "worker-1",
    site: Site = "default",
    host: Host = "127.0.0.1",
    port: Port = 1883,
    models: Annotated[Path | None, typer.Option("--models", help="Store with the tails [the prepared store].")] = None,
    threads: Annotated[int, typer.Option("--threads", help="Batches computed at once; 0: one per core.")] = 0,
) -> None:
    """Run an edge worker until Ctrl-C: it completes what devices begin. Start as many as there are machines.

    Example: splitfleet worker --site plant --name edge-1 --host broker.local
    """
    from edge_broker_side.worker import WorkerSettings, run
    from tools.home import store_folder
    from wire.mqtt import LinkSettings
    from wire.settings import load_settings

    chosen = (
        load_settings(WorkerSettings, settings)
        if settings
        else WorkerSettings(
            site=site, name=name, models=str(models or store_folder()), link=LinkSettings(host, port), threads=threads
        )
    )
    _log(chosen.log_level)
    run(chosen, _stop_on_signals())


def recorder(
    settings: Settings = None,
    site: Site = "default",
    host: Host = "127.0.0.1",
    port: Port = 1883,
    store: Annotated[
        Path | None, typer.Option("--store", help="The store's file [records.sqlite of the site].")
    ] = None,
) -> None:
    """Run the recorder until Ctrl-C: it stores every frame's outcome, and devices may forget what it has.

    Example: splitfleet recorder --site plant --host broker.local
    """
    from edge_broker_side.recorder import RecorderSettings, run
    from edge_broker_side.store import StoreSettings
    from tools.home import site_folder
    from wire.mqtt import LinkSettings
    from wire.settings import load_settings

    chosen = (
        load_settings(RecorderSettings, settings)
        if settings
        else RecorderSettings(
            site=site,
            store=StoreSettings(str(store or site_folder(site) / "records.sqlite")),
            link=LinkSettings(host, port),
        )
    )
    _log(chosen.log_level)
    run(chosen, _stop_on_signals())


def _log(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
