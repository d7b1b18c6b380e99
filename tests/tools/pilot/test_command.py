"""``splitfleet pilot`` refuses what cannot be in one line, before anything starts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools.cli import main


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--demo", "--port", "1883"), "--demo starts a site of its own"),
        (("--block", "5s", "--wash-out", "9s"), "leaves nothing to measure: take a longer --block"),
        (("--block", "soon"), "--block soon: write a time such as 90s"),
        (("--rounds", "0"), "greater than or equal to 1"),
        (("--kpi", "{folder}/absent.toml"), "cannot read"),
        (("--settings", "{folder}/absent.toml"), "cannot read"),
        (("--settings", "{folder}/absent.toml", "--site", "s"), "a settings file takes the place of options"),
        (("--json", "{folder}/file/pilot.json"), "cannot use"),
        (("--demo", "--policy", "astrology"), "'astrology' is none of fixed, local"),
        (("--site", "Not A Site"), "is not a valid name"),
        (("--settings", "{folder}/operator.toml"), "no answer from 127.0.0.1:1 within 0.2 s: is a broker there"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "operator.toml").write_text('site = "s"\n[link]\nport = 1\nconnect_timeout_s = 0.2\n')
    monkeypatch.setattr("tools.pilot.command.stop_on_signals", lambda: None)  # the tests keep their handlers
    monkeypatch.setattr(sys, "argv", ["splitfleet", "pilot", *(one.format(folder=tmp_path) for one in arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert words in " ".join(err.split())
