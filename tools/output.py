"""How every subcommand prints: one table, one JSON form, one line for what went wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

PIPE_COLUMNS = 160
"""Width of tables where no terminal tells one."""


def console() -> Console:
    """Return a console on today's stdout; made anew so that tests and pipes see their own stream."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under ``columns``; numbers are right-aligned, ``None`` is shown as a dash."""
    lines = [tuple(row) for row in rows]
    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = any(isinstance(line[index], int | float) for line in lines)
        justify: JustifyMethod = "right" if numeric else "left"
        table.add_column(column, justify=justify, overflow="fold", min_width=len(column))
    for line in lines:
        table.add_row(*(Text(_cell(value)) for value in line))
    console().print(table)


def print_json(value: Any) -> None:
    """Print one JSON document, as every ``--json`` does."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write("\n")


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on a terminal while the block runs; it is told what is being done, how much is, and of how much."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    paper = Console(stderr=True)
    with Progress(*columns, console=paper, transient=True, disable=not paper.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def check_writable(path: Path | None) -> None:
    """Raise ``OSError`` before a long measurement rather than after it; the folder is made where it is missing."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
        if path.stat().st_size == 0:
            path.unlink()


def print_error(message: str) -> None:
    """Say on stderr, in one line, what went wrong."""
    sys.stderr.write(f"splitfleet: {' '.join(message.split())}\n")


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
