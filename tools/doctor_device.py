"""What the doctor says of one device: link, clock, certificate, board, versions, plan and frames. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from edge_broker_side.inventory import NEVER_SEEN, REVOKED, Entry
from tflite_models.profile import DeviceProfile, ProfileError
from tools.doctor_check import Check, Verdict, above, advised, below, certificate, distribution, spread
from wire.messages import DeviceState, FrameOutcome, Outcome, Telemetry
from wire.plan import OUTPUT

RTT_WARNING_MS, RTT_BAD_MS = 100.0, 500.0
"""Of the 95th percentile: a frame's answer takes at least one round trip of its deadline, usually 250 to 1,000 ms."""
UPLINK_WARNING_BPS, UPLINK_BAD_BPS = 500e3, 50e3
"""The smallest useful activations of the shipped versions are 1 to 3 kB: 50 kbit/s carries two to six a second."""
LOSS_WARNING, LOSS_BAD = 0.01, 0.1
"""Share of telemetry that did not come. QoS 1 loses none on a link that works."""
SKEW_WARNING_S, SKEW_BAD_S = 2.0, 60.0
"""Frames are filed by the device's own clock: from seconds on, curves of several devices do not fit together."""
DISK_WARNING_MB, DISK_BAD_MB = 500.0, 50.0
"""A ledger of 50,000 frames takes 13 MB; a new version of a model up to some hundred."""
HEAT_WARNING_C, HEAT_BAD_C = 70.0, 80.0
"""A Raspberry Pi slows itself down at 80 °C."""
CLIENT_SHARE_WARNING, CLIENT_SHARE_BAD = 0.3, 0.6
"""Of the board's memory held by the client: the rest is for the system and for loading another version."""
FALLBACK_WARNING, FALLBACK_BAD = 0.05, 0.25
"""Share of frames finished on the device because the edge did not answer."""
UNDER_VOLTAGE, CAPPED, SLOWED, HOT = 1, 2, 4, 8
HAPPENED_SHIFT = 16
THROTTLED_WORDS = (
    (UNDER_VOLTAGE, "voltage too low"),
    (CAPPED, "frequency capped"),
    (SLOWED, "slowed down"),
    (HOT, "hot"),
)
REASONS = {
    "no-answer": "worker or link is too slow for the deadline: another worker, a smaller plan, or a later deadline",
    "busy": "the worker's queue is full: start another worker",
    "offline": "the board has no connection: look at its network",
    "disconnected": "the connection breaks: look at its network",
    "edge-silent": "no worker answers: is one running?",
    "evicted": "the link is too slow for what is sent: a smaller plan",
    "expired": "frames wait too long for the link: a smaller plan, or a later deadline",
    "not-sent": "frames wait too long for the link: a smaller plan, or a later deadline",
    "unknown-plan": "the worker lacks the version: the same models on both sides?",
    "head-failed": "the model does not run on this board: see the client's log",
}


@dataclass(slots=True)
class DeviceEvidence:
    """What is known of a device."""

    entry: Entry
    problems: Sequence[str] = ()
    """What the inventory finds wrong."""
    rows: list[FrameOutcome] = field(default_factory=list)
    """Frames told of while listening."""
    days_left: float | None = None
    """Of its certificate."""
    profile: DeviceProfile | None = None
    profile_problem: str = ""
    profiled: bool = False
    """Whether the site's profiles are on this machine."""
    gap: int | None = None
    """Frames captured but without an outcome in the store; ``None``: the store is elsewhere."""
    captured: int = 0


def device_checks(seen: DeviceEvidence) -> Iterator[Check]:
    """Yield one row per thing looked at."""
    entry = seen.entry
    yield _state(entry)
    for problem in seen.problems:
        yield Check("capabilities", problem, Verdict.WARNING, "flash the board again, or see its log")
    if seen.days_left is not None and entry.state != REVOKED:
        yield certificate(
            "certificate", seen.days_left, f"splitfleet devices add {entry.name}, then put the new files on the board"
        )
    told = entry.telemetry
    if told is not None:
        yield from _link(entry, told)
        yield from _clock(entry)
        yield from _board(entry, told)
        yield from _plan(entry, told)
        yield from _frames(seen, told)
    yield from _profile(seen)


