"""What the registry believes of messages that are late, old, replayed, foreign or impossible."""

from __future__ import annotations

import dataclasses
import math

import pytest

from policy.calibration import expected_ms_per_frame
from policy.errors import PolicyError
from policy.fleet import Fleet, Limits
from policy.interface import DeviceObservation, Weights
from policy.plausible import DeviceFacts, DeviceReport, WorkerReport
from policy.rules import DeviceRules, SiteRules
from tests.policy.builders import CODECS, HEAVY_S2, HEAVY_WEBP, LIGHT_LOCAL, board, small_model
from tflite_models.profile import DeviceProfile

SHA = {"heavy": "aa", "light": "bb"}
FACTS = DeviceFacts(1, "board", 1.0, SHA, CODECS, fps=2.0, deadline_ms=400.0, may_ship_input=True)
REPORT = DeviceReport(1, LIGHT_LOCAL, 0, fps=2.0, uplink_bps=3e6, rtt_ms=8.0)
MODEL = small_model()
BOARD = board()


def profile_of(device_class: str, slowdown: float) -> DeviceProfile | None:
    return BOARD if device_class == "board" and slowdown == 1.0 else None


def registry(rules: SiteRules | None = None) -> Fleet:
    return Fleet(MODEL, SHA, profile_of, rules or SiteRules())


def ready(rules: SiteRules | None = None) -> Fleet:
    fleet = registry(rules)
    fleet.device_facts("cam", FACTS)
    fleet.device_state("cam", 1, ready=True)
    return fleet


def seen(fleet: Fleet, now_s: float = 0.0, **current: object) -> DeviceObservation:
    (device,) = fleet.observe(now_s, current).devices  # type: ignore[arg-type]
    return device


def test_a_device_appears_once_it_is_ready_and_has_said_what_it_can() -> None:
    fleet = registry()
    fleet.device_state("cam", 1, ready=True)
    assert fleet.observe(0, {}).devices == ()
    fleet.device_facts("cam", FACTS)
    device = seen(fleet)
    assert (device.name, device.profile, device.versions) == ("cam", BOARD, frozenset({"heavy", "light"}))
    assert (device.uplink_bps, device.uplink_known, device.rtt_ms) == (1e6, False, 50.0)
    assert (device.deadline_ms, device.fps, device.hold) == (400.0, 2.0, False)
    fleet.device_state("cam", 1, ready=False)
    assert fleet.observe(0, {}).devices == ()


def test_the_order_of_retained_messages_does_not_matter() -> None:
    one, other = registry(), registry()
    one.device_state("cam", 4, ready=True)
    one.device_facts("cam", dataclasses.replace(FACTS, session=4))
    other.device_facts("cam", dataclasses.replace(FACTS, session=4))
    other.device_state("cam", 4, ready=True)
    assert seen(one) == seen(other)


def test_a_late_will_does_not_bury_a_newer_session() -> None:
    fleet = ready()
    fleet.device_state("cam", 2, ready=True)
    fleet.device_facts("cam", dataclasses.replace(FACTS, session=2))
    fleet.device_state("cam", 1, ready=False)
    fleet.device_report("cam", dataclasses.replace(REPORT, uplink_bps=1e9), 0.0)
    assert seen(fleet).uplink_known is False
    assert fleet.counters["older_session"] == 2


def test_telemetry_steers_until_it_is_stale_then_the_plan_is_held() -> None:
    fleet = ready()
    fleet.device_report("cam", REPORT, 10.0)
    fresh = seen(fleet, 12.0, cam=HEAVY_S2)
    assert (fresh.uplink_bps, fresh.rtt_ms, fresh.telemetry_age_ms, fresh.hold) == (3e6, 8.0, 2000.0, False)
    assert seen(fleet, 15.1, cam=HEAVY_S2).hold
    assert not seen(fleet, 15.1).hold, "without a decision yet there is nothing to hold"


