"""The bench of roll-outs on a small fleet: killed devices come back, all end on the new version, no frame is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.bench.rollout import measure


def test_devices_killed_during_their_update_end_on_one_version_with_every_frame_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.bench.rollout.KILL_WITHIN_S", 2.0)
    monkeypatch.setattr("tools.bench.rollout.DOWN_S", (0.1, 0.5))
    told = measure(tmp_path, devices=8, killed=0.25, fps=4.0, stages="100%", seed=3, show=lambda *_: None)
    assert (told.on_new_version, told.wrong) == (8, ())
    assert sum(told.killed_while.values()) == told.killed == 2
    assert told.captured >= 8 * 4 and told.recorded + told.waiting == told.captured and told.unaccounted == 0