def _state(entry: Entry) -> Check:
    if entry.state == DeviceState.READY:
        return advised(
            "state", entry.state, Verdict.OK if entry.samples else Verdict.BAD, "no telemetry comes: see its log"
        )
    reason = f" ({entry.told_state.reason})" if entry.told_state and entry.told_state.reason else ""
    advice = {
        NEVER_SEEN: "it has not come yet: flash it (splitfleet flash), power it on, look at its network",
        REVOKED: f"its certificate is revoked; let it in again with splitfleet devices add {entry.name}",
        DeviceState.LOST: "it vanished without a word: power, network, or a clock that is years off",
        DeviceState.STOPPED: "it was stopped: start the client",
    }.get(entry.state, "it is starting or sleeping: look again")
    verdict = Verdict.WARNING if entry.state in (DeviceState.SLEEPING, DeviceState.INIT) else Verdict.BAD
    return Check("state", entry.state + reason, verdict, advice)


def _link(entry: Entry, told: Telemetry) -> Iterator[Check]:
    times = [one.told.rtt_ms for one in entry.samples if one.told.rtt_ms is not None]
    if times:
        _, p95, _ = distribution(times)
        yield advised(
            "round trip", spread(times, "estimates"), above(p95, RTT_WARNING_MS, RTT_BAD_MS),
            "a nearer access point, or plans that run on the device",
        )  # fmt: skip
    else:
        yield Check("round trip", "not measured yet", Verdict.WARNING, "look again in some seconds")
    if told.uplink_bps is not None:
        yield advised(
            "uplink", f"{told.uplink_bps / 1e6:.3g} Mbit/s", below(told.uplink_bps, UPLINK_WARNING_BPS, UPLINK_BAD_BPS),
            "a better link, or plans of fewer bytes",
        )  # fmt: skip
    numbers = [one.told.seq for one in entry.samples]
    expected = max(numbers) - min(numbers) + 1
    lost = expected - len(set(numbers))
    yield advised(
        "telemetry lost", f"{lost} of {expected} heard of", above(lost / expected, LOSS_WARNING, LOSS_BAD),
        "the link drops messages, or the board's outbox is full: look at its network",
    )  # fmt: skip
    large = sum(told.counters.get(f"link_{name}", 0) for name in ("refused_too_large", "not_sent_too-large"))
    yield advised(
        "too large to send", f"{large} messages", above(large, 0, 100),
        "raise the broker's max_packet_size: see splitfleet doctor",
    )  # fmt: skip


def _clock(entry: Entry) -> Iterator[Check]:
    skew = entry.skew
    if skew is not None:
        sure = "unknown" if skew.uncertain_ms is None else f"{skew.uncertain_ms:.0f} ms"
        yield advised(
            "clock", f"{skew.ahead_ms / 1000:+.3f} s ± {sure}",
            above(abs(skew.ahead_ms) / 1000, SKEW_WARNING_S, SKEW_BAD_S),
            "set the board's clock: systemd-timesyncd with a time server it can reach, or a clock module",
        )  # fmt: skip


def _board(entry: Entry, told: Telemetry) -> Iterator[Check]:
    if told.disk_free_mb is not None:
        yield advised(
            "disk", f"{told.disk_free_mb:,.0f} MB free", below(told.disk_free_mb, DISK_WARNING_MB, DISK_BAD_MB),
            "make room on the board, or take a larger card",
        )  # fmt: skip
    if told.temperature_c is not None:
        yield advised(
            "temperature", f"{told.temperature_c:.0f} °C", above(told.temperature_c, HEAT_WARNING_C, HEAT_BAD_C),
            "cool it: a heat sink, air, or fewer frames",
        )  # fmt: skip
    if told.throttled is not None:
        yield _throttled(told.throttled)
    board_mb = entry.capabilities.memory_mb if entry.capabilities else 0
    if told.memory_mb is not None and board_mb > 0:
        share = told.memory_mb / board_mb
        yield advised(
            "memory", f"the client holds {told.memory_mb:.0f} of {board_mb:,} MB",
            above(share, CLIENT_SHARE_WARNING, CLIENT_SHARE_BAD), "fewer or lighter versions on this board",
        )  # fmt: skip