def test_a_restarted_service_holds_what_is_retained_until_telemetry_comes() -> None:
    fleet = ready()
    assert seen(fleet, 0.0, cam=HEAVY_S2).hold
    fleet.device_report("cam", REPORT, 0.0)
    assert not seen(fleet, 0.1, cam=HEAVY_S2).hold


def test_the_rate_that_is_measured_counts_once_there_is_one() -> None:
    """The camera is set to 2 a second; a burst of 10 is believed in steps, as-fast-as-possible stays that."""
    fleet = ready()
    for fps, believed in ((2.0, 2.0), (10.0, 6.0), (10.0, 8.0), (0.0, 4.0)):
        fleet.device_report("cam", dataclasses.replace(REPORT, fps=fps), 0.0)
        assert seen(fleet).fps == believed
    fleet.device_facts("cam", dataclasses.replace(FACTS, fps=0.0))
    assert seen(fleet).fps == 0.0


@pytest.mark.parametrize(
    ("report", "counter"),
    [
        (dataclasses.replace(REPORT, uplink_bps=-1.0), "implausible_uplink"),
        (dataclasses.replace(REPORT, uplink_bps=0.0), "implausible_uplink"),
        (dataclasses.replace(REPORT, rtt_ms=-5.0), "implausible_rtt"),
        (dataclasses.replace(REPORT, battery_share=1.5), "implausible_battery"),
        (dataclasses.replace(REPORT, calibration=0.0), "implausible_calibration"),
        (dataclasses.replace(REPORT, fps=-3.0), "implausible_fps"),
    ],
)
def test_impossible_figures_are_counted_and_the_last_good_ones_kept(report: DeviceReport, counter: str) -> None:
    fleet = ready()
    fleet.device_report("cam", REPORT, 0.0)
    before = seen(fleet)
    fleet.device_report("cam", report, 0.0)
    assert seen(fleet) == before
    assert fleet.counters[counter] == 1


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("bad", [NAN, INF, -INF, -1.0])
@pytest.mark.parametrize("field", ["uplink_bps", "rtt_ms", "battery_share", "calibration", "fps", "uplink_age_ms"])
def test_no_number_in_telemetry_steers_anything(field: str, bad: float) -> None:
    fleet = ready()
    fleet.device_report("cam", REPORT, 0.0)
    before = seen(fleet)
    fleet.device_report("cam", dataclasses.replace(REPORT, **{field: bad}), 0.0)  # type: ignore[arg-type]
    assert seen(fleet) == before
    assert sum(count for name, count in fleet.counters.items() if name.startswith("implausible_")) == 1


@pytest.mark.parametrize("bad", [NAN, INF, -INF, -1.0])
@pytest.mark.parametrize(
    ("field", "usual"),
    [("fps", ("fps", 1.0)), ("deadline_ms", ("deadline_ms", 1000.0)), ("slowdown", ("profile", BOARD))],
)
def test_no_number_in_capabilities_is_replaced_by_a_usual_one(
    field: str, usual: tuple[str, object], bad: float
) -> None:
    fleet = registry()
    fleet.device_facts("cam", dataclasses.replace(FACTS, **{field: bad}))  # type: ignore[arg-type]
    fleet.device_state("cam", 1, ready=True)
    assert getattr(seen(fleet), usual[0]) == usual[1]
    assert fleet.counters[f"implausible_{field.removesuffix('_ms')}"] == 1


@pytest.mark.parametrize("session", [-1, 2**63])
def test_a_session_that_cannot_be_is_ignored(session: int) -> None:
    fleet = registry()
    fleet.device_state("cam", session, ready=True)
    fleet.device_facts("cam", dataclasses.replace(FACTS, session=session))
    fleet.worker_state("w", session, 1, SHA, 0.0, ready=True)
    assert fleet.observe(0, {}).devices == () and fleet.observe(0, {}).edge.workers == 0
    assert fleet.counters["implausible_session"] == 3


