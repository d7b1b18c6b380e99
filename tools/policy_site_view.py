"""How a comparison of policies and the state of a promotion are told: tables, sentences, and the same as JSON."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from policy.comparison import Comparison, Trust
from policy.promotion import Phase, Promotion
from policy.promotion_desk import Request
from policy.promotion_evidence import KNOWN_BLOCKS
from tools.output import console, print_table


def print_comparison(one: Comparison) -> None:
    """Print one pair of policies."""
    interval = one.difference
    between = f"95 %: {interval.low:+.4f} to {interval.high:+.4f}" if interval else "too short for an interval"
    console().print(
        f"{one.shadow} (shadow) − {one.acting} (acting): {one.estimate:+.4f} predicted reward per device and period "
        f"({between}; {one.blocks} blocks of time)\n"
        f"{one.shadow} {one.shadow_reward:.4f}, {one.acting} {one.acting_reward:.4f} over {one.periods:,} "
        f"device periods in {one.hours:.2f} h; {100 * one.differing:.1f} % of the decisions differ"
    )
    if one.unpredicted:
        console().print(f"left out: {one.unpredicted:,} device periods without a prediction (no profile)")
    if one.pairs:
        print_table(
            "commonest differences, modelled",
            [f"{one.acting} acts", f"{one.shadow} would", "device periods", "mean difference"],
            [(a, b, count, _signed(mean)) for a, b, count, mean in one.pairs],
        )
    ends = one.devices if len(one.devices) <= 10 else (*one.devices[:5], *one.devices[-5:])
    print_table(
        "devices, worst for the shadow first" + ("" if ends is one.devices else f" (5 and 5 of {len(one.devices)})"),
        ["device", "mean difference", "decisions that differ", "periods"],
        [(d.device, _signed(d.difference), f"{100 * d.differing:.1f} %", d.periods) for d in ends],
    )


def print_trust(measured: Trust | None, why_not: str) -> None:
    """Say how far the predictions lay from what was measured, or why that is not known."""
    said = "Both rewards are predictions of the cost model, before hysteresis; only the acting policy was ever tried."
    if measured is None:
        console().print(f"{said} They could not be held against measured ones: {why_not}")
        return
    along = "" if measured.correlation is None else f", correlation {measured.correlation:.2f}"
    console().print(
        f"{said} For the acting policy the prediction was {measured.predicted:.4f} and the measured reward "
        f"{measured.measured:.4f}: {measured.bias:+.4f} off, {measured.typical_error:.4f} for a typical device and "
        f"minute{along} ({measured.blocks:,} of them). Differences much smaller than this error say little."
    )


def state_json(promotion: Promotion) -> dict[str, Any]:
    """Return all there is to tell, for ``--json``."""
    verdict = promotion.verdict()
    switched, others = promotion.compared_frames()
    return {
        "phase": promotion.phase,
        "candidate": promotion.candidate,
        "incumbent": promotion.incumbent,
        "stage_percent": 100 * promotion.terms.shares[promotion.stage] if promotion.phase is Phase.STAGE else None,
        "promoted_devices": [name for name in promotion.evidence.devices() if promotion.is_promoted(name)],
        "known_devices": len(promotion.evidence.devices()),
        "since_s": promotion.since_s,
        "reason": promotion.reason,
        "frames_compared": {"switched": switched, "others": others},
        "verdict": asdict(verdict) if verdict else None,
        "terms": asdict(promotion.terms),
        "events": [asdict(event) for event in promotion.events],
    }


def print_promotion(promotion: Promotion) -> None:
    """Print where a promotion stands."""
    told = state_json(promotion)
    verdict = promotion.verdict()
    percent = 100 * promotion.terms.confidence
    rows: list[tuple[str, object]] = [
        ("phase", promotion.phase.replace("_", " ")),
        ("candidate", promotion.candidate),
        ("acting for the others", promotion.incumbent or "the weights of the service's settings"),
        ("why", promotion.reason or None),
    ]
    if promotion.phase is Phase.STAGE:
        names = told["promoted_devices"]
        listed = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
        rows += [
            ("stage", f"{told['stage_percent']:g} %: {len(names)} of {told['known_devices']} devices ({listed})"),
            ("frames since the switch", "{switched:,} switched, {others:,} others".format(**told["frames_compared"])),
        ]
    if verdict is not None:
        effect = verdict.effect
        rows += [
            ("measured reward, switched", f"{verdict.reward_switched:.3f} ({verdict.switched} devices)"),
            (
                "measured reward, others",
                f"{verdict.reward_others:.3f} ({verdict.others} devices)"
                if verdict.reward_others is not None
                else "no comparison group: after against before",
            ),
            (
                "effect of the switch",
                f"{effect.estimate:+.3f} ({percent:g} %: {effect.low:+.3f} to {effect.high:+.3f})",
            ),
        ]
    print_table("promotion", ["what", "how it stands"], rows)
    if promotion.events:
        print_table("lately", ["when (UTC)", "what"], [(_utc(e.at_s), e.text) for e in promotion.events[-5:]])


def next_words(promotion: Promotion | None, waiting: Request | None, now_s: float) -> str:
    """Say what happens next."""
    if waiting is not None:
        return (
            f"a request to {'step back' if waiting.kind == 'rollback' else 'promote ' + waiting.candidate} waits for "
            f"the decision service since {max(now_s - waiting.asked_s, 0):.0f} s: is that running?"
        )
    if promotion is None:
        return "no promotion yet: begin one with splitfleet policy promote"
    terms = promotion.terms
    if promotion.phase is Phase.BASELINE:
        return f"next: the first stage, after {len(promotion.evidence.before)} of {KNOWN_BLOCKS} minutes of rewards"
    if promotion.phase is Phase.STAGE:
        last = promotion.stage == len(terms.shares) - 1
        onward = "promoted for good" if last else f"on to {100 * terms.shares[promotion.stage + 1]:g} %"
        left_h = max(terms.max_stage_s - (now_s - promotion.since_s), 0) / 3600
        return (
            f"next: {onward} once the effect is surely above {-terms.margin:+.3f} (after at least "
            f"{terms.min_period_s / 60:g} minutes and {terms.min_frames} frames per group); back if surely below; "
            f"decided in {left_h:.1f} h at the latest"
        )
    return "no promotion is in progress"


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def _utc(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M")
