"""The broker's log stays within bounds, however long the broker runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_broker_side import broker_log
from edge_broker_side.broker_log import BrokerLog


def test_a_full_log_makes_room_and_one_older_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_log, "MAX_LOG_BYTES", 1000)
    log = tmp_path / "broker.log"
    source, sink = os.pipe()
    heard = BrokerLog(os.fdopen(source, "rb"), str(log), tmp_path, None)
    for number in range(100):
        heard._pass_on(b"%03d %s\n" % (number, b"x" * 45))
    os.close(sink)
    heard.close()
    older = tmp_path / "broker.log.1"
    assert older.stat().st_size == 1000 and (not log.exists() or log.stat().st_size <= 1000)
    assert {file.name for file in tmp_path.iterdir()} <= {"broker.log", "broker.log.1"}
    heard._pass_on(b"the last\n")
    assert older.read_bytes().startswith(b"080 ") and log.read_bytes() == b"the last\n"
