"""How a roll-out goes on, without devices: stages, thresholds, time limits; simulated fleets come to an end."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_broker_side.rollout.campaign import (
    ABSENT,
    Done,
    Fate,
    Member,
    NextStage,
    RolloutError,
    Sight,
    Stop,
    Tell,
    Terms,
    Wait,
    count,
    fate,
    next_step,
    parse_share,
    parse_stages,
    place_of,
)
from wire.messages import UpdateStage

S = UpdateStage
HERE = Sight(online=True, holds=False)
HAS = Sight(online=True, holds=True)
TERMS = Terms(stages=(0.1, 0.5, 1.0), success=0.9, max_errors=0.1, limit_s=60.0)


def fleet(size: int) -> list[Member]:
    return [Member(f"cam-{n:03}", n / size) for n in range(size)]


def told(member: Member, stage: UpdateStage | None = None, at_s: float = 0.0) -> Member:
    return dataclasses.replace(member, told_s=at_s, stage=stage, moved_s=at_s)


@pytest.mark.parametrize(
    ("member", "sight", "now_s", "expected"),
    [
        (Member("a", 0), HAS, 0.0, Fate.UNTOLD),
        (told(Member("a", 0)), HERE, 59.0, Fate.UNDER_WAY),
        (told(Member("a", 0)), HERE, 61.0, Fate.OVERDUE),
        (told(Member("a", 0), S.DOWNLOADING, 40.0), HERE, 61.0, Fate.UNDER_WAY),
        (told(Member("a", 0), S.TRIAL), HERE, 61.0, Fate.OVERDUE),
        (told(Member("a", 0), S.TRIAL), ABSENT, 9999.0, Fate.OFFLINE),
        (told(Member("a", 0), S.ACTIVE), HAS, 9999.0, Fate.ACTIVE),
        (told(Member("a", 0), S.ACTIVE), Sight(online=False, holds=True), 9999.0, Fate.ACTIVE),
        (told(Member("a", 0), S.ACTIVE), HERE, 10.0, Fate.UNDER_WAY),  # it says so, its capabilities do not
        (told(Member("a", 0), S.ACTIVE), HERE, 61.0, Fate.OVERDUE),
        (told(Member("a", 0), S.FAILED), HERE, 0.0, Fate.FAILED),
        (told(Member("a", 0), S.ROLLED_BACK), ABSENT, 0.0, Fate.ROLLED_BACK),
        (dataclasses.replace(told(Member("a", 0), S.TRIAL, 601.0), begun_s=0.0), HERE, 602.0, Fate.OVERDUE),
    ],
)
def test_what_became_of_a_device(member: Member, sight: Sight, now_s: float, expected: Fate) -> None:
    assert fate(member, sight, TERMS, now_s) is expected


def test_a_stage_tells_its_share_lowest_places_first() -> None:
    members = fleet(20)
    assert next_step(TERMS, 0, members[::-1], {}, 0.0) == Tell(("cam-000", "cam-001"))
    assert next_step(TERMS, 0, fleet(3), {}, 0.0) == Tell(("cam-000",))
    assert next_step(TERMS, 0, [], {}, 0.0) == Wait("no device fits yet")


def test_a_stage_waits_then_passes_and_the_last_one_ends() -> None:
    members = [told(m, S.ACTIVE) for m in fleet(10)]
    sights = {m.device: HAS for m in members}
    under_way = [told(members[0], S.TESTING), *members[1:]]
    assert next_step(TERMS, 2, under_way, sights, 1.0) == Wait("1 of 10 devices are under way")
    assert next_step(TERMS, 1, members, sights, 1.0) == NextStage()
    assert next_step(TERMS, 2, members, sights, 1.0) == Done()


def test_one_failure_too_many_stops_at_once_whoever_is_still_under_way() -> None:
    members = [told(m, S.DOWNLOADING) for m in fleet(10)]
    sights = {m.device: HERE for m in members}
    members[0] = told(members[0], S.FAILED)
    assert isinstance(next_step(TERMS, 2, members, sights, 1.0), Wait)
    members[1] = told(members[1], S.ROLLED_BACK)
    step = next_step(TERMS, 2, members, sights, 1.0)
    assert step == Stop("1 failed and 1 rolled back of 10 devices, at most 10 % may fail")


def test_too_few_successes_stop_a_stage_once_all_have_ended() -> None:
    terms = dataclasses.replace(TERMS, max_errors=1.0)
    members = [told(m, S.FAILED if n < 2 else S.ACTIVE) for n, m in enumerate(fleet(10))]
    step = next_step(terms, 2, members, {m.device: HAS for m in members}, 1.0)
    assert step == Stop("8 of 10 devices are active, at least 90 % must be")


def test_devices_offline_hold_nothing_up_unless_all_are() -> None:
    members = [told(m, S.ACTIVE if n < 3 else None) for n, m in enumerate(fleet(10))]
    online = {m.device: HAS for m in members[:3]}
    assert next_step(TERMS, 2, members, online, 9999.0) == Done()
    assert next_step(TERMS, 2, members[3:], {}, 9999.0) == Wait("none of the 7 devices told is online")


def test_a_device_that_joins_in_the_last_stage_is_told() -> None:
    members = [*(told(m, S.ACTIVE) for m in fleet(10)), Member("new", 0.05)]
    assert next_step(TERMS, 2, members, {}, 1.0) == Tell(("new",))


def test_who_comes_first_is_drawn_by_lot_and_stays_so() -> None:
    places = {name: place_of("1/x", name) for name in (f"cam-{n}" for n in range(1000))}
    assert places == {name: place_of("1/x", name) for name in places}
    assert all(0 <= place < 1 for place in places.values())
    assert 400 < sum(place < 0.5 for place in places.values()) < 600
    others = {name: place_of("2/x", name) for name in places}
    assert sorted(places, key=places.__getitem__) != sorted(others, key=others.__getitem__)


@given(
    st.integers(1, 60),
    st.lists(st.sampled_from([S.ACTIVE, S.FAILED, S.ROLLED_BACK, S.TRIAL]), min_size=60, max_size=60),
    st.lists(st.booleans(), min_size=60, max_size=60),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_every_roll_out_comes_to_an_end_and_never_tells_more_than_it_may(
    size: int, ends: list[UpdateStage], online: list[bool], success: float, max_errors: float
) -> None:
    """Whatever devices do, it is done, stopped, or waits for devices that are all away; bad ones are bounded."""
    terms = dataclasses.replace(TERMS, success=success, max_errors=max_errors)
    members, stage, now_s = fleet(size), 0, 0.0
    sights = {m.device: HAS if here else ABSENT for m, here in zip(members, online, strict=False)}
    for _ in range(50):
        now_s += terms.limit_s + 1
        step = next_step(terms, stage, members, sights, now_s)
        match step:
            case Tell(devices):
                before = sum(m.told_s is not None for m in members)
                assert before + len(devices) <= max(1, -(-terms.stages[stage] * size // 1)) + 1e-9
                members = [
                    told(m, ends[n] if online[n] else None, now_s) if m.device in devices else m
                    for n, m in enumerate(members)
                ]
            case NextStage():
                stage += 1
            case Stop() | Done():
                break
            case Wait(reason) if "online" in reason:
                break
    else:
        raise AssertionError(f"still {step}")
    fates = count(members, sights, terms, now_s)
    if isinstance(step, Done):
        assert not fates[Fate.UNTOLD] and not fates[Fate.UNDER_WAY]
        ended = fates[Fate.ACTIVE] + fates[Fate.FAILED] + fates[Fate.ROLLED_BACK] + fates[Fate.OVERDUE]
        assert fates[Fate.ACTIVE] >= success * ended - 1e-9


def test_shares_are_written_with_their_sign() -> None:
    assert parse_stages("5%, 25%,100%") == (0.05, 0.25, 1.0)
    for bad in ("5", "0.05", "101%", "-1%", "x%", "5%%", "nan%", ""):
        with pytest.raises(RolloutError, match="is not a share: write such as 5%"):
            parse_share(bad, "stage")


@pytest.mark.parametrize(
    "changes",
    [
        {"stages": ()},
        {"stages": (0.5, 0.25)},
        {"stages": (0.5, 0.5)},
        {"stages": (0.0, 1.0)},
        {"stages": (1.5,)},
        {"success": 1.5},
        {"max_errors": -0.1},
        {"limit_s": 0.0},
        {"limit_s": float("nan")},
        {"trial_frames": 0},
    ],
)
def test_terms_that_make_no_sense_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(RolloutError):
        dataclasses.replace(TERMS, **changes)  # type: ignore[arg-type]