@pytest.mark.parametrize(
    "wrong",
    [
        *({field: bad} for field in ("utilisation", "period_ms", "batch_mean", "wait_ms") for bad in (NAN, INF, -1.0)),
        {"queued": -1},
        {"served": 10**12},
    ],
)
def test_a_load_that_cannot_be_is_ignored_whole(wrong: dict[str, float]) -> None:
    fleet = registry()
    fleet.worker_state("w", 1, 1, SHA, 0.0, ready=True)
    fleet.worker_load("w", dataclasses.replace(LOAD, **wrong), 0.0, steady=True)  # type: ignore[arg-type]
    assert fleet.observe(0, {}).edge.utilisation is None
    assert fleet.counters["implausible_worker_load"] == 1


def test_late_frames_are_those_between_two_reports() -> None:
    fleet = ready()
    told = []
    for fallbacks, ended in ((3, 10), (5, 14), (5, 14), (0, 2), (1, 6)):
        fleet.device_report("cam", dataclasses.replace(REPORT, fallbacks=fallbacks, ended=ended), 0.0)
        told.append(seen(fleet).late_share)
    assert told == [None, 0.5, None, None, 0.25]


def test_the_age_of_the_uplink_goes_on_growing_between_reports() -> None:
    fleet = ready()
    assert seen(fleet).uplink_age_ms is None
    fleet.device_report("cam", dataclasses.replace(REPORT, uplink_age_ms=400.0), 10.0)
    assert seen(fleet, 12.5).uplink_age_ms == 2900.0


def test_a_battery_with_a_capacity_and_a_time_to_last() -> None:
    """40 Wh at a quarter are 36 MJ... of which a day has passed 6 hours; a charge begins it anew."""
    fleet = ready(SiteRules(DeviceRules(battery_wh=40.0, battery_hours=24.0)))
    assert (seen(fleet).battery_mj, seen(fleet).horizon_s) == (None, 86_400.0)
    fleet.device_report("cam", dataclasses.replace(REPORT, battery_share=0.25), 0.0)
    later = seen(fleet, 6 * 3600.0)
    assert (later.battery_mj, later.horizon_s) == (0.25 * 40 * 3.6e6, 18 * 3600.0)
    assert seen(fleet, 25 * 3600.0).horizon_s is None, "over"
    fleet.device_report("cam", dataclasses.replace(REPORT, battery_share=0.27), 25 * 3600.0)
    assert seen(fleet, 25 * 3600.0).horizon_s is None, "noise is no charging"
    fleet.device_report("cam", dataclasses.replace(REPORT, battery_share=0.9), 26 * 3600.0)
    assert seen(fleet, 26 * 3600.0).horizon_s == 86_400.0


def test_how_long_frames_wait_at_the_edge_counts_by_frames() -> None:
    fleet = registry()
    for name, wait_ms, served in (("a", 10.0, 30), ("b", 50.0, 10), ("c", 99.0, 0)):
        fleet.worker_state(name, 1, 1, SHA, 0.0, ready=True)
        fleet.worker_load(name, dataclasses.replace(LOAD, wait_ms=wait_ms, served=served), 0.0, steady=False)
    assert fleet.observe(0, {}).edge.wait_ms == 20.0
    assert fleet.observe(6, {}).edge.wait_ms is None


def test_a_file_that_is_not_the_catalogs_is_not_held() -> None:
    fleet = registry()
    fleet.device_facts("cam", dataclasses.replace(FACTS, versions={"heavy": "other", "light": "bb", "new": "cc"}))
    fleet.device_state("cam", 1, ready=True)
    assert seen(fleet).versions == {"light"}
    assert fleet.counters["versions_not_in_catalog"] == 2


def test_a_class_without_a_profile_is_counted() -> None:
    fleet = registry()
    fleet.device_facts("cam", dataclasses.replace(FACTS, device_class="unheard-of"))
    fleet.device_state("cam", 1, ready=True)
    assert seen(fleet).profile is None
    assert fleet.counters["class_without_profile"] == 1


