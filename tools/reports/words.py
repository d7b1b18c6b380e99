"""What a report says in words, the same in every form: its header, the verdict on its account, what is not in it."""

from __future__ import annotations

from datetime import UTC, datetime

from edge_broker_side.reporting.assembly import MOST_DRAWN
from edge_broker_side.reporting.figures import Ledger, Report

READING = (
    "Latency, stages, bytes and accuracy are measured. Energy says for every figure whether it was measured or"
    " modelled; the two are never added up.",
    "Latency, head and encode are over answered frames; network (both directions), wait and tail over frames answered"
    " by the edge. Percentiles are nearest rank; medians of stages do not add up to the median of the whole.",
    "Times are the devices' own clocks, in UTC. Captured, counted and unaccounted are over everything up to the end of"
    " the window, not over the window alone.",
)


def utc(at_ms: int | None, *, seconds: bool = True) -> str:
    """Return a moment as people read it."""
    if at_ms is None:
        return "–"
    try:
        when = datetime.fromtimestamp(at_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):  # a device's clock may say anything
        return f"{at_ms} ms"
    return when.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


def window(told: Report) -> str:
    """Say which time was asked for."""
    scope = told.scope
    begin = "the beginning" if scope.since_ms is None else f"{utc(scope.since_ms, seconds=False)} UTC"
    end = "now" if scope.until_ms is None else f"{utc(scope.until_ms, seconds=False)} UTC"
    return f"{begin} to {end}"


def covered(told: Report) -> str:
    """Say from when to when there were frames."""
    return "no frames" if told.first_ms is None else f"{utc(told.first_ms)} to {utc(told.last_ms)} UTC"


def account(ledger: Ledger | None) -> str:
    """Say whether every frame is accounted for."""
    if ledger is None:
        return "unknown: the recorder has not told its account yet"
    if ledger.gap == 0:
        return f"every one of {ledger.captured:,} captured frames is accounted for"
    return f"{ledger.gap:,} of {ledger.captured:,} captured frames have no outcome yet: under way, or lost"


def notes(told: Report) -> list[str]:
    """Say what is not in the figures, most important first."""
    found = []
    figures, ledger, missing = told.fleet.figures, told.fleet.ledger, told.missing
    if not figures.frames:
        found.append("No frame in this window: try --since all.")
    unknown = [one.device for one in told.devices if one.ledger is None]
    if unknown:
        found.append(f"No account of captured frames of {_some(unknown)}: recorded by an older release.")
    if ledger is not None and (folded := sum(ledger.folded.values())):
        found.append(
            f"{folded:,} frames were told without details, as their devices' ledgers were full: they are in the"
            " account, not in the figures."
        )
    if figures.frames and not figures.judged:
        found.append("No answered frame has a true label: accuracy is unknown.")
    if len(figures.energy) > 1:
        found.append("Some energy is measured and some modelled: compare rows of one source only.")
    if missing is None:
        found.append("What the store dropped and what has not reached the server is known to --source sqlite alone.")
    else:
        if missing.trimmed:
            rows = ", ".join(f"{count:,} of {name}" for name, count in sorted(missing.trimmed.items()))
            found.append(f"Rows that outgrew the store's bounds, oldest first, are not in the figures: {rows}.")
        if missing.trimmed_unforwarded:
            found.append(f"Of them, {missing.trimmed_unforwarded:,} never reached the metrics server.")
        if missing.waiting:
            found.append(f"{missing.waiting:,} points still wait for the metrics server; they are in these figures.")
        if missing.dead:
            found.append(f"{missing.dead:,} points were refused by the metrics server: splitfleet metrics status.")
    if sum(bool(one.figures.frames) for one in told.devices) > MOST_DRAWN:
        found.append(f"Latency over time is told of the {MOST_DRAWN} devices with the most frames.")
    return found


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
