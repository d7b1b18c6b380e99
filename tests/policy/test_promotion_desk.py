"""The promotion's folder: restarts, requests, damaged files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from policy.errors import PolicyError
from policy.promotion import Phase, Terms
from policy.promotion_desk import (
    REQUEST,
    STATE,
    PromotionDesk,
    ask_promotion,
    ask_rollback,
    load_promotion,
    waiting_request,
)
from policy.promotion_evidence import BLOCK_S, KNOWN_BLOCKS, LAG_S

NOW_S = 1_700_000_040.0
TERMS = Terms(shares=(0.5, 1.0), margin=0.05)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "Tuned weights.npz"
    np.savez(path, layer=np.ones(3))
    return path


def in_first_stage(folder: Path, weights: Path) -> tuple[PromotionDesk, float]:
    desk = PromotionDesk(folder)
    ask_promotion(folder, weights, TERMS, NOW_S)
    (event,) = desk.turn(NOW_S)
    assert event.kind == "began"
    for minute in range(KNOWN_BLOCKS):
        for i in range(4):
            desk.promotion.observe(NOW_S + minute * BLOCK_S, f"cam-{i}", 0.25 * i, 100)
        now_s = NOW_S + (minute + 1) * BLOCK_S + LAG_S
        events = desk.turn(now_s)
    assert [event.kind for event in events] == ["advanced"]
    return desk, now_s


def test_a_request_is_taken_once_and_its_weights_are_kept(tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "promotion"
    request = ask_promotion(folder, weights, TERMS, NOW_S)
    assert waiting_request(folder) == request
    contents = weights.read_bytes()
    weights.unlink()
    desk = PromotionDesk(folder)
    assert [event.kind for event in desk.turn(NOW_S)] == ["began"]
    assert desk.promotion.terms == TERMS
    assert desk.weights(desk.promotion.candidate or "").read_bytes() == contents
    assert waiting_request(folder) is None
    assert desk.turn(NOW_S + 1) == []


def test_the_state_survives_a_restart(tmp_path: Path, weights: Path) -> None:
    desk, now_s = in_first_stage(tmp_path, weights)
    promoted = {i for i in range(4) if desk.promotion.is_promoted(f"cam-{i}")}
    assert len(promoted) == 2
    again = PromotionDesk(tmp_path)
    assert again.problem == ""
    assert {i for i in range(4) if again.promotion.is_promoted(f"cam-{i}")} == promoted
    assert again.promotion.evidence.before == desk.promotion.evidence.before
    assert (again.promotion.phase, again.promotion.since_s) == (Phase.STAGE, desk.promotion.since_s)
    assert again.promotion.events == desk.promotion.events
    assert again.turn(now_s + 1) == []


def test_a_rollback_is_obeyed_before_anything_else(tmp_path: Path, weights: Path) -> None:
    desk, now_s = in_first_stage(tmp_path, weights)
    ask_rollback(tmp_path, "cameras moved", now_s)
    (event,) = desk.turn(now_s + 1)
    assert (event.kind, "cameras moved" in event.text) == ("rolled_back", True)
    assert not any(desk.promotion.is_promoted(f"cam-{i}") for i in range(4))
    state = load_promotion(tmp_path)
    assert state is not None and state.phase is Phase.ROLLED_BACK


def test_weights_that_cannot_be_used_step_back(tmp_path: Path, weights: Path) -> None:
    desk, now_s = in_first_stage(tmp_path, weights)
    desk.unusable(now_s, "layer has 3 figures, 4 are needed")
    state = load_promotion(tmp_path)
    assert state is not None and "4 are needed" in state.reason


def test_what_cannot_be_asked_is_told_at_once(tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "promotion"
    with pytest.raises(PolicyError, match="cannot read"):
        ask_promotion(folder, tmp_path / "none.npz", TERMS, NOW_S)
    (tmp_path / "text.npz").write_text("weights")
    with pytest.raises(PolicyError, match="not a file of weights"):
        ask_promotion(folder, tmp_path / "text.npz", TERMS, NOW_S)
    ask_promotion(folder, weights, TERMS, NOW_S)
    with pytest.raises(PolicyError, match="waits for the decision service"):
        ask_promotion(folder, weights, TERMS, NOW_S + 1)
    assert len(list((folder / "candidates").iterdir())) == 1
    PromotionDesk(folder).turn(NOW_S)
    with pytest.raises(PolicyError, match="in progress"):
        ask_promotion(folder, weights, TERMS, NOW_S)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"kind": "promote"}', json.dumps({"kind": "promote", "asked_s": 0, "candidate": "../../etc/passwd",
     "terms": {"shares": [1.0]}, "reason": ""})],
)  # fmt: skip
def test_requests_that_cannot_be_are_refused_and_gone(tmp_path: Path, text: str) -> None:
    desk = PromotionDesk(tmp_path)
    (tmp_path / REQUEST).write_text(text)
    (event,) = desk.turn(NOW_S)
    assert event.kind == "refused"
    assert desk.promotion.phase is Phase.IDLE
    assert desk.turn(NOW_S + 1) == []


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 99}', '{"schema": 1, "phase": "stage"}'])
def test_a_damaged_state_is_set_aside(tmp_path: Path, text: str) -> None:
    (tmp_path / STATE).write_text(text)
    with pytest.raises(PolicyError, match="cannot be read"):
        load_promotion(tmp_path)
    desk = PromotionDesk(tmp_path)
    assert desk.promotion.phase is Phase.IDLE
    assert "it is kept as" in desk.problem
    assert (tmp_path / f"{STATE}.damaged").read_text() == text
    desk.turn(NOW_S)
    assert load_promotion(tmp_path) is not None
