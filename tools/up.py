"""The command ``splitfleet up``: starts a whole site from its settings files and keeps it running until Ctrl-C."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tools.devices import Site
from tools.site import Folder

if TYPE_CHECKING:
    from threading import Event

    from tools.restarts import Restarts
    from tools.site_processes import Plan
    from tools.supervisor import Supervisor

STATE = "up.json"
"""In the site's folder, while it is up: each process with its restarts."""
LOOK_EVERY_S = 0.2
LONGEST_LOG_BYTES = 16 * 1024 * 1024
"""A log longer than this is put aside when its process is started again."""


def up(
    site: Site = "",
    folder: Folder = None,
    version: Annotated[
        list[str] | None, typer.Option("--version", help="A version to prepare; again for more [every version].")
    ] = None,
) -> None:
    """Start a whole site from its settings files, and keep it running until Ctrl-C.

    Broker, recorder, workers, and the policy where profiles have been measured. Models are prepared at the first
    start. A process that dies is started again, ever more rarely while it keeps dying; logs are in the site's folder.

    Example: splitfleet up --site plant-1
    """
    from edge_broker_side.broker import INSECURE
    from edge_broker_side.identity.register import SiteRegister
    from edge_broker_side.identity.site_files import SiteFiles
    from tools.output import console, progress_bar
    from tools.restarts import Restarts
    from tools.site import found
    from tools.site_processes import plan, prepare_models
    from tools.supervisor import Supervisor
    from wire.signals import stop_on_signals

    where = found(site, folder)
    files = SiteFiles(where, SiteRegister(where).read())
    wanted = plan(files)
    stop = stop_on_signals()
    with _alone(where):
        with progress_bar() as show:
            prepare_models(files, tuple(version or ()), show)
        out = console()
        with Supervisor(where / "logs") as supervisor:
            restarts = Restarts()
            for process in wanted.processes:
                _start(where, supervisor, restarts, process.name, process.command)
            out.print(
                f"site {files.register.site} is up: {', '.join(p.name for p in wanted.processes)}; Ctrl-C ends it"
            )
            out.print(f"  logs are in {where / 'logs'}", soft_wrap=True)
            if not files.register.secure:
                out.print(f"[bold red]{INSECURE}[/]", soft_wrap=True)
            for lack in wanted.missing:
                out.print(f"  missing: {lack}", soft_wrap=True, markup=False)
            _keep(where, supervisor, restarts, wanted, stop)
            out.print("ending")
            _end(supervisor)
        (where / STATE).unlink(missing_ok=True)


def _keep(where: Path, supervisor: Supervisor, restarts: Restarts, wanted: Plan, stop: Event) -> None:
    from tools.output import console

    commands = {process.name: process.command for process in wanted.processes}
    while not stop.is_set():
        now_s = time.monotonic()
        for name, last_words in supervisor.ended().items():
            pause_s = restarts.ended(name, last_words, now_s)
            again = f"again in {pause_s:.0f} s (restart {restarts.lives[name].restarts + 1})"
            console().print(f"{name} ended: {last_words}; {again}", soft_wrap=True, markup=False)
        for name in restarts.due(now_s):
            _start(where, supervisor, restarts, name, commands[name])
        time.sleep(LOOK_EVERY_S)  # not stop.wait: a handler that sets it must not meet this thread waiting for it


def _start(where: Path, supervisor: Supervisor, restarts: Restarts, name: str, command: tuple[str, ...]) -> None:
    log = where / "logs" / f"{name}.log"
    if log.exists() and log.stat().st_size > LONGEST_LOG_BYTES:
        log.replace(log.with_suffix(".log.before"))
    supervisor.start(name, *command)
    restarts.started(name, time.monotonic())
    state = {n: {"restarts": life.restarts, "last_words": life.last_words} for n, life in restarts.lives.items()}
    new = where / f".{STATE}.new"
    new.write_text(json.dumps(state), encoding="utf-8")
    new.replace(where / STATE)


def _end(supervisor: Supervisor) -> None:
    """End who speaks first and the broker last: what they still have to say needs it."""
    from tools.site_processes import BROKER

    supervisor.stop([name for name in reversed(supervisor.names()) if name != BROKER])
    supervisor.stop([BROKER])


@contextmanager
def _alone(where: Path) -> Iterator[None]:
    """Hold the site's lock; raises ``SupervisorError`` where it is up already."""
    from tools.supervisor import SupervisorError

    with (where / ".up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SupervisorError(f"the site in {where} is up already") from None
        yield
