"""How long a frame waits at the edge: one queue before all interpreters, with batching."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

UTILISATION_CAP = 0.95
"""Above it the stationary formula says nothing useful; from there the wait grows with the backlog."""
BACKLOG_HORIZON_MS = 2000.0
"""Time over which work beyond capacity is taken to pile up."""
NO_WORKER_MS = 1e7
"""Wait where nobody serves; finite, so that sums stay numbers."""
TAIL_OF_WAIT = 3.0
"""95th percentile of a wait over its mean, for an exponential tail (ln 20)."""


def edge_delay(
    load: Array, batches: NDArray[np.int64], interpreters: int, backlog_ms: float
) -> tuple[Array, NDArray[np.int64]]:
    """Return (wait in ms [...], index of the batch size [...]) for loads [..., 1 + batch sizes].

    ``load[..., 0]`` is arrivals per second; ``load[..., 1 + g]`` busy interpreter ms per second if every batch had
    ``batches[g]`` frames. A batch is one customer of M/D/c, whose mean wait is half of Sakasegawa's M/M/c
    approximation (1977): ``S/(2c) · ρ^(√(2(c+1)) − 1) / (1 − ρ)``. The worker batches what waits, so of all batch
    sizes the one with the least wait + batch time holds: one frame at low load, more as the load grows. Beyond 95 %
    the wait rises linearly by the work that piles up within ``BACKLOG_HORIZON_MS``. A backlog that is already there
    is waited for in any case.
    """
    if interpreters < 1:
        return np.full(load.shape[:-1], NO_WORKER_MS), np.zeros(load.shape[:-1], np.int64)
    arrivals = np.maximum(load[..., :1], 1e-9)
    busy = load[..., 1:]
    batch_ms = batches * busy / arrivals
    rho = busy / (1000.0 * interpreters)
    below = np.minimum(rho, UTILISATION_CAP)
    exponent = math.sqrt(2 * (interpreters + 1)) - 1
    wait = batch_ms / (2 * interpreters) * below**exponent / (1 - below)
    wait += np.maximum(rho - UTILISATION_CAP, 0) * BACKLOG_HORIZON_MS
    best: NDArray[Any] = np.argmin(wait + batch_ms, axis=-1)
    chosen = np.take_along_axis(wait, best[..., None], axis=-1)[..., 0]
    return np.maximum(chosen, backlog_ms), best
