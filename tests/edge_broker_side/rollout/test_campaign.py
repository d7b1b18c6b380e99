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
    spent,
)
from wire.messages import UpdateStage

S = UpdateStage
HERE = Sight(online=True, holds=False)
HAS = Sight(online=True, holds=True)
TERMS = Terms(stages=(0.1, 0.5, 1.0), success=0.9, max_errors=0.1, limit_s=60.0)


def fleet(size: int) -> list[Member]:
    return [Member(f"cam-{n:03}", n / size) for n in range(size)]


def told(member: Member, stage: UpdateStage | None = None, stood_s: float = 0.0, online_s: float = 0.0) -> Member:
    online_s = max(online_s, stood_s)
    return dataclasses.replace(member, told_s=0.0, stage=stage, stood_s=stood_s, online_s=online_s)


@pytest.mark.parametrize(
    ("member", "sight", "expected"),
    [
        (Member("a", 0), HAS, Fate.UNTOLD),
        (told(Member("a", 0), None, 59.0), HERE, Fate.UNDER_WAY),
        (told(Member("a", 0), None, 61.0), HERE, Fate.OVERDUE),
        (told(Member("a", 0), S.DOWNLOADING, 21.0, 61.0), HERE, Fate.UNDER_WAY),
        (told(Member("a", 0), S.TRIAL, 61.0), HERE, Fate.OVERDUE),
        (told(Member("a", 0), S.TRIAL, 61.0), ABSENT, Fate.OFFLINE),
        (told(Member("a", 0), S.ACTIVE, 61.0), HAS, Fate.ACTIVE),
        (told(Member("a", 0), S.ACTIVE, 61.0), Sight(online=False, holds=True), Fate.ACTIVE),
        (told(Member("a", 0), S.ACTIVE, 10.0), HERE, Fate.UNDER_WAY),  # it says so, its capabilities do not
        (told(Member("a", 0), S.ACTIVE, 61.0), HERE, Fate.OVERDUE),
        (told(Member("a", 0), S.FAILED), HERE, Fate.FAILED),
        (told(Member("a", 0), S.ROLLED_BACK), ABSENT, Fate.ROLLED_BACK),
        (told(Member("a", 0), S.TRIAL, 1.0, 601.0), HERE, Fate.OVERDUE),
    ],
)
def test_what_became_of_a_device(member: Member, sight: Sight, expected: Fate) -> None:
    assert fate(member, sight, TERMS) is expected


@pytest.mark.parametrize(
    ("lost", "success", "max_errors", "told_why"),
    [
        (1, 0.9, 0.1, ""),
        (2, 0.8, 0.1, "2 of 10 devices failed or were rolled back, at most 10 % may"),
        (2, 0.9, 0.5, "2 of 10 devices failed or were rolled back, 90 % must be active"),
    ],
)
def test_what_is_lost_stays_lost(lost: int, success: float, max_errors: float, told_why: str) -> None:
    terms = dataclasses.replace(TERMS, success=success, max_errors=max_errors)
    members = [told(m, S.ROLLED_BACK if n < lost else S.TRIAL, 999.0) for n, m in enumerate(fleet(10))]
    assert spent(terms, members) == told_why
    assert spent(terms, fleet(10)) == ""


def test_a_stage_tells_its_share_lowest_places_first() -> None:
    members = fleet(20)
    assert next_step(TERMS, 0, members[::-1], {}) == Tell(("cam-000", "cam-001"))
    assert next_step(TERMS, 0, fleet(3), {}) == Tell(("cam-000",))
    assert next_step(TERMS, 0, [], {}) == Wait("no device fits yet")


def test_a_stage_waits_then_passes_and_the_last_one_ends() -> None:
    members = [told(m, S.ACTIVE) for m in fleet(10)]
    sights = {m.device: HAS for m in members}
    under_way = [told(members[0], S.TESTING), *members[1:]]
    assert next_step(TERMS, 2, under_way, sights) == Wait("1 of 10 devices are under way")
    assert next_step(TERMS, 1, members, sights) == NextStage()
    assert next_step(TERMS, 2, members, sights) == Done()


def test_one_failure_too_many_stops_at_once_whoever_is_still_under_way() -> None:
    members = [told(m, S.DOWNLOADING) for m in fleet(10)]
    sights = {m.device: HERE for m in members}
    members[0] = told(members[0], S.FAILED)
    assert isinstance(next_step(TERMS, 2, members, sights), Wait)
    members[1] = told(members[1], S.ROLLED_BACK)
    step = next_step(TERMS, 2, members, sights)
    assert step == Stop("1 failed and 1 rolled back of 10 devices, at most 10 % may fail")


def test_too_few_successes_stop_a_stage_once_all_have_ended() -> None:
    terms = dataclasses.replace(TERMS, max_errors=1.0)
    members = [told(m, S.FAILED if n < 2 else S.ACTIVE) for n, m in enumerate(fleet(10))]
    step = next_step(terms, 2, members, {m.device: HAS for m in members})
    assert step == Stop("8 of 10 devices are active, at least 90 % must be")


def test_devices_offline_hold_nothing_up_unless_all_are() -> None:
    members = [told(m, S.ACTIVE if n < 3 else None) for n, m in enumerate(fleet(10))]
    online = {m.device: HAS for m in members[:3]}
    assert next_step(TERMS, 2, members, online) == Done()
    assert next_step(TERMS, 2, members[3:], {}) == Wait("none of the 7 devices told is online")


def test_a_device_that_joins_in_the_last_stage_is_told() -> None:
    members = [*(told(m, S.ACTIVE) for m in fleet(10)), Member("new", 0.05)]
    assert next_step(TERMS, 2, members, {}) == Tell(("new",))


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
    members, stage = fleet(size), 0
    sights = {m.device: HAS if here else ABSENT for m, here in zip(members, online, strict=False)}
    for _ in range(50):
        members = [dataclasses.replace(m, stood_s=m.stood_s + terms.limit_s + 1) for m in members]
        step = next_step(terms, stage, members, sights)
        match step:
            case Tell(devices):
                before = sum(m.told_s is not None for m in members)
                assert before + len(devices) <= max(1, -(-terms.stages[stage] * size // 1)) + 1e-9
                members = [
                    told(m, ends[n] if online[n] else None) if m.device in devices else m for n, m in enumerate(members)
                ]
            case NextStage():
                stage += 1
            case Stop() | Done():
                break
            case Wait(reason) if "online" in reason:
                break
    else:
        raise AssertionError(f"still {step}")
    fates = count(members, sights, terms)
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
