"""How long a frame waits at the edge: one queue before all interpreters, with batching."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

UTILISATION_CAP = 0.95
"""Above it the stationary formula says nothing useful; from there the wait grows with the backlog."""
BACKLOG_HORIZON_MS = 2000.0
"""Time over which work beyond capacity is taken to pile up."""
NO_WORKER_MS = 1e7
"""Wait where nobody serves; finite, so that sums stay numbers."""
TAIL_OF_WAIT = 3.0
"""95th percentile of a wait over its mean, for an exponential tail (ln 20)."""


def edge_delay(
    load: NDArray[Any], batches: NDArray[np.int64], interpreters: Any, backlog_ms: Any
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return (wait in ms [...], index of the batch size [...]) for loads [..., 1 + batch sizes].

    ``load[..., 0]`` is arrivals per second; ``load[..., 1 + g]`` busy interpreter ms per second if every batch had
    ``batches[g]`` frames. A batch is one customer of M/D/c, whose mean wait is half of Sakasegawa's M/M/c
    approximation (1977): ``S/(2c) · ρ^(√(2(c+1)) − 1) / (1 − ρ)``. The worker batches what waits, so of all batch
    sizes the one with the least wait + batch time holds: one frame at low load, more as the load grows. Beyond 95 %
    the wait rises linearly by the work that piles up within ``BACKLOG_HORIZON_MS``. A backlog that is already there
    is waited for in any case. ``interpreters`` and ``backlog_ms`` are numbers or arrays that broadcast to [...].
    """
    servers = np.maximum(np.asarray(interpreters, load.dtype), 1)[..., None]
    arrivals = np.maximum(load[..., :1], 1e-9)
    busy = load[..., 1:]
    batch_ms = batches.astype(load.dtype) * busy / arrivals
    rho = busy / (1000 * servers)
    below = np.minimum(rho, UTILISATION_CAP)
    # One interpreter: the exponent is 1, and powers are dear.
    curve = below if (servers == 1).all() else below ** (np.sqrt(2 * (servers + 1)) - 1)
    wait = batch_ms / (2 * servers) * curve / (1 - below)
    wait += np.maximum(rho - UTILISATION_CAP, 0) * BACKLOG_HORIZON_MS
    best: NDArray[Any] = np.argmin(wait + batch_ms, axis=-1)
    chosen = at_last(wait, best)
    nobody = np.asarray(interpreters) < 1
    return np.where(nobody, NO_WORKER_MS, np.maximum(chosen, backlog_ms)), np.where(nobody, 0, best)


def at_last(values: NDArray[Any], index: NDArray[np.int64]) -> NDArray[Any]:
    """Return values [..., G] at an index [...] of the last axis; several times quicker than ``take_along_axis``."""
    size = values.shape[-1]
    flat = np.ascontiguousarray(values).reshape(-1)
    at = np.arange(0, index.size * size, size) + index.reshape(-1)
    return np.asarray(flat[at]).reshape(index.shape)
