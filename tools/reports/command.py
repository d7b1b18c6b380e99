"""The command ``splitfleet report``: which site, which time, which source, which form."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edge_broker_side.reporting.figures import Report, Scope
    from tools.reports.where import Place

Tell = Callable[[str, int, int], None]


class Kind(StrEnum):
    """Where the points are read."""

    SQLITE = "sqlite"
    INFLUX = "influx"


class Form(StrEnum):
    """How the report is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    HTML = "html"


def report(
    since: Annotated[str, typer.Option(help="From: a span back from now (1h, 24h, 7d), a moment, or all.")] = "24h",
    until: Annotated[str, typer.Option(help="To, likewise; a moment is like 2026-03-01T06:00, in UTC.")] = "",
    site: Annotated[str, typer.Option(help="Site [the one written last on this machine].")] = "",
    device: Annotated[list[str] | None, typer.Option(help="This device alone; may be repeated.")] = None,
    source: Annotated[Kind, typer.Option(help="The recorder's store, or the metrics server.")] = Kind.SQLITE,
    settings: Annotated[Path | None, typer.Option(help="The recorder's file [that of the site].")] = None,
    store: Annotated[Path | None, typer.Option(help="The recorder's store; it may be in use.")] = None,
    influx: Annotated[str, typer.Option(help="URL of the metrics server, for --source influx.")] = "",
    database: Annotated[str, typer.Option(help="Its database, or bucket.")] = "",
    form: Annotated[Form, typer.Option("--format", help="How to write it.")] = Form.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    out: Annotated[Path | None, typer.Option(help="File to write [screen; html: report-SITE.html].")] = None,
) -> None:
    """Report what became of every frame: outcomes, latency, energy, accuracy, bytes, decisions, and what is missing.

    Example: splitfleet report --since 1h --format html --out report.html
    """
    from edge_broker_side.reporting.figures import Scope
    from tools.output import check_writable, progress_bar
    from tools.reports.where import find_place
    from wire.channels import check_name

    now_ms = time.time_ns() // 1_000_000
    form = Form.JSON if as_json else form
    since_ms, until_ms = moment_ms(since, now_ms, "--since"), moment_ms(until, now_ms, "--until")
    for name in device or ():
        check_name(name, "device")
    place = find_place(site, settings, store, influx, database, remote=source is Kind.INFLUX)
    if place.why:
        typer.echo(place.why, err=True)
    scope = Scope(place.site, tuple(device or ()), since_ms, until_ms)
    if form is Form.HTML:
        out = out or Path(f"report-{place.site}.html")
    check_writable(out)
    with progress_bar() as tell:
        told = ask(place, scope, now_ms, tell)
        text = write(told, form, tell) if out or form is not Form.TABLE else ""
    if out is not None:
        out.write_text(text, encoding="utf-8")
        typer.echo(f"{told.fleet.figures.frames:,} frames of site {place.site}: {out}", err=True)
    elif text:
        typer.echo(text, nl=False)
    else:
        from tools.reports.tables import print_tables

        print_tables(told)


def ask(place: Place, scope: Scope, now_ms: int, tell: Tell) -> Report:
    """Return the report from the store or the server of a place; raises ``EdgeError``."""
    from edge_broker_side.reporting.assembly import make_report

    if place.store is not None:
        from edge_broker_side.reporting.sqlite_source import open_store_source

        with open_store_source(place.store, scope) as source:
            return make_report(source, now_ms, tell)
    from contextlib import closing

    from edge_broker_side.influx import open_server
    from edge_broker_side.reporting.influx_source import InfluxSource

    assert place.influx is not None
    with closing(open_server(place.influx)) as server:
        return make_report(InfluxSource(server, scope), now_ms, tell)


def write(told: Report, form: Form, tell: Tell) -> str:
    """Return the report in one of its forms."""
    if form is Form.HTML:
        from tools.reports.page import page

        return page(told, tell)
    if form is Form.TABLE:
        from contextlib import redirect_stdout

        from tools.reports.tables import print_tables

        with redirect_stdout(io.StringIO()) as paper:
            print_tables(told)
        return paper.getvalue()
    from tools.reports.data import as_csv, as_json

    return as_csv(told) if form is Form.CSV else as_json(told)


def moment_ms(text: str, now_ms: int, option: str) -> int | None:
    """Return Unix milliseconds of a span back from now or of a moment; ``None``: no bound."""
    from edge_broker_side.errors import EdgeError
    from tools.spans import milliseconds

    if text in ("", "all"):
        return None
    if text[0].isdigit() and text[4:5] == "-":
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise EdgeError(f"{option} {text}: write a moment like 2026-03-01 or 2026-03-01T06:00") from None
        return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
    return now_ms - milliseconds(text, option)
