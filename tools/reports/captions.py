"""What stands over and under each chart: its title, and how to read it."""

from __future__ import annotations

LEAST_FRAMES = 10
"""Of a plan that is drawn; fewer say little."""

CAPTIONS = {
    "stages": (
        "Where the time goes",
        f"Median time of each stage by device and plan ({LEAST_FRAMES} frames or more), measured; the upright line is"
        " the median of the whole. What lies between is time in queues and in waiting for answers that did not come;"
        " and medians do not add up.",
    ),
    "outcomes": (
        "Where results were computed",
        "Share of each device's frames by outcome, measured; in brackets, its frames.",
    ),
    "over-time": (
        "Latency over time",
        "Median latency of answered frames, measured, in UTC; dashed lines are changes of plan, breaks are times"
        " without answers.",
    ),
    "energy": (
        "Energy per frame",
        "Mean energy of the device per frame by device and plan. Hatched bars are modelled, full ones measured.",
    ),
    "accuracy": (
        "Accuracy against latency",
        f"Each dot is a device under one plan with at least {LEAST_FRAMES} labelled frames, measured; larger dots have"
        " more of them. Up is better, left is faster.",
    ),
}
