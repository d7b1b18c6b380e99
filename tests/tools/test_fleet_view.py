"""The subscriber's view counts each frame once, whatever is repeated or comes late."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tools.demo_view import decided_by_words
from tools.fleet_view import DeviceView, FleetView, summarise
from wire.messages import (
    Decision,
    DeviceState,
    EnergySource,
    FoldedCount,
    FrameOutcome,
    Outcome,
    Outcomes,
    PolicyState,
    State,
    Telemetry,
)
from wire.plan import Plan

LOCAL, SPLIT = Plan("light", "output", "none"), Plan("heavy", "s2", "q2")


def outcomes(session: int, captured: int, lines: list[FrameOutcome], folded: tuple[FoldedCount, ...] = ()) -> Outcomes:
    return Outcomes(session, 1, captured, (LOCAL, SPLIT), tuple(lines), folded)


@given(
    endings=st.lists(st.tuples(st.sampled_from(list(Outcome)), st.integers(0, 1)), min_size=1, max_size=30),
    order=st.randoms(use_true_random=False),
    missing=st.integers(0, 5),
)
def test_repeated_and_shuffled_batches_change_nothing(
    endings: list[tuple[Outcome, int]], order: object, missing: int
) -> None:
    lines = [FrameOutcome(n, outcome, plan, 0, 1.0) for n, (outcome, plan) in enumerate(endings, start=1)]
    batches = [outcomes(5, len(lines) + missing, [line]) for line in lines] * 2
    order.shuffle(batches)  # type: ignore[attr-defined]
    view = DeviceView("cam")
    for batch in batches:
        view.take(batch)
    facts = summarise([view])
    assert facts["frames_captured"] == len(lines) + missing
    assert facts["unaccounted"] == missing
    for outcome in Outcome:
        assert facts["outcomes"][outcome] == sum(line.outcome is outcome for line in lines)
    plans = [plan for _, plan in endings]
    assert facts["plan_switches"] == sum(a != b for a, b in itertools.pairwise(plans))


def test_figures_are_over_the_frames_they_claim() -> None:
    lines = [
        FrameOutcome(1, Outcome.EDGE, 1, 0, 10.0, sent_bytes=100, energy_mj=4.0, label=3, truth=3),
        FrameOutcome(2, Outcome.FALLBACK, 1, 0, 30.0, sent_bytes=200, energy_mj=8.0, label=1, truth=3, reason="busy"),
        FrameOutcome(3, Outcome.DROPPED, 1, 0, 999.0, reason="overrun"),
        FrameOutcome(4, Outcome.DEVICE, 0, 0, 20.0, label=2),
    ]
    view = DeviceView("cam")
    view.take(outcomes(1, 4, lines))
    facts = summarise([view])
    assert facts["latency_ms_p50"] == 20.0  # the dropped frame was never answered
    assert facts["accuracy"] == 0.5  # nobody knows the truth of frame 4
    assert facts["energy_mj_mean"] == 3.0
    assert facts["bytes_mean"] == 75.0
    assert facts["reasons"] == {"fallback: busy": 1, "dropped: overrun": 1}
    assert facts["energy_source"] == EnergySource.MODELLED


def test_folded_counts_stand_for_frames_without_lines() -> None:
    view = DeviceView("cam")
    for frames in (40, 60, 60):  # totals so far, repeated
        view.take(
            outcomes(1, 61, [FrameOutcome(61, Outcome.DEVICE, 0, 0, 1.0)], (FoldedCount(Outcome.EDGE, "", frames),))
        )
    facts = summarise([view])
    assert facts["outcomes"]["edge"] == 60
    assert facts["unaccounted"] == 0


def test_a_late_will_cannot_bury_a_newer_session() -> None:
    fleet = FleetView()
    shown = []
    for state, session in ((DeviceState.READY, 7), (DeviceState.LOST, 6), (DeviceState.LOST, 7)):
        fleet.take("cam", State(state, session))
        shown.append(fleet.devices["cam"].state)
    assert shown == [DeviceState.READY, DeviceState.READY, DeviceState.LOST]


def test_replayed_telemetry_and_old_decisions_are_not_the_present() -> None:
    view = DeviceView("cam")
    view.take(Telemetry(1, 9, 0, LOCAL, 0, 1.0, 0, 0))
    view.take(Telemetry(1, 3, 0, LOCAL, 0, 1.0, 0, 0, replayed=True))
    assert view.telemetry is not None
    assert view.telemetry.seq == 9
    for rev in (4, 4, 3, 5):
        view.take(Decision(rev, SPLIT, 100.0, "test", ""))
    assert view.decisions == 2


def test_who_decided_and_why_another_than_asked() -> None:
    view = FleetView()
    plan = Plan("heavy", "output", "none")
    view.take("cam-1", Decision(1, plan, 400.0, "pricing", "first"))
    view.take("cam-1", Decision(2, plan, 400.0, "a2c", "then"))
    view.take("cam-1", Decision(2, plan, 400.0, "a2c", "retained, shown again"))
    for rounds in (3, 4):
        state = PolicyState(1, 0, 5000.0, "a2c", "a2c", 1, 1, {"no weights": rounds}, decide_ms_max=12.5)
        view.take("policy", state)
    assert view.devices["cam-1"].decided_by == {"pricing": 1, "a2c": 1}
    assert view.fallback == {"no weights": 7}
    assert list(view.devices) == ["cam-1"]
    words = decided_by_words(
        {"policy": "a2c", "decided_by": {"pricing": 1, "a2c": 1}, "fallback": view.fallback, "decide_ms_max": 12.5}
    )
    assert words == (
        "policy a2c: decisions: 1 by pricing, 1 by a2c; a round took 12 ms at most; "
        "fallback: no weights (7 device rounds)"
    )
