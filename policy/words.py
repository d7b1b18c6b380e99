"""Plans, rates and times in the words that reasons and log lines use."""

from __future__ import annotations

from wire.plan import Plan

_CODECS = {"q2": "2-bit", "q4": "4-bit", "q8": "8-bit", "f16": "float16", "f32": "float32", "i8": "int8"}


def plan_words(plan: Plan) -> str:
    """Say a plan, such as ``resnet-heavy 2-bit cut at s2``, ``resnet-light on the device``, ``vgg-heavy as webp75``."""
    if plan.is_local:
        return f"{plan.version} on the device"
    if plan.ships_input:
        return f"{plan.version} as {plan.codec}"
    return f"{plan.version} {_CODECS.get(plan.codec, plan.codec)} cut at {plan.cut}"


def rate_words(bps: float) -> str:
    """Say a rate, such as ``0.9 Mbit/s``."""
    return f"{bps / 1e6:.1f} Mbit/s" if bps >= 1e5 else f"{bps / 1e3:.0f} kbit/s"


def ms_words(ms: float) -> str:
    """Say a time, such as ``84 ms`` or ``2.4 s``."""
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"
