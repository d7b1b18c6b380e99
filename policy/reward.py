"""What a frame is worth: accuracy, latency and energy on one scale, less what goes wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

LATE_PENALTY = 0.5
"""For the share of frames predicted to pass their deadline."""
DROP_PENALTY = 1.0
"""For the share of frames that the device cannot even begin."""


def late_share(mean_ms: Array, p95_ms: Array, deadline_ms: Array) -> Array:
    """Return the share of frames past the deadline, 0 to 1, from the mean and the 95th percentile of latency.

    None while the 95th percentile meets it, half where the mean does just so, straight between and beyond.
    """
    spread = np.maximum(p95_ms - mean_ms, 1e-6)
    return np.clip((p95_ms - deadline_ms) / (2 * spread), 0.0, 1.0)


def dropped_share(device_utilisation: Array) -> Array:
    """Return the share of frames a device must drop when it is asked for more than all of its time."""
    return 1 - 1 / np.maximum(device_utilisation, 1.0)


def accuracy_term(accuracy: Array) -> Array:
    """Scale accuracies of a catalog to 0 … 1; all 1 where they do not differ."""
    low, high = float(accuracy.min()), float(accuracy.max())
    return np.ones_like(accuracy) if high <= low else (accuracy - low) / (high - low)


def reward(
    weights: Array,
    accuracy: Array,
    latency_ms: Array,
    deadline_ms: Array,
    energy_mj: Array,
    heavy_mj: Array,
    late: Array,
    dropped: Array,
) -> Array:
    """Return ``w_acc·A + w_lat·L + w_en·E`` less penalties; ``weights`` is [..., 3], ``accuracy`` already scaled.

    ``L = clip(1 − latency/deadline, −1, 1)``, ``E = clip(1 − energy/energy of the heaviest local plan, −1, 1)``.
    """
    latency = np.clip(1 - latency_ms / deadline_ms, -1.0, 1.0)
    energy = np.clip(1 - energy_mj / heavy_mj, -1.0, 1.0)
    worth = weights[..., 0] * accuracy + weights[..., 1] * latency + weights[..., 2] * energy
    return np.asarray(worth - LATE_PENALTY * late - DROP_PENALTY * dropped)