def test_rules_of_the_site_and_of_one_device() -> None:
    rules = SiteRules(
        DeviceRules(weights=Weights(0, 1, 0), deadline_ms=250.0, battery_floor=0.3),
        {"cam": DeviceRules(weights=Weights(1, 0, 0), may_ship_input=False)},
    )
    device = seen(ready(rules))
    assert (device.weights, device.deadline_ms) == (Weights(1, 0, 0), 250.0)
    assert (device.may_ship_input, device.battery_floor) == (False, 0.3)


def test_a_device_may_forbid_its_pictures_whatever_the_rules_say() -> None:
    fleet = registry(SiteRules(DeviceRules(may_ship_input=True)))
    fleet.device_facts("cam", dataclasses.replace(FACTS, may_ship_input=False))
    fleet.device_state("cam", 1, ready=True)
    assert not seen(fleet).may_ship_input


LOAD = WorkerReport(1, period_ms=1000.0, queued=0, served=20, utilisation=0.24, batch_mean=1.0)


def test_workers_together() -> None:
    fleet = registry()
    assert fleet.observe(0, {}).edge.workers == 0
    fleet.worker_state("w1", 1, 2, SHA, 0.0, ready=True)
    fleet.worker_state("w2", 1, 1, {"heavy": "aa"}, 0.0, ready=True)
    edge = fleet.observe(0, {}).edge
    assert (edge.workers, edge.threads, edge.versions, edge.utilisation) == (2, 3, frozenset({"heavy"}), None)
    fleet.worker_load("w1", dataclasses.replace(LOAD, utilisation=0.9), 0.0, steady=False)
    fleet.worker_load("w2", dataclasses.replace(LOAD, utilisation=0.3, queued=10), 0.0, steady=False)
    edge = fleet.observe(0, {}).edge
    assert edge.utilisation == pytest.approx((0.9 * 2 + 0.3) / 3)
    assert edge.backlog_ms == pytest.approx(10 * (0.3 * 1000 / 20) / 3)
    assert fleet.observe(6, {}).edge.utilisation is None
    fleet.worker_state("w2", 0, 1, SHA, 0.0, ready=False)
    assert fleet.observe(6, {}).edge.workers == 2, "a will of an older session"
    fleet.worker_state("w2", 1, 0, {}, 0.0, ready=False)
    assert fleet.observe(6, {}).edge.versions == {"heavy", "light"}


def test_the_edge_is_calibrated_by_what_its_workers_take() -> None:
    """Profile: 12 ms per frame at s2, 40 ms whole; served half and half, 26 ms on average; the worker took 52."""
    fleet = registry()
    fleet.worker_state("w", 1, 1, SHA, 0.0, ready=True)
    for name, plan in (("a", HEAVY_S2), ("b", HEAVY_WEBP), ("c", LIGHT_LOCAL)):
        fleet.device_facts(name, FACTS)
        fleet.device_state(name, 1, ready=True)
        fleet.device_report(name, dataclasses.replace(REPORT, plan=plan, fps=5.0), 0.0)
    load = WorkerReport(1, 1000.0, 0, served=10, utilisation=0.52, batch_mean=1.0)
    fleet.worker_load("w", load, 0.0, steady=False)
    assert fleet.calibration.factor == 1.0
    for _ in range(60):
        fleet.worker_load("w", load, 0.0, steady=True)
    assert fleet.observe(0, {}).edge.calibration == pytest.approx(2.0, rel=1e-3)
    for _ in range(60):
        fleet.worker_load("w", dataclasses.replace(load, served=3, utilisation=1.0), 0.0, steady=True)
    assert fleet.calibration.factor == pytest.approx(4.0, rel=1e-3), "bounded"


@pytest.mark.parametrize("fps", [-1.0, 1e4, 1e308])
def test_a_rate_that_cannot_be_does_not_bend_the_calibration_of_the_edge(fps: float) -> None:
    """One sound device at 40 ms a frame, which the worker takes: the factor stays 1 whatever two others claim."""
    fleet = registry()
    fleet.worker_state("w", 1, 1, SHA, 0.0, ready=True)
    for name, plan, rate in (("a", HEAVY_WEBP, 5.0), ("b", HEAVY_S2, fps), ("c", HEAVY_S2, fps)):
        fleet.device_facts(name, FACTS)
        fleet.device_state(name, 1, ready=True)
        fleet.device_report(name, dataclasses.replace(REPORT, plan=plan, fps=rate), 0.0)
    load = WorkerReport(1, 1000.0, 0, served=10, utilisation=0.4, batch_mean=1.0)
    for _ in range(3):
        fleet.worker_load("w", load, 0.0, steady=True)
    assert fleet.calibration.factor == pytest.approx(1.0)