def _throttled(bits: int) -> Check:
    now = [words for bit, words in THROTTLED_WORDS if bits & bit]
    before = [words for bit, words in THROTTLED_WORDS if bits >> HAPPENED_SHIFT & bit]
    power = "a stronger power supply and a shorter cable" if bits & (UNDER_VOLTAGE | UNDER_VOLTAGE << 16) else "cool it"
    if now:
        return Check("throttled", ", ".join(now), Verdict.BAD, f"the board runs slower than it was measured: {power}")
    if before:
        return Check("throttled", f"not now; since it was switched on: {', '.join(before)}", Verdict.WARNING, power)
    return Check("throttled", "never since it was switched on")


def _plan(entry: Entry, told: Telemetry) -> Iterator[Check]:
    decided = entry.decision
    if decided is not None and decided.rev > told.decision_rev:
        refused = told.counters.get("decisions_refused", 0)
        how = f"refused ({refused} so far)" if refused else "not followed yet"
        yield Check(
            "plan", f"{told.plan}; decision {decided.rev} for {decided.plan} is {how}",
            Verdict.BAD if refused else Verdict.WARNING,
            "its log says why: a version or codec it lacks, or a picture that must not leave it",
        )  # fmt: skip
        return
    by = f"decision {told.decision_rev} of {decided.policy}" if decided is not None else "nobody has decided yet"
    yield Check("plan", f"{told.plan}, {by}")


def _frames(seen: DeviceEvidence, told: Telemetry) -> Iterator[Check]:
    ended = {outcome: told.counters.get(f"outcome_{outcome}", 0) for outcome in Outcome}
    total = sum(ended.values())
    if total:
        share = ended[Outcome.FALLBACK] / total
        reasons = Counter(row.reason for row in seen.rows if row.outcome is Outcome.FALLBACK)
        why = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common(3))
        most = reasons.most_common(1)[0][0] if reasons else ""
        yield advised(
            "fallback",
            f"{share:.1%} of {total:,} frames this session" + (f"; lately {why}" if why else ""),
            above(share, FALLBACK_WARNING, FALLBACK_BAD),
            REASONS.get(most, "the edge does not answer in time: see what to watch in docs/operations.md"),
        )
    if seen.gap is not None:
        # What was captured in the last seconds is still under way.
        slack = max(100.0, told.fps * 5)
        yield advised(
            "frames unaccounted", f"{seen.gap:,} of {seen.captured:,}", above(seen.gap, slack, 10 * slack),
            "a ledger on its way, or a power cut: look again; see gap in docs/operations.md",
        )  # fmt: skip


def _profile(seen: DeviceEvidence) -> Iterator[Check]:
    can = seen.entry.capabilities
    if can is None or not seen.profiled:
        return
    how = f"on the board: python -m device_client.profiling --class {can.device_class} --out {can.device_class}.json"
    if seen.profile is None:
        yield Check(
            "profile", f"none of class {can.device_class}: {seen.profile_problem}", Verdict.WARNING,
            f"the policy cannot plan for it; {how}",
        )  # fmt: skip
        return
    lacking = [version.name for version in can.versions if not _has(seen.profile, version.name)]
    if lacking:
        yield Check("profile", f"lacks {', '.join(lacking)}", Verdict.WARNING, f"measure again {how}")
    else:
        yield Check("profile", f"{can.device_class}, every version")


def _has(profile: DeviceProfile, version: str) -> bool:
    try:
        profile.head(version, OUTPUT)
    except ProfileError:
        return False
    return True
