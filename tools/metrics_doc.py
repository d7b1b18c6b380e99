"""Writes the table of measurements in docs/metrics.md from the schema of ``points``; with ``--check`` only compares."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from edge_broker_side.points import MEASUREMENTS, Kind, Measurement

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
BEGIN = "<!-- made by python -m tools.metrics_doc; do not edit -->"
END = "<!-- end of what is made -->"
KINDS = {
    Kind.TAG: "tag",
    Kind.INT: "integer",
    Kind.FLOAT: "float",
    Kind.TEXT: "text",
    Kind.BOOL: "boolean",
    Kind.COUNTS: "integers",
    Kind.NUMBERS: "floats",
}


def tables() -> str:
    """Return one table per measurement."""
    return "\n\n".join("\n".join(_table(measurement)) for measurement in MEASUREMENTS)


def _table(measurement: Measurement) -> Iterator[str]:
    yield f"### {measurement.name}\n"
    yield f"One point per {', '.join(f'`{name}`' for name in measurement.unique)}.\n"
    yield "| column | kind | meaning |"
    yield "| --- | --- | --- |"
    for column in measurement.columns:
        name = f"{column.name}_<name>" if column.kind in (Kind.COUNTS, Kind.NUMBERS) else column.name
        yield f"| `{name}` | {KINDS[column.kind]} | {column.meaning} |"


def main(arguments: list[str]) -> int:
    """Write the tables into the document, or with ``--check`` return 1 when they are not up to date."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    wanted = f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"
    if arguments == ["--check"]:
        if text == wanted:
            return 0
        sys.stderr.write(f"{DOCUMENT.name} is not up to date: python -m tools.metrics_doc\n")
        return 1
    DOCUMENT.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
