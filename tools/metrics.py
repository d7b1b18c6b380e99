"""The commands ``splitfleet metrics status`` and ``replay``: what is stored, and what the metrics server has of it."""

from __future__ import annotations

import dataclasses
import datetime
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_broker_side.errors import EdgeError

if TYPE_CHECKING:
    from edge_broker_side.backlog import Refusal
    from edge_broker_side.influx_settings import InfluxSettings
    from edge_broker_side.store_file import Standing

REASONS_SHOWN = 10

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Tell what is stored, what waits for the metrics server and what it refused; send it again.",
)

Site = Annotated[
    str, typer.Option("--site", help="Name of the site [the one written last on this machine].", show_default=False)
]
Settings = Annotated[
    Path | None,
    typer.Option("--settings", help="The recorder's settings [recorder.toml of the site].", show_default=False),
]
StoreFile = Annotated[
    Path | None, typer.Option("--store", help="The store's file, in place of settings.", show_default=False)
]


@app.command()
def status(
    site: Site = "",
    settings: Settings = None,
    store: StoreFile = None,
    influx: Annotated[
        str | None, typer.Option("--influx", help="URL of the metrics server.", show_default=False)
    ] = None,
    database: Annotated[
        str | None, typer.Option("--database", help="Its database or bucket [splitfleet].", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what is stored, what waits, what the server refused and why, whether it answers, and what to do.

    Example: splitfleet metrics status --settings recorder.toml
    """
    from edge_broker_side.backlog import read_refusals, read_stored, reading
    from edge_broker_side.store_file import read_standing
    from tools.output import print_json

    path, server = _found(site, settings, store, influx, database)
    with reading(path) as db:
        stored, refusals = read_stored(db), read_refusals(db)
        standing = read_standing(db, time.time_ns() // 1_000_000)
    answers, problem = _asked(server)
    advice = _advice(server, problem, standing)
    if as_json:
        print_json(
            {
                "store": str(path),
                "stored": stored,
                "server": None if server is None else {"url": server.url, "database": server.database},
                "answers": answers,
                "problem": problem,
                "forwarding": None if standing is None else dataclasses.asdict(standing),
                "dead_letters": [dataclasses.asdict(one) for one in refusals],
                "to_do": advice,
            }
        )
        return
    _print(path, server, answers, stored, standing, refusals, advice)


@app.command()
def replay(
    dead: Annotated[bool, typer.Option("--dead", help="Try the dead letters once more.")] = False,
    since: Annotated[
        str | None, typer.Option("--since", help="Send again what was stored since: 90s, 30m, 24h, 7d.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Send again everything that is stored.")] = False,
    site: Site = "",
    settings: Settings = None,
    store: StoreFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Let a recorder's forwarder send points again, running or at its next start. What the server has stays single.

    A point that arrives twice overwrites itself, since the same row always has the same tags and stamp.

    Example: splitfleet metrics replay --since 24h
    """
    from edge_broker_side.backlog import Backlog
    from tools.output import console, print_json
    from tools.spans import milliseconds

    if sum((dead, since is not None, every)) != 1:
        raise typer.BadParameter("give one of --dead, --since and --all")
    since_ms = 0 if since is None else time.time_ns() // 1_000_000 - milliseconds(since)
    path, _ = _found(site, settings, store, None, None)
    backlog = Backlog(path)
    try:
        points = backlog.replay_dead() if dead else backlog.replay_since(since_ms)
    finally:
        backlog.close()
    if as_json:
        print_json({"store": str(path), "waiting": points})
    else:
        what = "dead letters will be tried again" if dead else "points wait to be sent"
        console().print(f"{points:,} {what}; the recorder does it when it runs with an [influx] table")


def _found(
    site: str, settings: Path | None, store: Path | None, influx: str | None, database: str | None
) -> tuple[Path, InfluxSettings | None]:
    """Return the store and the server, from options or from the recorder's settings."""
    from edge_broker_side.influx_settings import InfluxSettings
    from edge_broker_side.recorder import RecorderSettings
    from tools.home import site_folder
    from tools.reports.where import written_last
    from wire.settings import load_settings, settings_from

    server = None
    if store is None:
        if settings is None and not site:
            settings = written_last()
        file = settings or site_folder(site) / "recorder.toml"
        if settings is None and not file.exists():
            store = site_folder(site) / "records.sqlite"
            if not store.exists():
                raise EdgeError(f"there is neither {file} nor {store}: give --settings or --store")
        else:
            chosen = load_settings(RecorderSettings, file)
            store, server = Path(chosen.store.path), chosen.influx
    elif settings is not None:
        raise typer.BadParameter("give --settings or --store, not both")
    if influx is not None:
        typed = {"url": influx} | ({} if database is None else {"database": database})
        server = settings_from(InfluxSettings, typed, "options")
    elif database is not None:
        raise typer.BadParameter("--database belongs to --influx")
    return store, server


def _asked(server: InfluxSettings | None) -> tuple[bool | None, str]:
    """Ask the server something small; return whether it answers, and what is wrong."""
    if server is None:
        return None, ""
    from edge_broker_side.influx import InfluxError, open_server

    try:
        opened = open_server(dataclasses.replace(server, create_database=False))
        try:
            opened.query("SELECT frame FROM inference LIMIT 1")
        finally:
            opened.close()
    except InfluxError as error:
        # A token of 2.x may be for writing alone, and VictoriaMetrics answers no InfluxQL.
        reading = "" if server.api == "v1" else " (asked by a query; whether writing works, the backlog tells)"
        return False, f"{error}{reading}"
    return True, ""


def _advice(server: InfluxSettings | None, problem: str, standing: Standing | None) -> list[str]:
    told = [problem] if problem else []
    if server is None:
        told.append("no metrics server is set: give recorder.toml an [influx] table, or --influx here")
    elif standing is None:
        told.append("nothing was ever forwarded from this store: start its recorder with an [influx] table")
    if standing is not None and standing.dead:
        told.append("points were refused for good: mend the cause, then splitfleet metrics replay --dead")
    if standing is not None and standing.trimmed_unforwarded:
        told.append("points were trimmed before they were forwarded: raise max_bytes or max_age_days of [store]")
    return told


def _print(
    path: Path,
    server: InfluxSettings | None,
    answers: bool | None,
    stored: dict[str, int],
    standing: Standing | None,
    refusals: list[Refusal],
    advice: list[str],
) -> None:
    from tools.output import console, print_table

    out = console()
    out.print(f"store   {path}")
    if server is not None:
        out.print(f"server  {server.url}, {server.database}: {'answers' if answers else 'cannot be used'}")
    print_table("Stored", ["measurement", "points"], stored.items())
    if standing is not None:
        rows: list[tuple[str, Any]] = [
            ("waiting points", standing.waiting),
            ("age of the oldest, s", round(standing.oldest_s, 1)),
            ("cursor", standing.cursor),
            ("dead letters", standing.dead),
            ("trimmed before they were forwarded", standing.trimmed_unforwarded),
        ]
        print_table("Forwarding", ["what", "figure"], rows)
    if refusals:
        shown = [(one.points, one.measurement, _when(one.last_at_ms), one.reason) for one in refusals[:REASONS_SHOWN]]
        print_table("Dead letters", ["points", "measurement", "last", "the server's reason"], shown)
        if len(refusals) > REASONS_SHOWN:
            out.print(f"and {len(refusals) - REASONS_SHOWN} reasons more: --json has them all")
    for line in advice:
        out.print(f"to do: {line}", soft_wrap=True)


def _when(at_ms: int) -> str:
    return datetime.datetime.fromtimestamp(at_ms / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
