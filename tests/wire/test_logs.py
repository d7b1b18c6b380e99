"""No stranger can fill a disk with log lines."""

from __future__ import annotations

import logging

from wire.logs import BURST, PERIOD_S, Sparse


def test_a_flood_from_one_place_is_cut_short_and_told() -> None:
    now = [0.0]
    sparse = Sparse(lambda: now[0])

    def logged(line: int, level: int = logging.WARNING) -> str | None:
        record = logging.LogRecord("wire", level, "file.py", line, "refused %d %%", (7,), None)
        return record.getMessage() if sparse.filter(record) else None

    said = [logged(1) for _ in range(1000)]
    assert said == ["refused 7 %"] * BURST + [None] * (1000 - BURST)
    assert logged(2) == "refused 7 %", "another place"
    assert all(logged(1, logging.INFO) for _ in range(100))
    now[0] = PERIOD_S
    assert logged(1) == f"refused 7 % (and {1000 - BURST} more like it, left out)"
    assert logged(1) == "refused 7 %"