@pytest.mark.parametrize("wrong", [{"assumed_uplink_bps": 0.0}, {"assumed_rtt_ms": math.nan}, {"worker_silent_s": 0.0}])
def test_limits_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(PolicyError, match=f"limits {next(iter(wrong))}"):
        Limits(**wrong)


def test_what_the_profile_expects_of_a_mix_at_the_batch_size_that_was_measured() -> None:
    """Heavy as webp50: 40 ms alone, 240 ms for a batch of eight; at s2 12 and 72. Local plans do not count."""
    index = MODEL.table.index
    mix = [(index[HEAVY_WEBP], 3.0), (index[HEAVY_S2], 1.0), (index[LIGHT_LOCAL], 9.0)]
    assert expected_ms_per_frame(MODEL.edge, mix, 1.0) == pytest.approx((3 * 40 + 12) / 4)
    assert expected_ms_per_frame(MODEL.edge, mix, 7.0) == pytest.approx((3 * 30 + 9) / 4)
    assert expected_ms_per_frame(MODEL.edge, mix[2:], 1.0) == 0.0


def test_idle_workers_calibrate_nothing() -> None:
    fleet = registry()
    fleet.worker_state("w", 1, 1, SHA, 0.0, ready=True)
    fleet.worker_load("w", dataclasses.replace(LOAD, served=0, utilisation=0.0), 0.0, steady=True)
    fleet.worker_load("w", dataclasses.replace(LOAD, utilisation=40.0), 0.0, steady=True)
    assert fleet.calibration.factor == 1.0
    assert fleet.counters["implausible_worker_load"] == 1


def test_a_worker_that_says_nothing_is_gone_without_a_last_will() -> None:
    """A broker that died with the worker's will keeps its birth for ever."""
    fleet = registry()
    fleet.worker_state("w", 1, 1, SHA, 0.0, ready=True)
    assert fleet.observe(29, {}).edge.workers == 1
    fleet.worker_load("w", LOAD, 29.0, steady=False)
    assert fleet.observe(58, {}).edge.workers == 1
    assert fleet.observe(60, {}).edge.workers == 0
    fleet.worker_load("w", dataclasses.replace(LOAD, period_ms=60_000.0), 60.0, steady=False)
    assert fleet.observe(230, {}).edge.workers == 1, "it reports once a minute"


def test_a_worker_whose_clock_was_set_back_is_believed_once_the_one_before_has_ended() -> None:
    fleet = registry()
    fleet.worker_state("w", 9, 1, SHA, 0.0, ready=True)
    fleet.worker_state("w", 5, 4, SHA, 1.0, ready=True)
    assert fleet.observe(1, {}).edge.threads == 1, "late, from before"
    fleet.worker_state("w", 9, 1, SHA, 2.0, ready=False)
    fleet.worker_state("w", 5, 4, SHA, 3.0, ready=True)
    assert fleet.observe(3, {}).edge.threads == 4
    fleet.worker_load("w", dataclasses.replace(LOAD, session=5), 3.0, steady=False)
    assert fleet.observe(3, {}).edge.utilisation == LOAD.utilisation


def test_workers_that_left_make_room_for_new_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policy.fleet.MAX_WORKERS", 2)
    fleet = registry()
    for name, ready_now in (("a", True), ("b", False), ("c", True), ("d", True)):
        fleet.worker_state(name, 1, 1, SHA, 0.0, ready=ready_now)
    assert fleet.observe(0, {}).edge.workers == 2
    assert fleet.counters["too_many_workers"] == 1
