"""Pieces of the pages as HTML in which every text is escaped, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tools.dashboard.concerns import Concern
from wire.messages import Outcome

MOST_ROWS = 60
MOST_TEXT = 400
"""What a device says of itself may have many pages."""
NOTHING_WRONG = Markup('<ul class="sf-concerns"><li class="fine">Nothing is wrong.</li></ul>')


def concern_list(found: Sequence[Concern]) -> Markup:
    """Return what is wrong as a list."""
    if not found:
        return NOTHING_WRONG
    items = [
        Markup('<li class="{}">{}</li>').format(
            "grave" if one.grave else "",
            Markup('<a href="{}">{}</a>').format(one.link, one.text) if one.link else one.text,
        )
        for one in found
    ]
    return Markup('<ul class="sf-concerns">{}</ul>').format(Markup("").join(items))


def facts(rows: Iterable[tuple[str, object]]) -> Markup:
    """Return names and values; a value that is ``None`` is left out."""
    items = [Markup("<dt>{}</dt><dd>{}</dd>").format(name, figure(value)) for name, value in rows if value is not None]
    return Markup('<dl class="sf-facts">{}</dl>').format(Markup("").join(items))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str = "none") -> Markup:
    """Return rows under ``columns``; numbers stand right."""
    lines = [tuple(row) for row in rows]
    if not lines:
        return Markup("<p>{}</p>").format(empty)
    right = [any(isinstance(line[i], int | float) for line in lines) for i in range(len(columns))]
    head = Markup("").join(
        Markup('<th class="{}">{}</th>').format("n" if n else "", name) for name, n in zip(columns, right, strict=True)
    )
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                Markup('<td class="{}">{}</td>').format("n" if n else "", figure(cell))
                for cell, n in zip(line, right, strict=True)
            )
        )
        for line in lines
    )
    return Markup(
        '<div class="sf-scroll"><table class="sf"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(head, body)


def counters(found: Mapping[str, int], empty: str) -> Markup:
    """Return totals by name, without those that are 0."""
    rows = [(name, n) for name, n in sorted(found.items()) if n]
    more = [] if len(rows) <= MOST_ROWS else [(f"and {len(rows) - MOST_ROWS} more", None)]
    return table(("what", "count"), [*rows[:MOST_ROWS], *more], empty)


def outcome_bar(counts: Mapping[str, int]) -> Markup:
    """Return the shares of the four outcomes as a bar with its key."""
    total = sum(counts.values())
    pieces = Markup("").join(
        Markup('<i class="{}" style="width:{:.2f}%"></i>').format(outcome.value, 100 * counts[outcome.value] / total)
        for outcome in Outcome
        if total and counts[outcome.value]
    )
    key = Markup("").join(
        Markup('<span><i class="{}"></i>{} {}</span>').format(
            outcome.value, outcome.value, percent(counts[outcome.value], total)
        )
        for outcome in Outcome
    )
    return Markup('<div class="sf-bar">{}</div><div class="sf-key">{}</div>').format(pieces, key)


def figure(value: object) -> Any:
    """Return a value as text: three digits of a number, a dash for ``None``."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return value if isinstance(value, Markup) else str(value)[:MOST_TEXT]


def unit(value: float | None, of: str) -> str | None:
    """Return a figure with its unit; ``None`` stays."""
    return None if value is None else f"{figure(value)} {of}"


def percent(part: float, whole: float) -> str:
    """Return a share in words; of nothing, a dash."""
    if not whole:
        return "–"
    share = 100 * part / whole
    return f"{share:.1f} %" if 0 < share < 10 or 90 < share < 100 else f"{share:.0f} %"


def size(count: float) -> str:
    """Return bytes in words."""
    for name, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {name}"
    return f"{count:.0f} B"
