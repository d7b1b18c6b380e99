"""The command ``splitfleet dashboard``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def dashboard(
    settings: Annotated[
        Path | None, typer.Argument(help="A settings file (TOML), in place of the options.", show_default=False)
    ] = None,
    site: Annotated[str | None, typer.Option("--site", help="Name of the site [default].")] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port to listen on; 0: any free one [8080].")] = None,
    broker: Annotated[str | None, typer.Option("--broker", help="Address of the broker [127.0.0.1].")] = None,
    broker_port: Annotated[int | None, typer.Option("--broker-port", help="Port of the broker [1883].")] = None,
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="Its text is asked of visitors; needed beyond loopback.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", help="Certificate (PEM) to serve https with.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its key (PEM).")] = None,
) -> None:
    """Serve a live page of the fleet until Ctrl-C: devices, policy, edge and what is wrong. It changes nothing.

    It listens on this machine alone unless told otherwise, and then wants a password.

    Example: splitfleet dashboard --site demo --broker-port 1883 --port 8080
    """
    from tools.chosen import log_at, settings_of, typed
    from tools.dashboard.settings import DashboardSettings, is_loopback
    from tools.output import console
    from tools.servers import SITE
    from wire.signals import stop_on_signals

    given = typed(
        site=site, host=host, port=port, password_file=password_file,
        link=typed(host=broker, port=broker_port),
        tls=typed(certificate=tls_certificate, key=tls_key),
    )  # fmt: skip
    chosen = settings_of(DashboardSettings, settings, given, {"site": SITE})
    log_at(chosen.log_level)
    out = console()
    if chosen.tls is None and not is_loopback(chosen.host):
        out.print("passwords and pages travel unencrypted: give a certificate, or put a proxy with TLS before it")

    def told(address: str) -> None:
        where = f"{chosen.link.host}:{chosen.link.port}"
        out.print(f"site {chosen.site} (broker {where}) is shown on {address} ; Ctrl-C ends it", soft_wrap=True)

    stop = stop_on_signals()
    from tools.dashboard.server import serve

    serve(chosen, stop, told)
